"""The votes of annotators, in every form in which files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import annotator_votes
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Example

LABELS = ("ham", "spam")


def read(tmp_path: Path, rows: list[dict[str, Any]], votes: Any, labels: tuple[str, ...] = LABELS, **data: Any) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "t", **row}) + "\n" for row in rows))
    examples = [
        Example(f"rows.jsonl:{n}", "t", label=str(row.get("label", labels[0]))) for n, row in enumerate(rows, 1)
    ]
    return annotator_votes.read(Data(path=str(path), votes=votes, **data), Split(), examples, labels)


@pytest.mark.parametrize(
    "cell",
    [["spam", "spam", "ham"], '["spam", "spam", "ham"]', "['spam', 'spam', 'ham']", "spam|spam|ham", "spam; spam;ham"],
)
def test_a_column_of_lists(tmp_path: Path, cell: Any) -> None:
    found = read(tmp_path, [{"all": cell}, {"all": None}, {"all": []}], "all")
    assert found.votes == ({"spam": 2, "ham": 1}, None, None)


def test_a_column_of_counts_by_label(tmp_path: Path) -> None:
    assert read(tmp_path, [{"all": {"spam": 2, "ham": 0}}], "all").votes == ({"spam": 2},)


def test_a_column_an_annotator(tmp_path: Path) -> None:
    rows = [{"a": "ham", "b": "spam", "c": ""}, {"a": "ham", "b": "ham", "c": "ham"}]
    assert read(tmp_path, rows, ["a", "b", "c"]).votes == ({"ham": 1, "spam": 1}, {"ham": 3})


def test_columns_of_votes_by_label(tmp_path: Path) -> None:
    rows = [{"n_spam": 3, "n_ham": "0"}, {"n_spam": None, "n_ham": 2.0}]
    by_name = read(tmp_path, rows, {"spam": "n_spam", "ham": "n_ham"})
    in_order = read(
        tmp_path,
        [row | {"label": label} for row, label in zip(rows, ("spam", "ham"), strict=True)],
        ["n_ham", "n_spam"],
    )
    assert by_name.votes == in_order.votes == ({"spam": 3}, {"ham": 2})
    assert in_order.described == "votes: n_ham for ham, n_spam for spam"


def test_numbers_are_votes_where_most_are_for_the_given_label_and_labels_otherwise(tmp_path: Path) -> None:
    counts = [{"a": 3, "b": 0, "label": 0}, {"a": 1, "b": 2, "label": 1}, {"a": 0, "b": 3, "label": 1}]
    assert read(tmp_path, counts, ["a", "b"], ("0", "1")).votes == ({"0": 3}, {"0": 1, "1": 2}, {"1": 3})
    annotators = [{"a": 0, "b": 0, "label": 0}, {"a": 0, "b": 1, "label": 0}, {"a": 0, "b": 0, "label": 0}]
    assert read(tmp_path, annotators, ["a", "b"], ("0", "1")).votes == ({"0": 2}, {"0": 1, "1": 1}, {"0": 2})


def test_labels_by_index_where_the_data_has_names(tmp_path: Path) -> None:
    assert read(tmp_path, [{"all": [1, 1, 0]}], "all", label_names=LABELS).votes == ({"spam": 2, "ham": 1},)


@pytest.mark.parametrize(
    ("rows", "votes", "problem"),
    [
        ([{"all": ["spam", "egg"]}], "all", "'egg'"),
        ([{"all": '["spam"'}], "all", "not JSON"),
        ([{"a": -1, "b": 2}], {"spam": "a", "ham": "b"}, "no number of votes"),
        ([{"a": 1}], {"egg": "a"}, "'egg'"),
        ([{"a": 1}], "b", "no column 'b'"),
    ],
)
def test_what_are_no_votes_is_refused_with_its_row(tmp_path: Path, rows: Any, votes: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path, rows, votes)
