"""Classification: the target of a text is its label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith.errors import DataError
from tunesmith.types import Example


def gold(examples: Iterable[Example]) -> list[str]:
    """The labels of labelled examples."""
    return [str(example.label) for example in examples]


def strata(examples: Sequence[Example]) -> list[str | None]:
    """The label of each row: every split gets its share of each label."""
    return [example.label for example in examples]


def check_train(examples: Sequence[Example]) -> None:
    """Raise DataError where there is nothing to tell apart."""
    labels = {example.label for example in examples}
    if len(labels) == 1:
        raise DataError(
            "train has a single label",
            expected="at least two labels",
            found=repr(labels.pop()),
            do="check data.label and the rows",
        )
