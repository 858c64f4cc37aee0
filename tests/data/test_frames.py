"""Tables in memory: every kind becomes the same rows, and anything else is a TypeError that says what is expected."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

import tunesmith
from tests import tiny
from tunesmith import TextClassifier
from tunesmith.data import frames
from tunesmith.errors import DataError
from tunesmith.runs import Run

ROWS = [{"text": text, "label": label} for text, label in tiny.texts(60)]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
LABELS = sorted({row["label"] for row in ROWS})
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=LABELS)})
TABLES: dict[str, Callable[[], Any]] = {
    "rows": lambda: ROWS,
    "columns": lambda: COLUMNS,
    "arrays": lambda: {name: np.array(cells) for name, cells in COLUMNS.items()},
    "pandas": lambda: pandas.DataFrame(ROWS, index=range(7, 67)),
    "polars": lambda: polars.DataFrame(ROWS),
    "lazy": lambda: polars.DataFrame(ROWS).lazy(),
    "datasets": lambda: Dataset.from_list(ROWS),
    "arrow": lambda: pyarrow.Table.from_pylist(ROWS),
    "batch": lambda: pyarrow.RecordBatch.from_pylist(ROWS),
    "streamed": lambda: Dataset.from_list(ROWS).to_iterable_dataset(),
    "labels": lambda: Dataset.from_dict(
        {**COLUMNS, "label": [LABELS.index(row["label"]) for row in ROWS]}, features=FEATURES
    ),
}
LINEAR = ["method=linear", "evaluate.bootstrap_samples=100"]


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_gives_the_same_rows(kind: str) -> None:
    assert frames.rows(TABLES[kind]()) == ROWS


@pytest.mark.parametrize(
    "value", [None, 3, "a.csv", b"a", [1, 2], ["a"], [], {}, {"method": "linear"}, {"a": [1], "b": [1, 2]}]
)
def test_what_is_no_table(value: object) -> None:
    assert frames.rows(value) is None


def test_a_frame_that_would_lose_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="duplicate column names"):
        frames.rows(pandas.DataFrame([["a", "b"]], columns=["text", "text"]))
    with pytest.raises(DataError, match="holds bytes"):
        frames.store([{"text": b"a"}], tmp_path)


def test_cells_that_json_does_not_have(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {
            "number": np.array([1, 2], dtype=np.int64),
            "day": [datetime.date(2026, 1, 2), None],
            "time": [pandas.Timestamp("2026-01-02"), pandas.NaT],
            "missing": pandas.array([None, 3], dtype="Int64"),
            "list": [np.array([1, 2]), np.array([3])],
            5: ["a", "b"],
        }
    )
    path = frames.store(frames.rows(table) or [], tmp_path / "new")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "number": 1,
        "day": "2026-01-02",
        "time": "2026-01-02 00:00:00",
        "missing": None,
        "list": [1, 2],
        "5": "a",
    }
    assert (second["day"], second["time"], second["missing"], second["list"]) == (None, None, 3, [3])
    assert frames.store(frames.rows(table) or [], tmp_path / "new") == path  # named by its content


FUNCTIONS: dict[str, Callable[[Any, Run], Any]] = {
    "train": lambda table, run: tunesmith.train(table, LINEAR).manifest.data.fingerprint,
    "train on a part": lambda table, run: (
        tunesmith.train({"data": {"train": table, "test": ROWS[:9]}}, LINEAR).manifest.data.fingerprint
    ),
    "check": lambda table, run: tunesmith.check(table, LINEAR).fingerprint,
    "compare": lambda table, run: (
        Run(tunesmith.compare(table, LINEAR, methods=["linear"]).path / "linear").manifest.data.fingerprint
    ),
    "audit": lambda table, run: tunesmith.audit(table, LINEAR, method="linear").report.data.fingerprint,
    "predict a source": lambda table, run: tunesmith.predict(run, source=table),
    "predict": lambda table, run: tunesmith.predict(run, table),
    "explain": lambda table, run: [row.text for row in tunesmith.explain(run, source=table)],
    "evaluate": lambda table, run: tunesmith.evaluate(run, data=table).rows,
    "pseudo_label": lambda table, run: tunesmith.pseudo_label(run.path, source=table, threshold=0).report.rows,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tunesmith.train(ROWS, LINEAR, run_dir=tmp_path_factory.mktemp("frames") / "run")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_every_table(name: str, run: Run, tmp_path: Path) -> None:
    """And gives what it gives for the rows in a file."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    function = FUNCTIONS[name]
    expected = function(ROWS if name == "predict" else str(path), run)
    kinds = ("pandas", "arrow", "streamed") if name == "compare" else TABLES  # which starts a process for each
    for kind in kinds:
        result = function(TABLES[kind](), run)
        if name == "predict a source":  # whose ids are those of the file
            result, expected = ([{**row, "id": ""} for row in rows] for rows in (result, expected))
        assert result == expected, kind


