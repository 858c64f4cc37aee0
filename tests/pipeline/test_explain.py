"""`tunesmith explain`: which words made a prediction, of every method and task, in every rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import small_runs, tiny
from tests.conftest import write_csv
from tests.sample_reports import Balance
from tunesmith import cli, console
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.pipeline.commands.explain import write
from tunesmith.reporting import explanation_report, word_marks
from tunesmith.reporting.schema import WorstMistakes
from tunesmith.runs import Run
from tunesmith.types import Explanation, WordContribution

TEXT = "the goal of the team"
HOSTILE = '<b>goal</b> \x1b[31m "team"'


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = [{"text": text, "label": label} for text, label in tiny.texts(90)]
    folder = tmp_path_factory.mktemp("run")
    return tunesmith.train(rows, ["method=linear", f"output_dir={folder}"], run_dir=folder / "linear")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A linear run of every other task that has labels or numbers, and one of pairs."""
    folder = tmp_path_factory.mktemp("tasks")
    texts = tiny.texts(60)
    tables: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
        "regression": ([{"text": t, "label": len(t)} for t, _ in texts], ["task=regression"]),
        "multilabel": ([{"text": t, "label": [x, "any"]} for t, x in texts], ["task=multilabel"]),
        "pairs": ([{"text": t, "other": t[::-1], "label": x} for t, x in texts], ["data.text_pair=other"]),
    }
    return {
        name: tunesmith.train(rows, ["method=linear", f"output_dir={folder}", *more], run_dir=folder / name)
        for name, (rows, more) in tables.items()
    }


def test_texts_and_labels(linear: Run) -> None:
    (sport,) = tunesmith.explain(linear, TEXT)
    assert (sport.id, sport.label, sport.predicted, sport.method) == ("text:1", "sport", "sport", "exact")
    assert max(sport.words, key=lambda word: word.contribution).word in ("goal", "team")
    first, second = tunesmith.explain(linear, [TEXT, "a robot"], label="tech")
    assert [(row.label, row.predicted) for row in (first, second)] == [("tech", "sport"), ("tech", "tech")]
    assert first.words[1].contribution < 0
    predicted = tunesmith.predict(linear, TEXT, top_k=3)[0]["scores"]
    assert (sport.probability, first.probability) == (predicted["sport"], predicted["tech"])


def test_other_tasks(tasks: dict[str, Run]) -> None:
    (number,) = tunesmith.explain(tasks["regression"], TEXT)
    assert (number.label, number.probability) == (None, None)
    assert number.predicted == tunesmith.predict(tasks["regression"], TEXT)[0]["value"]
    assert number.score == pytest.approx(number.predicted, abs=1e-9)
    several = tunesmith.explain(tasks["multilabel"], TEXT)
    assert [row.label for row in several] == list(several[0].predicted)  # type: ignore[call-overload]
    assert len(several) > 1
    (pair,) = tunesmith.explain(tasks["pairs"], TEXT, text_pairs=TEXT[::-1])
    assert [word.second for word in pair.words] == [None] * 5 + [True] * 5
    assert pair.baseline is not None
    assert pair.baseline + sum(word.contribution for word in pair.words) == pytest.approx(pair.score, abs=1e-9)
    for explanation in (number, *several, pair):
        shown = explanation_report.text(explanation)
        assert "goal" in shown
        assert "(second text)" in shown or explanation is not pair


@pytest.mark.parametrize(
    ("method", "expected"),
    [("encoder", "integrated-gradients"), ("probe", "occlusion"), ("generator", "occlusion")],
)
def test_methods_with_a_network(
    method: str, expected: str, tiny_models: Callable[[str], Path], reviews: Path, tmp_path: Path
) -> None:
    """And the worst mistakes in a run's report have marked words, except those of a generator."""
    model = tiny.generator("llama", tmp_path / "llama") if method == "generator" else tiny_models("bert")
    run = small_runs.classify(model, reviews, tmp_path / "run", "max_length=128", method=method)
    (explanation,) = tunesmith.explain(run, TEXT)
    assert (explanation.method, len(explanation.words)) == (expected, 5)
    assert explanation.predicted == tunesmith.predict(run, TEXT)[0]["label"]
    worst = run.load("worst.json", WorstMistakes).worst
    assert worst
    page = run.read_text("report.html")
    if method == "generator":
        assert all(mistake.words is None for mistake in worst)
        assert "<mark" not in page
        return
    for mistake in worst:
        assert mistake.words
        assert all(mistake.text[word.start :].startswith(word.word) for word in mistake.words)
    (again,) = tunesmith.explain(run, worst[0].text)
    strongest = max(again.words, key=lambda word: abs(word.contribution))
    assert strongest.word in [word.word for word in worst[0].words or ()]
    assert "<mark" in page
    Balance().feed(page)


