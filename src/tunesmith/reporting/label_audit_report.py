"""What the report of an audit says of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.auditing.label_errors import Gold, LabelAudit, SuspectLabel
from tunesmith.evaluation.intervals import Estimate
from tunesmith.reporting.format import NOTHING, counted, level, percent, share
from tunesmith.reporting.markdown import code, plain, quote, table

MATRIX = 12
"""Labels that a matrix shows; of more there is a list of pairs."""
PAIRS, ROWS = 15, 20
"""Pairs of labels, and rows of each list, that a report shows; Markdown has fewer rows."""
MARKDOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Suspect training rows by given label (line) and suggested label (column)."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def matrix(audit: LabelAudit, labels: Sequence[str]) -> ConfusionMatrix | None:
    """Return given against suggested labels; None where there are too many labels, or several a row."""
    names = {name for pair in audit.confusions for name in (pair.given, pair.suggested)}
    shown = tuple(label for label in labels if label in names)
    if not shown or len(shown) > MATRIX or len(shown) < len(names):
        return None
    counts = {(pair.given, pair.suggested): pair.rows for pair in audit.confusions}
    return ConfusionMatrix(shown, tuple(tuple(counts.get((a, b), 0) for b in shown) for a in shown))


def gold(value: Gold) -> str:
    """Return what a row carries, for people."""
    if isinstance(value, tuple):
        return ", ".join(value) or "no label"
    return f"{value:.4g}" if isinstance(value, float) else value


def estimate(value: Estimate | None) -> str:
    """Return 4.1% [3.7%, 4.5%]."""
    return NOTHING if value is None else f"{share(value.value)} [{share(value.low)}, {share(value.high)}]"


def paragraphs(audit: LabelAudit) -> list[str]:
    """Return what the figures rest on, and what they leave out."""
    times = counted(audit.folds, "time")
    trained = (
        f"{audit.method} ({audit.description}) was trained {times}, each time without one fold of the training rows. "
        "Every row is judged by the model that has not learned from it; validation and test rows by a model of all "
        "training rows."
    )
    if audit.agreement is not None:
        trained += f" It agrees with {estimate(audit.agreement)} of the training labels."
    train = audit.of_split("train")
    if train is None or train.share is None:
        return [trained]
    text = (
        f"The {level(audit.confidence)} interval of the share of wrong labels only covers sampling error. The estimate "
        "itself can be too low, as the model learns mistakes that follow a pattern and takes them for right, and too "
        "high, as right labels of hard texts look wrong."
    )
    if audit.unexplained is not None:
        text += (
            f" {estimate(audit.unexplained)} is an upper bound: the share if every label that the model cannot predict "
            "from the text were wrong."
        )
    return [trained, text]


def markdown(audit: LabelAudit, labels: Sequence[str]) -> list[str]:
    """Return the section as paragraphs and tables."""
    if not audit.method:
        return []
    parts = ["## Labels", *map(plain, paragraphs(audit))]
    rows = (
        [part.split.capitalize(), f"{part.rows:,}", f"{part.suspect:,}", estimate(part.share)] for part in audit.splits
    )
    parts.append(table(["Split", "Rows", "Suspect", "Share of wrong labels"], rows))
    if audit.confusions and (counted_by := matrix(audit, labels)):
        lines = (
            [plain(label), *map(str, line)] for label, line in zip(counted_by.labels, counted_by.counts, strict=True)
        )
        parts.append(table(["Given ↓, suggested →", *map(plain, counted_by.labels)], lines))
    elif audit.confusions:
        pairs = ([plain(pair.given), plain(pair.suggested), f"{pair.rows:,}"] for pair in audit.confusions[:PAIRS])
        parts.append(table(["Given", "Suggested", "Rows"], pairs))
    for title, suspects in (("Most suspect training rows", audit.suspects), ("Held-out", audit.held_out_suspects)):
        if suspects:
            parts += [f"### {title}", "\n".join(map(_line, suspects[:MARKDOWN_ROWS]))]
    return parts


def _line(row: SuspectLabel) -> str:
    probability = "" if row.given_probability is None else f" {percent(row.given_probability)}"
    suggested = "" if row.suggested_probability is None else f" {percent(row.suggested_probability)}"
    given = f"{plain(gold(row.given))}{probability} → {plain(gold(row.suggested))}{suggested}"
    return f"- {code(row.id)} {given}: {quote(row.text)}"