def test_the_table_of_a_run_stays(run: Run) -> None:
    """So that it can be resumed, and its data read again."""
    assert Path(str(run.recipe.data.path)).is_file()


def test_every_entry_point_takes_a_table(tmp_path: Path) -> None:
    table = pandas.DataFrame(ROWS)
    assert tunesmith.check(table, LINEAR).splits["train"].rows == 42
    assert len(tunesmith.compare(table, LINEAR, methods=["linear"]).report.methods) == 1
    assert len(tunesmith.compare(ROWS, LINEAR, methods=["linear"]).report.methods) == 1
    splits = DatasetDict({"train": Dataset.from_list(ROWS[:40]), "test": Dataset.from_list(ROWS[40:])})
    run = tunesmith.train(splits, [*LINEAR, "validation_size=0"])
    assert [run.manifest.data.splits[name].rows for name in ("train", "test")] == [40, 20]
    run = tunesmith.train({"method": "linear", "data": {"train": table[:40], "test": table[40:]}}, LINEAR)
    assert run.manifest.data.splits["test"].rows == 20
    assert tunesmith.pseudo_label(run.path, source=table, threshold=0).report.rows == 60
    answers = [{"instruction": row["text"], "output": "a b", "model_response": "a c"} for row in ROWS[:8]]
    assert tunesmith.evaluate(pandas.DataFrame(answers)).rows == 8


def test_a_string_is_one_source_and_one_text(tmp_path: Path) -> None:
    pandas.DataFrame(ROWS).to_csv("rows.csv", index=False)
    comparison = tunesmith.compare("rows.csv", LINEAR, methods=["linear"])
    run = comparison.path / "linear"
    (row,) = tunesmith.predict(run, "the goal of the team")
    assert row["text"] == "the goal of the team"
    texts = [row["text"] for row in ROWS[:3]]
    for several in (texts, tuple(texts), np.array(texts), pandas.Series(texts), polars.Series(texts)):
        assert [row["text"] for row in tunesmith.predict(run, several)] == texts
    assert len(tunesmith.predict(run, pandas.DataFrame(ROWS))) == 60


@pytest.mark.parametrize("value", [3, object(), ["a", 3]])
def test_anything_else_is_a_type_error_that_names_what_is_expected(value: object, tmp_path: Path) -> None:
    run = tunesmith.train(ROWS, LINEAR, run_dir=tmp_path / "run")
    for call in (
        lambda: tunesmith.train(value),
        lambda: tunesmith.check(value),
        lambda: tunesmith.compare([value]),
        lambda: tunesmith.sweep(value, ["C=1,2"]),
        lambda: tunesmith.predict(run, source=value),
        lambda: tunesmith.predict(run, value),
        lambda: tunesmith.evaluate(run, data=value),
        lambda: tunesmith.pseudo_label(run.path, source=value),
        lambda: tunesmith.judge(value),
        lambda: tunesmith.judge_scores(value),
        lambda: tunesmith.export(run, "safetensors", source=value),
    ):
        with pytest.raises(TypeError, match=r"expected a (path|string)"):
            call()


def test_the_classifier_takes_series_frames_and_a_string() -> None:
    table = pandas.DataFrame(ROWS)
    classifier = TextClassifier(overrides=["linear.min_df=1"])
    before = classifier.fit(COLUMNS["text"], COLUMNS["label"]).predict_proba(COLUMNS["text"])
    for texts, labels in (
        (table["text"], table["label"]),
        (table[["text"]], table[["label"]]),
        (polars.DataFrame(ROWS)["text"], polars.DataFrame(ROWS)["label"]),
        (pyarrow.Table.from_pylist(ROWS)["text"], pyarrow.Table.from_pylist(ROWS)["label"]),
        (Dataset.from_list(ROWS)["text"], Dataset.from_list(ROWS)["label"]),
    ):
        np.testing.assert_array_equal(classifier.fit(texts, labels).predict_proba(texts), before)
    assert classifier.predict("the goal of the team").shape == (1,)
    with pytest.raises(TypeError, match="expected a string"):
        classifier.fit(3, COLUMNS["label"])
