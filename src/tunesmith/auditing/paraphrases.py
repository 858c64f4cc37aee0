"""Rows that are similar in meaning, by the embeddings of their texts, and no copies of one another by their words.

Two rows are as similar as their least similar part (`near_duplicates.parts`), by the cosine of the parts' embeddings.
Every row is compared with every other one, block by block; memory grows with the rows, not with the pairs.

Shapes: N rows, K parts of a row, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing import duplicate_audit
from tunesmith.auditing.duplicate_audit import NOTABLE_SHARE, PAIRS_SHOWN, DuplicatePair
from tunesmith.auditing.findings import Finding
from tunesmith.console import track
from tunesmith.data import duplicates, near_duplicates
from tunesmith.data.rows import SHOWN
from tunesmith.types import DuplicateIndex, Example, RowCopy

Vectors = NDArray[np.float32]
Index = NDArray[np.intp]
THRESHOLD = 0.9
"""Cosine similarity from which two rows are similar in meaning, unless another is set."""
SIMILARITIES = 1 << 24
"""Similarities in memory at once: 64 MB for each part of a row."""
DRAWN = 10_000
"""Pairs of rows, drawn at random, that say how similar rows usually are."""
USUAL = 0.9
"""The share of them that is not more similar than that."""


@dataclass(frozen=True, slots=True)
class ParaphraseCount:
    """How many rows of a split are similar in meaning to rows of another one, or to earlier rows of the same."""

    split: str
    other: str
    rows: int
    """Of `split`."""
    paraphrases: int

    @property
    def share(self) -> float:
        """The share of the rows of `split`."""
        return self.paraphrases / self.rows

    @property
    def within(self) -> bool:
        """Whether both rows lie in one split."""
        return self.split == self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class ParaphraseAudit:
    """Rows that are similar in meaning, as numbers."""

    model: str
    """What embeds the texts."""
    threshold: float
    usual: float
    """The cosine similarity that nine of ten pairs of rows, drawn at random, do not exceed."""
    cut: int = 0
    """Texts of which the model read the beginning alone."""
    counts: tuple[ParaphraseCount, ...] = ()
    """Of each pair of splits, those of test first, and of each split; where there are some."""
    pairs: tuple[DuplicatePair, ...] = ()
    """The most alike of each two splits; the file holds all."""
    file: str | None = None
    """The file with all pairs; None where there are none."""
    findings: tuple[Finding, ...] = ()


def audit(
    rows_by_split: Mapping[str, Sequence[Example]],
    index: DuplicateIndex,
    embed: Callable[[Sequence[str]], NDArray[np.float64]],
    threshold: float,
    model: str,
) -> tuple[ParaphraseAudit, list[DuplicatePair]]:
    """Return the audit, and every pair: each row that is similar to others and no copy, with the most similar of them.

    rows_by_split: in the order train, validation, test. index: of rows that include these. embed: returns the
    embeddings, N x D, of different texts. model: the name of what embeds.
    """
    vectors = _vectors(list(chain.from_iterable(rows_by_split.values())), embed)
    starts = np.cumsum([0, *map(len, rows_by_split.values())])
    by_split = {
        name: [part_ND[start : start + len(rows)] for part_ND in vectors]
        for (name, rows), start in zip(rows_by_split.items(), starts, strict=False)
    }
    counts: list[ParaphraseCount] = []
    shown: list[DuplicatePair] = []
    every_pair: list[DuplicatePair] = []
    findings: list[Finding] = []
    for split, other in duplicate_audit.of_splits(rows_by_split):
        similar = _similar(
            rows_by_split[split], rows_by_split[other], by_split[split], by_split[other], index, threshold
        )
        if not similar:
            continue
        count = ParaphraseCount(split, other, len(rows_by_split[split]), len(similar))
        pairs = [duplicate_audit.pair_of(row, split, other, rows_by_split) for row in similar]
        ranked = sorted(pairs, key=lambda pair: -pair.similarity)
        counts.append(count)
        every_pair += pairs
        shown += map(duplicate_audit.cut, ranked[:PAIRS_SHOWN])
        findings.append(_finding(count, similar))
    usual = _usual(vectors)
    if usual >= threshold:
        findings = [_unremarkable(threshold, usual)]
    found = ParaphraseAudit(
        model=model,
        threshold=threshold,
        usual=usual,
        counts=tuple(counts),
        pairs=tuple(shown),
        findings=tuple(findings),
    )
    return found, every_pair


def _vectors(rows: Sequence[Example], embed: Callable[[Sequence[str]], NDArray[np.float64]]) -> list[Vectors]:
    """Return the embeddings of each part of the rows with length 1: K arrays N x (D + 1).

    The last number is that of parts without text, which are like one another and like nothing else.
    """
    parts = [near_duplicates.parts(row) for row in rows]
    numbers: dict[str, int] = {"": 0}
    for part in chain.from_iterable(parts):
        numbers.setdefault(part, len(numbers))
    raw_TD = embed([text for text in numbers if text])
    units_TD = np.zeros((len(numbers), raw_TD.shape[1] + 1), dtype=np.float32)
    units_TD[0, -1] = 1
    lengths_T = np.sqrt(np.einsum("td,td->t", raw_TD, raw_TD))
    units_TD[1:, :-1] = raw_TD / np.where(lengths_T > 0, lengths_T, 1)[:, None]
    return [
        units_TD[[numbers[row_parts[k] if k < len(row_parts) else ""] for row_parts in parts]]
        for k in range(max(map(len, parts)))
    ]


def _similar(
    rows: Sequence[Example],
    others: Sequence[Example],
    vectors: Sequence[Vectors],
    other_vectors: Sequence[Vectors],
    index: DuplicateIndex,
    threshold: float,
) -> list[RowCopy]:
    """Return the rows that are similar to one of the others and have no copy among them, each with the most similar.

    Where both are one split, rows are compared with earlier ones.
    """
    within = rows is others
    copies = duplicates.repeats(rows, index) if within else duplicates.copies(rows, others, index)
    copied = {copy.place for copy in copies}
    places = np.array([place for place in range(len(rows)) if place not in copied], dtype=np.intp)
    similar = []
    for block in track(list(_blocks(places, len(others))), "similar in meaning"):
        columns = int(block[-1]) if within else len(others)
        if not columns:
            continue
        similarity_NM = _similarities([v[block] for v in vectors], [v[:columns] for v in other_vectors])
        if within:
            similarity_NM[np.arange(columns) >= block[:, None]] = -1
        best_N = similarity_NM.argmax(axis=1)
        value_N = similarity_NM[np.arange(len(block)), best_N]
        for row in np.flatnonzero(value_N >= threshold).tolist():
            place, other = int(block[row]), int(best_N[row])
            value = min(1.0, float(value_N[row]))
            similar.append(RowCopy(rows[place].id, place, others[other].id, other, "paraphrase", value))
    return similar


def _blocks(places: Index, others: int) -> Iterator[Index]:
    step = max(1, SIMILARITIES // max(1, others))
    for start in range(0, len(places), step):
        yield places[start : start + step]


def _similarities(vectors: Sequence[Vectors], others: Sequence[Vectors]) -> Vectors:
    """Return how similar rows are to others: N x M, of their parts the least."""
    least_NM = vectors[0] @ others[0].T
    for part_ND, other_MD in zip(vectors[1:], others[1:], strict=True):
        np.minimum(least_NM, part_ND @ other_MD.T, out=least_NM)
    return np.asarray(least_NM, dtype=np.float32)


def _usual(vectors: Sequence[Vectors]) -> float:
    """Return the similarity that pairs of rows rarely exceed; 0 for a single row."""
    rows = len(vectors[0])
    if rows < 2:
        return 0.0
    generator = np.random.default_rng(0)
    first_P = generator.integers(rows, size=DRAWN)
    second_P = (first_P + generator.integers(1, rows, size=DRAWN)) % rows
    similarity_KP = [np.einsum("pd,pd->p", part[first_P], part[second_P]) for part in vectors]
    return float(np.quantile(np.min(similarity_KP, axis=0), USUAL))


def sentence(count: ParaphraseCount) -> str:
    """Return what a count says: `12 of 3,800 test rows (0.3%) are similar in meaning to a row of train`."""
    what = "an earlier one" if count.within else f"a row of {count.other}"
    of = f"{count.paraphrases:,} of {count.rows:,} {count.split} rows ({count.share:.1%})"
    return f"{of} {'is' if count.paraphrases == 1 else 'are'} similar in meaning to {what}, and no copy by words"


def _finding(count: ParaphraseCount, similar: Sequence[RowCopy]) -> Finding:
    into_test = (count.split, count.other) == ("test", "train")
    why = "" if count.within else "A model that knows one may know the other. "
    return Finding(
        headline=f"{sentence(count)}.",
        severity="warning" if into_test and count.share >= NOTABLE_SHARE else "note",
        rows=count.paraphrases,
        where=tuple(row.id for row in similar[:SHOWN]),
        do=f"{why}Look at the pairs: they may differ only in what decides the label. No split is changed; name a "
        "column in split.group to keep rows together.",
    )


def _unremarkable(threshold: float, usual: float) -> Finding:
    return Finding(
        headline=f"Similarity in meaning says little: one of ten pairs of rows, drawn at random, reaches {usual:.2f}.",
        severity="note",
        do=f"The threshold is {threshold:g}: raise --paraphrase-threshold. Models that were trained to compare "
        "sentences tell more texts apart.",
    )
