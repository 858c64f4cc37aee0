"""Runs side by side are told apart by the settings that differ, in names, reports and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tunesmith
from tests.conftest import write_csv
from tests.sample_reports import Balance
from tunesmith import cli, recipe as recipes
from tunesmith.pipeline import run_names
from tunesmith.reporting.header import DifferingSettings
from tunesmith.runs import Run

LONG = "{" + ", ".join(f"label{n}: 2" for n in range(10)) + "}"


def trained(method: str, *settings: str) -> Any:
    """What names are made of: the manifest's name of the method, and the recipe."""
    recipe = recipes.load({"method": method}, settings)
    return SimpleNamespace(finished=SimpleNamespace(name=method), recipe=recipe)


def unique(*settings: Sequence[str], method: str = "linear") -> tuple[list[str], tuple[DifferingSettings, ...]]:
    return run_names.unique([trained(method, *words) for words in settings])


def test_the_one_setting_that_differs_is_in_the_name() -> None:
    assert unique(["C=1"], ["C=10"]) == (["linear (linear.C=1)", "linear (linear.C=10)"], ())
    assert unique(["C=0.5"], []) == (["linear (linear.C=0.5)", "linear (linear.C=10)"], ())
    names, tables = unique(["word_ngrams=[1,3]"], [], ["word_ngrams=[1,1]"])
    assert names == [f"linear (linear.word_ngrams={value})" for value in ("[1, 3]", "[1, 2]", "[1, 1]")]
    assert tables == ()


def test_seeds_are_told_apart() -> None:
    assert unique(["seed=1"], ["seed=2"])[0] == ["linear (seed=1)", "linear (seed=2)"]


def test_several_settings_are_a_table() -> None:
    names, (table,) = unique(["C=1", "min_df=1"], ["C=10", "min_df=1"], ["C=10"])
    assert names == ["linear 1", "linear 2", "linear 3"]
    assert table == DifferingSettings(
        "linear", tuple(names), {"linear.min_df": ("1", "1", "2"), "linear.C": ("1", "10", "10")}
    )


def test_equal_and_long_values_are_no_names() -> None:
    names, (table,) = unique(["C=1"], ["C=1"], ["C=10"])  # of which two would have the same name
    assert (names, table.values) == (["linear 1", "linear 2", "linear 3"], {"linear.C": ("1", "1", "10")})
    names, (table,) = unique([f"class_weights={LONG}"], [])
    assert (names, table.values["train.class_weights"][1]) == (["linear 1", "linear 2"], "none")


def test_runs_of_equal_settings_have_numbers_alone() -> None:
    """Where a run lies, and what is shown of it, is no difference; nor is the path of data with the same rows."""
    same = ["output_dir=elsewhere", "data.path=copy.csv", "bootstrap_samples=100", "logging_steps=3"]
    assert unique([], same) == (["linear 1", "linear 2"], ())


def test_models_go_by_their_names_and_other_settings_into_a_table() -> None:
    models = [["name_or_path=org/bert"], ["name_or_path=org/roberta"]]
    assert unique(*models, method="encoder") == (["encoder bert", "encoder roberta"], ())
    names, (table,) = unique(models[0], [*models[1], "learning_rate=1e-3"], method="encoder")
    assert names == ["encoder bert", "encoder roberta"]
    assert table.values["train.learning_rate"] == ("5e-05", "0.001")


def test_only_runs_of_one_method_are_told_apart() -> None:
    runs = [trained("linear", "C=1"), trained("encoder"), trained("linear", "C=2"), trained("probe", "C=7")]
    assert run_names.unique(runs)[0] == ["linear (linear.C=1)", "encoder", "linear (linear.C=2)", "probe"]
    assert run_names.unique([]) == ([], ())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_reports_and_the_terminal_have_the_table(
    task: str, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "regression":
        rows = [line.rsplit(",", 1)[0] for line in reviews.read_text().splitlines()[1:]]
        write_csv(reviews, [(text, str(len(text))) for text in rows])

    def run(name: str, *settings: str) -> Run:
        source = {"task": task, "method": "linear", "data": {"path": str(reviews)}}
        return tunesmith.train(source, ["bootstrap_samples=100", *settings], run_dir=tmp_path / name)

    plain, heavy, both = run("a", "C=1"), run("b", "C=100"), run("c", "C=1", "lowercase=false")
    capsys.readouterr()
    assert cli.main(["compare", str(plain.path), str(heavy.path)]) == 0
    shown = capsys.readouterr().out
    assert "linear (linear.C=1)" in shown
    assert "linear (linear.C=100)" in shown
    assert "setting that differs" not in shown

    assert cli.main(["compare", str(heavy.path), str(both.path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"setting that differs +linear 1 +linear 2\n[─ ]+\n +linear\.lowercase +true +false\n +linear\.C +100 +1", shown
    )
    page = Path(re.search(r"report: (.+)", shown)[1])
    text, html = page.with_suffix(".md").read_text(), page.read_text()
    assert (
        "| Setting that differs | linear 1 | linear 2 |\n| --- | ---: | ---: |\n| `linear.lowercase` | true | false |"
        in text
    )
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert "Settings that differ between the runs of linear" in html
    assert '<code>linear.C</code></th><td class="words">100</td><td class="words">1</td>' in html


def test_evaluate_names_the_runs_of_answers_by_their_settings(model: Path, pairs: Path, tmp_path: Path) -> None:
    source = {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}
    quick = ["bootstrap_samples=100", "num_train_epochs=0", "max_responses=4", "template=plain", "max_samples=20"]
    runs = [tunesmith.train(source, [*quick, f"max_new_tokens={n}"], run_dir=tmp_path / f"run{n}").path for n in (2, 3)]
    compared = tunesmith.evaluate(*runs)
    assert list(compared.models) == [f"generator:untuned (generate.max_new_tokens={n})" for n in (2, 3)]
    assert compared.differing is None
    other = tunesmith.train(source, [*quick, "max_new_tokens=4", "seed=7", "split.seed=42"], run_dir=tmp_path / "other")
    compared = tunesmith.evaluate(runs[0], other.path, report=tmp_path / "page.html")
    assert list(compared.models) == ["run2: generator:untuned", "other: generator:untuned"]
    (table,) = compared.differing
    assert table.runs == tuple(compared.models)
    assert table.values == {"seed": ("42", "7"), "generate.max_new_tokens": ("2", "4")}
    assert "Settings that differ between the runs of generator:untuned" in (tmp_path / "page.html").read_text()
    assert "| `generate.max_new_tokens` | 2 | 4 |" in (tmp_path / "page.md").read_text()
