"""Which rows to label next: those of which a model is unsure, and which are unlike each other.

Rows are chosen by k-means++ seeding over the gradients that their most probable labels would have in the last layer
(BADGE: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, ICLR 2020). The length of a
gradient grows with the uncertainty, and its direction with label and text, so that there is nothing to weigh between
the two. Shapes: N rows, K outputs, D features.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing.findings import Finding
from tunesmith.data.text_keys import text_key
from tunesmith.evaluation.intervals import Floats
from tunesmith.types import Example

WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ChosenRow:
    """A row to label next."""

    id: str
    text: str
    predicted: str
    """Label, labels or number that the model gives it."""
    probability: float | None
    """Of the label; None of a number."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveLabellingAudit:
    """Which rows of an unlabelled pool to label next."""

    source: str
    method: str
    pool: int
    """Rows that were read."""
    same_as_labelled: int
    """Rows left out because a labelled row has the same text."""
    repeated: int
    """Rows left out because an earlier row of the pool has the same text."""
    asked: int
    chosen: int
    file: str
    """The CSV file with the chosen rows, in the folder of the audit."""
    shown: tuple[ChosenRow, ...]
    """The first of them."""
    predicted: dict[str, int]
    """How often each label is predicted for the chosen rows; empty for numbers."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, in a line."""
        found = [
            Finding(
                headline=f"To label next: {self.chosen:,} of {self.pool:,} unlabelled rows, in {self.file}.",
                severity="note",
                rows=self.chosen,
                where=tuple(row.id for row in self.shown),
                do="Label them, add them to the training data, and audit again.",
            )
        ]
        if left_out := self.same_as_labelled + self.repeated:
            found.append(
                Finding(
                    headline=f"{left_out:,} of {self.pool:,} unlabelled rows repeat a text: {self.same_as_labelled:,} "
                    f"that of a labelled row, {self.repeated:,} that of another unlabelled one.",
                    severity="note",
                    rows=left_out,
                    do="Leave them out of the pool: labelling them adds nothing.",
                )
            )
        return tuple(found)


def normalised(example: Example) -> tuple[str, ...]:
    """Return what texts have in common that differ in case, Unicode form, spaces and punctuation alone."""
    texts = (example.text,) if example.text_pair is None else (example.text, example.text_pair)
    return tuple(" ".join(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) or text for text in texts)


def without_duplicates(pool: Sequence[Example], labelled: Iterable[Example]) -> tuple[list[int], int, int]:
    """Return the numbers of the pool's rows whose text is new, and how many labelled rows and the pool itself have."""
    known = {key for row in labelled for key in (text_key(row), normalised(row))}
    seen: set[object] = set()
    kept, same, repeated = [], 0, 0
    for number, row in enumerate(pool):
        keys = {text_key(row), normalised(row)}
        if keys & known:
            same += 1
        elif keys & seen:
            repeated += 1
        else:
            kept.append(number)
        seen |= keys
    return kept, same, repeated


def choose(errors_NK: Floats, features_ND: Any, count: int, seed: int) -> list[int]:
    """Return the numbers of `count` rows, in the order in which they are chosen; all of them if there are no more.

    errors_NK: probabilities minus the predicted labels as 0 and 1, or how unsure a number is. features_ND: what the
    last layer reads, as an array or a CSR matrix. The first row is the least certain one, and each next one is drawn
    with a probability that grows with the squared distance of its gradient, error times features, from all before it.
    Equal input and seed give the same rows.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    lengths_N = _squares(features_ND)
    norms_N = (errors_NK**2).sum(axis=1) * lengths_N
    chosen: list[int] = []
    distances_N = np.full(len(norms_N), np.inf)
    open_N = np.ones(len(norms_N), dtype=bool)
    for _ in range(min(count, len(norms_N))):
        weights_N = np.where(open_N, norms_N if not chosen else distances_N, 0.0)
        total = weights_N.sum()
        if not chosen or total <= 0:  # nothing is left to tell the rows apart by
            place = int(np.where(open_N, norms_N, -1.0).argmax())
        else:
            place = int(np.searchsorted(np.cumsum(weights_N), generator.random() * total, side="right"))
            place = min(place, len(norms_N) - 1)
        chosen.append(place)
        open_N[place] = False
        products_N = (errors_NK @ errors_NK[place]) * _products(features_ND, place)
        distances_N = np.minimum(distances_N, np.maximum(norms_N + norms_N[place] - 2 * products_N, 0))
    return chosen


def _squares(features_ND: Any) -> Floats:
    squares = features_ND.multiply(features_ND) if hasattr(features_ND, "multiply") else features_ND**2
    return np.asarray(squares.sum(axis=1), dtype=np.float64).ravel()


def _products(features_ND: Any, place: int) -> NDArray[np.float64]:
    row = features_ND[[place]]
    product = features_ND @ row.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=np.float64).ravel()