def test_rows_of_a_file(linear: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "new.csv", [(TEXT, "1"), (HOSTILE, "2")], ("review", "stars"))
    words = ["explain", str(linear.path), "--data", str(source), "--text-column", "review"]
    output, page = tmp_path / "out.jsonl", tmp_path / "out.html"
    assert cli.main([*words, "--output", str(output), "--html", str(page)]) == 0
    assert "wrote 2 explanations to" in capsys.readouterr().err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["review"], row["stars"]) for row in rows] == [(TEXT, "1"), (HOSTILE, "2")]
    assert list(rows[0]["explanation"])[:5] == ["label", "predicted", "probability", "method", "score"]
    assert [word["word"] for word in rows[0]["explanation"]["words"]] == TEXT.split()
    content = page.read_text()
    balance = Balance()
    balance.feed(content)
    assert balance.open == []
    assert not balance.fetched
    assert content.count("<mark") > 3
    assert "<b>goal" not in content
    assert cli.main([*words, "--output", str(output)]) == 2
    assert "it exists" in capsys.readouterr().err
    taken = write_csv(tmp_path / "taken.csv", [(TEXT, "1")], ("text", "explanation"))
    again = tunesmith.explain(linear, source=taken)
    with pytest.raises(DataError, match="a column that is written"):
        write(again, linear, str(taken), output=tmp_path / "again.jsonl")


def test_what_is_printed(linear: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["explain", str(linear.path), "--text", HOSTILE]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "goal[+" in shown
    assert "\x1b" not in shown
    assert "= bias" in shown
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(words) == 0
    coloured = capsys.readouterr().out
    assert f"{explanation_report.FOR}goal{explanation_report.PLAIN}" in coloured
    assert "\\u001b[31m" in coloured
    assert cli.main([*words, "--json", "--method", "occlusion"]) == 0
    (content,) = json.loads(capsys.readouterr().out)
    assert content["method"] == "occlusion"
    assert "baseline" not in content
    assert [word["word"] for word in content["words"]][:4] == ["<", "b", ">", "goal"]


def test_errors(linear: Run, tasks: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        (): "nothing to explain",
        ("--text", " "): "text 1 is empty",
        ("--text", "a", "--label", "sports"): "no label 'sports'\n  expected: sport, tech, world",
        ("--text", "a", "--method", "integrated-gradients"): "expected: auto, exact, occlusion",
        ("--text", "a", "--text-pair", "b"): "was trained on one text a row",
        ("--text", "a", "--data", "b.csv"): "exclude each other",
        ("--text", "a", "--output", str(tmp_path / "out.csv")): "a name that ends in .jsonl",
        ("--text", "a", "--html", str(tmp_path / "nowhere" / "out.html")): "no folder",
    }
    for words, message in cases.items():
        assert cli.main(["explain", str(linear.path), *words]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(RecipeError, match="none, as numbers are predicted"):
        tunesmith.explain(tasks["regression"], "a", label="1")
    run = small_runs.instruct(tiny.generator("llama", tmp_path / "llama"), tmp_path / "talk")
    with pytest.raises(RunError, match="a run that predicts labels or numbers"):
        tunesmith.explain(run, "a")


def test_pieces_are_the_text() -> None:
    words = [WordContribution("b", 2, 2.0), WordContribution("c", 4, -0.5), WordContribution("d", 6, 0.05)]
    second = [WordContribution("x", 0, -4.0, True)]
    assert list(word_marks.pieces("a b c d", words)) == [
        *(("a ", 0, 0), ("b", 2.0, 1.0), (" ", 0, 0), ("c", -0.5, -0.25), (" d", 0, 0))
    ]
    assert list(word_marks.pieces("a b", [*words, *second]))[1] == ("b", 2.0, 0.5)
    assert list(word_marks.pieces("x y", [*words, *second], second=True)) == [("x", -4.0, -1.0), (" y", 0, 0)]
    assert list(word_marks.pieces("a b", ())) == [("a b", 0, 0)]
    assert [word.word for word in word_marks.visible(words)] == ["b", "c"]


def test_headings_name_what_is_explained() -> None:
    one = Explanation(
        id="1", text="a", label="x", predicted="x", probability=0.5, method="occlusion", score=0.0, words=()
    )
    headings = {
        "predicted: x 50.0%": one,
        "explained: x 50.0%; predicted: y": replace(one, predicted="y"),
        "explained: x 50.0%; predicted: x, y": replace(one, predicted=("x", "y")),
        "explained: x 50.0%; predicted: no label": replace(one, predicted=()),
        "predicted: −1.500": replace(one, predicted=-1.5, label=None, probability=None),
    }
    for heading, explanation in headings.items():
        assert explanation_report.heading(explanation) == heading
    assert console.printable(explanation_report.text(one)) == explanation_report.text(one)
