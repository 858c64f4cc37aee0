"""Which other task the names of labels suggest, and the weights of labels in a loss."""

from __future__ import annotations

import pytest

from tunesmith.tasks import classification
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import Example

TAGS = ["action", "drama", "action|drama", "comedy", "comedy|drama", "action|comedy", "action|comedy|drama"]


@pytest.mark.parametrize(
    ("labels", "suggested"),
    [
        (TAGS, "4 of 7 labels look like lists: task=multilabel data.label_separator=| would learn 3 labels"),
        (
            ["1", "2", "3", "4", "5"],
            "the labels are 5 whole numbers: classification with ordered labels; task=regression is possible",
        ),
        (
            ["-1.5", "0", "12.25"],
            "the labels are 3 numbers: classification with ordered labels; task=regression is possible",
        ),
    ],
)
def test_lists_and_numbers_are_recognised(labels: list[str], suggested: str) -> None:
    assert suggested in (classification.suggestion(labels) or "")


@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1"],
        ["negative", "positive"],
        ["Paris, France", "Rome, Italy", "Oslo, Norway"],  # no part is shared
        ["a/c repair", "plumbing"],
        ["3", "unknown", "5"],
    ],
)
def test_ordinary_names_suggest_nothing(labels: list[str]) -> None:
    assert classification.suggestion(labels) is None


def test_a_label_that_every_row_has_keeps_its_weight() -> None:
    """It has no rows without it to balance; a weight of 0 would leave its output to chance."""
    rows = [Example(str(n), "text", labels=("all", "few") if n == 0 else ("all",)) for n in range(4)]
    assert MultiLabel(("all", "few")).weights(rows, "balanced").tolist() == [1.0, 3.0]
