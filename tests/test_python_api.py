"""The package as Python code uses it: DataFrames in and out, typed results, and what a notebook shows of them."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset

import tunesmith
from tests import small_runs, tiny
from tunesmith import console, recipe as recipes, runs
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.pipeline.trained_run import TrainedRun

ROOT = Path(__file__).parents[1]
COLUMNS = {"text_column": "review", "label_column": "stars"}
FEW = {"bootstrap_samples": 100}
HOSTILE = "<script>alert(1)</script> ball & goal"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """240 reviews, whose index is not 0, 1, 2, ..."""
    return pd.DataFrame(tiny.texts(240), columns=["review", "stars"], index=[f"r{n}" for n in range(240)])


@pytest.fixture(scope="module")
def run(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("api")
    return tunesmith.train(table, method="linear", linear={"C": 3, "min_df": 1}, output_dir=folder, **COLUMNS, **FEW)  # type: ignore[arg-type]


# --- the package


def test_what_type_checkers_see_is_what_is_imported() -> None:
    tree = ast.parse(Path(tunesmith.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == tunesmith._HOMES
    for name in tunesmith.__all__:
        assert getattr(tunesmith, name).__doc__, f"{name} is documented"


def test_a_users_script_is_typed_and_runs(table: pd.DataFrame, tmp_path: Path) -> None:
    """What `mypy --strict` says of a script, also of one with mistakes in it."""
    script = ROOT / "examples/python_api.py"
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        f"import tunesmith  # {tmp_path}: what mypy knows of another file of this name is not of this one\n"
        'run = tunesmith.train("a.csv", method="linear", run_dir=3)\n'
        "value: str = run.scores.headline['accuracy'].value\n"
        "tunesmith.audit('a.csv', next_rows='all')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", str(script), str(wrong)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [error.partition(": error:")[0] for error in errors] == [f"{wrong}:{line}" for line in (2, 3, 4)], errors
    table.to_csv("reviews.csv")
    words = ["reviews.csv", "--text-column", "review", "--label-column", "stars"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True)
    assert "accuracy 0.9" in done.stdout
    assert "predicted_label" in done.stdout


# --- settings as keyword arguments


def test_settings_are_those_of_overrides(run: TrainedRun) -> None:
    words = {
        "text_column": "a\u2028: #b \U0001f600",
        "C": np.float64(2),
        "learning_rate": 1e-5,
        "linear": {"char_ngrams": (2, 5), "lowercase": False},
        "class_weights": {"spam": 2},
        "model": Path("folder/model"),
        "early_stopping_patience": None,
    }
    recipe = recipes.load({"data": {"path": "a.csv"}}, recipes.overrides_of(words))
    assert recipe.data.text == words["text_column"]
    assert (recipe.linear.C, recipe.linear.char_ngrams, recipe.linear.lowercase) == (2.0, (2, 5), False)
    assert (recipe.train.learning_rate, recipe.train.class_weights) == (1e-5, {"spam": 2.0})
    assert (recipe.model.name_or_path, recipe.evaluate.early_stopping_patience) == ("folder/model", None)
    assert (run.recipe.linear.C, run.recipe.data.label, run.recipe.method) == (3.0, "stars", "linear")


def test_settings_that_cannot_be(table: pd.DataFrame) -> None:
    with pytest.raises(RecipeError, match=r"lerning_rate: no such setting; did you mean train.learning_rate"):
        tunesmith.train(table, lerning_rate=1)
    with pytest.raises(TypeError, match=r"C=<object.*: no setting has values of type object"):
        tunesmith.compare(table, C=object())
    with pytest.raises(RecipeError, match="no such setting"):
        tunesmith.audit(table, text_colum="review")  # type: ignore[call-arg]


# --- a run


def test_scores_of_a_run(run: TrainedRun) -> None:
    assert isinstance(run.scores, ClassificationScores)
    accuracy = run.scores.headline["accuracy"]
    assert accuracy.low < accuracy.value <= accuracy.high
    assert run.finished.costs.train_seconds is not None
    assert tunesmith.load_run(run.path) == run


def test_a_run_without_a_test_has_no_scores(table: pd.DataFrame) -> None:
    untested = tunesmith.train(table, method="linear", skip_test=True, **COLUMNS)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"has no scores\n.*\n  found: finished without a test\n  do: .*run.evaluate"):
        _ = untested.scores
    assert "linear" in repr(untested)
    assert "<table" not in untested._repr_html_()
    with pytest.raises(RunError, match=r"nowhere is not a run directory"):
        tunesmith.load_run("nowhere")


def same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return list(frame.to_dict("records"))


@pytest.mark.parametrize("made", [same, pl.from_pandas, pa.Table.from_pandas, Dataset.from_pandas, rows_of])
def test_tables_of_all_kinds_get_the_same_labels(
    made: Callable[[pd.DataFrame], Any], run: TrainedRun, table: pd.DataFrame
) -> None:
    part = table[:20]
    plain = tunesmith.predict(run, list(part["review"]))
    predicted = run.predict(made(part))
    assert list(predicted["predicted_label"]) == [row["label"] for row in plain]
    assert list(predicted["probability"]) == pytest.approx([row["score"] for row in plain], abs=0)
    assert list(predicted.columns)[:2] == ["review", "stars"]
    assert "id" not in predicted.columns
    assert isinstance(predicted, pl.DataFrame if made is pl.from_pandas else pd.DataFrame)
    if made is same:
        assert list(predicted.index) == list(part.index)


def test_texts_and_files_are_predicted_too(run: TrainedRun, table: pd.DataFrame, tmp_path: Path) -> None:
    series = run.predict(table["review"][3:6], top_k=2)
    assert list(series.columns) == ["text", "predicted_label", "probability", "probabilities"]
    assert list(series.index) == ["r3", "r4", "r5"]
    assert [len(best) for best in series["probabilities"]] == [2, 2, 2]
    assert len(run.predict("one text")) == 1
    assert isinstance(run.predict(pl.Series(["a", "b"])), pl.DataFrame)
    table[:4].to_csv(tmp_path / "new.csv", index=False)
    for predicted in (run.predict(tmp_path / "new.csv"), run.predict(source=str(tmp_path / "new.csv"))):
        assert list(predicted["id"]) == [f"new.csv:{line}" for line in (2, 3, 4, 5)]
    other = run.predict(table[:4].rename(columns={"review": "words"}), text_column="words")
    assert list(other["predicted_label"]) == list(predicted["predicted_label"])


def test_cells_stay_as_they_were(run: TrainedRun, table: pd.DataFrame) -> None:
    dated = table[:4].assign(day=pd.date_range("2026-01-01", periods=4), count=[1, 2, None, 4], price=1.0)
    pd.testing.assert_frame_equal(run.predict(dated)[list(dated.columns)], dated)
    dated.loc["r1", "review"] = None
    pd.testing.assert_frame_equal(run.predict(dated, on_bad_rows="drop")[["day"]], dated.drop("r1")[["day"]])
    polars = pl.from_pandas(dated[["review", "day"]]).drop_nulls()
    assert run.predict(polars).select(polars.columns).equals(polars)


def test_rows_that_cannot_be_predicted(run: TrainedRun, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    holed = table[:5].copy()
    holed.loc["r2", "review"] = None
    with pytest.raises(DataError, match="null text: 1"):
        run.predict(holed)
    assert list(run.predict(holed, on_bad_rows="drop").index) == ["r0", "r1", "r3", "r4"]
    kept = run.predict(holed.assign(id=range(5)), on_bad_rows="keep")
    assert (list(kept["id"]), list(kept["error"].notna())) == ([0, 1, 2, 3, 4], [n == 2 for n in range(5)])
    with pytest.raises(TypeError, match="cannot read texts from int"):
        run.predict(3)
    with pytest.raises(DataError, match="nothing to predict"):
        run.predict([])
    with pytest.raises(DataError, match="nothing to predict"):
        run.predict(table[:0])
    for texts, more in (
        (table, {"text_pairs": ["a"]}),
        (["a text"], {"source": "a.csv"}),
        (Path("a.csv"), {"text_pairs": "b"}),
    ):
        with pytest.raises(RecipeError, match="texts and a data source exclude each other"):
            run.predict(texts, **more)
    with pytest.raises(RecipeError, match="a resumed comparison keeps its sources"):
        tunesmith.compare(table, resume=run.path)
    with pytest.raises(DataError, match="found: the columns words, stars\n"):
        run.predict(table.rename(columns={"review": "words"}))
    real = builtins.__import__

    def without_pandas(name: str, *args: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr("importlib.import_module", without_pandas)
    with pytest.raises(DataError, match=r"cannot make a DataFrame\n.*\n.*\n  do: pip install pandas"):
        run.predict(["a text"])


def test_a_run_is_scored_on_a_dataframe(run: TrainedRun, table: pd.DataFrame) -> None:
    scores = run.evaluate(table[:60].rename(columns={"stars": "rating"}), label_column="rating")
    assert (scores.rows, set(scores.headline)) == (60, set(run.scores.headline))
    with pytest.raises(RunError, match="labels that the run does not know: cooking"):
        run.evaluate(table[:5].assign(stars="cooking"))


def test_runs_of_other_tasks(tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    number = small_runs.learn("regression", "linear", tmp_path / "number", tmp_path)
    several = small_runs.learn("multilabel", "linear", tmp_path / "several", tmp_path)
    model = tiny.generator("llama", tmp_path / "llama", max_position_embeddings=1024)
    chat = small_runs.instruct(model, tmp_path / "chat", "method=generator")
    columns = {}
    for name, each in (("number", number), ("several", several), ("chat", chat)):
        answered = tunesmith.load_run(each.path).predict(pd.Series(["some text", "another"], index=[7, 8]))
        assert list(answered.index) == [7, 8]
        columns[name] = list(answered.columns)
    assert columns == {
        "number": ["text", "predicted_value"],
        "several": ["text", "predicted_labels", "probabilities"],
        "chat": ["prompt", "response", "tokens", "ended"],
    }
    assert isinstance(tunesmith.load_run(number.path).scores, RegressionScores)
    chat_run = tunesmith.load_run(chat.path)
    assert isinstance(chat_run.scores, GenerationScores)
    assert "Loss" in chat_run._repr_html_()


# --- a comparison


@pytest.fixture
def two(table: pd.DataFrame, tmp_path: Path) -> list[TrainedRun]:
    """Runs of one method with different settings."""
    table.to_csv(tmp_path / "reviews.csv", index=False)
    made = []
    for features in (2, 500):
        folder = tmp_path / f"features-{features}"
        settings: dict[str, Any] = {**COLUMNS, **FEW, "method": "linear", "max_features": features, "min_df": 1}
        made.append(tunesmith.train(tmp_path / "reviews.csv", run_dir=folder, **settings))
    return made


def with_validation(run: TrainedRun, **scores: float) -> None:
    run.save_manifest(replace(run.finished, validation=scores or None))


def test_the_best_run_is_chosen_by_validation_and_not_by_test(two: Sequence[TrainedRun]) -> None:
    weak, strong = two
    assert weak.scores.headline["macro_f1"].value < strong.scores.headline["macro_f1"].value
    comparison = tunesmith.compare(two)
    assert list(comparison.runs.values()) == two
    assert comparison.best == strong
    with_validation(weak, macro_f1=0.99, accuracy=0.1)
    with_validation(strong, macro_f1=0.98, accuracy=0.9)
    assert comparison.best == weak
    with_validation(strong)
    with pytest.raises(RunError, match=r"linear \(linear.max_features=500\) has no macro_f1 of a validation split"):
        _ = comparison.best


def test_a_comparison_as_a_dataframe(two: Sequence[TrainedRun]) -> None:
    comparison = tunesmith.compare(two)
    frame = comparison.table()
    assert list(frame.index) == list(comparison.runs)
    assert frame.index.name == "method"
    for name, run in comparison.runs.items():
        row, accuracy = frame.loc[name], run.scores.headline["accuracy"]
        assert tuple(row[["accuracy_low", "accuracy", "accuracy_high"]]) == (
            accuracy.low,
            accuracy.value,
            accuracy.high,
        )
        assert row["train_seconds"] == run.finished.costs.train_seconds
        assert row["parameters"] == run.finished.costs.parameters
    assert tunesmith.load_comparison(comparison.path) == comparison
    assert comparison.verdict in repr(comparison)
    assert all(name in repr(comparison) for name in comparison.runs)
    with pytest.raises(RunError, match="is not the folder of a comparison"):
        tunesmith.load_comparison(two[0].path)


@pytest.mark.usefixtures("trained_here")
def test_a_comparison_of_a_dataframe(table: pd.DataFrame) -> None:
    comparison = tunesmith.compare(table, methods=["linear"], **COLUMNS, **FEW)  # type: ignore[arg-type]
    assert list(comparison.runs) == ["linear"]
    assert comparison.best.recipe.data.text == "review"
    loaded = tunesmith.load_comparison(comparison.path)
    assert loaded.table().equals(comparison.table())


# --- an audit


def test_an_audit_of_a_dataframe(table: pd.DataFrame) -> None:
    doubled = pd.concat([table, table[:30]])
    audit = tunesmith.audit(doubled, method="linear", duplicate_threshold=0.9, **COLUMNS)  # type: ignore[arg-type]
    frame = audit.table()
    assert list(frame.columns) == ["severity", "headline", "rows", "where", "do"]
    assert [tuple(row) for row in frame[["severity", "headline"]].itertuples(index=False)] == [
        (finding.severity, finding.headline) for finding in audit.findings
    ]
    assert frame["rows"].sum() >= 30
    assert audit.findings[0].headline in repr(audit)
    assert tunesmith.load_audit(audit.path) == audit
    with pytest.raises(RunError, match="is not the folder of a finished audit"):
        tunesmith.load_audit(".")


# --- what a notebook shows


def test_texts_of_strangers_are_escaped(table: pd.DataFrame) -> None:
    """Labels, columns and texts of the data, and names of files."""
    hostile = table.assign(stars=table["stars"].replace("sport", HOSTILE))
    hostile.loc["r0", "review"] = HOSTILE
    hostile.to_csv("<b>.csv", index=False)
    settings: dict[str, Any] = {**COLUMNS, **FEW, "method": "linear", "min_df": 1}
    run = tunesmith.train("<b>.csv", **settings)
    comparison = tunesmith.compare([str(run.path)])
    audit = tunesmith.audit(pd.concat([hostile] * 2), method="linear", **COLUMNS)  # type: ignore[arg-type]
    for shown in (run, comparison, audit):
        page = shown._repr_html_()
        assert "<script" not in page
        assert "<b>" not in page
    assert "&lt;script&gt;" in comparison._repr_html_()
    assert "&lt;b&gt;.csv" in run._repr_html_()
    assert "<script" not in run.predict([HOSTILE])._repr_html_()


def test_a_damaged_run_is_still_shown(table: pd.DataFrame) -> None:
    run = tunesmith.train(table, method="linear", **COLUMNS, **FEW)  # type: ignore[arg-type]
    (run.path / "scores.json").write_text("{}")
    assert "scores.json" in repr(run)
    assert "scores.json" in run._repr_html_()


def test_a_report_opens_in_the_browser_or_says_where_it_is(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)) or len(opened) == 1)
    run.show()
    assert opened == [run.page.resolve().as_uri()]
    run.show()
    assert f"open {run.page}" in capsys.readouterr().err
    with pytest.raises(RunError, match="there is no report at"):
        TrainedRun(runs.create("runs", "new").path).show()


def test_a_report_is_embedded_in_a_cell_without_its_scripts(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(console, "in_notebook", lambda: True)
    monkeypatch.setattr(console, "display", shown.append)
    run.show(height=300)
    frame = shown[0]["text/html"]
    assert 'sandbox="allow-popups"' in frame
    assert "height: 300px" in frame
    assert "<h1" not in frame
    assert "&lt;h1" in frame
