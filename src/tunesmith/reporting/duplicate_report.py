"""What the report of an audit says about duplicates and leaks: counts, and pairs with their difference marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby

from tunesmith.auditing.duplicate_audit import DuplicateAudit, DuplicateCount, DuplicatePair
from tunesmith.auditing.paraphrases import ParaphraseCount
from tunesmith.reporting.markdown import code, plain, table

TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
KEPT = 60
"""Characters of a passage that both texts have, at either end of it; what lies between is left out."""
LISTED = 2
"""Pairs of each grade and two splits in Markdown; the page has more."""

Piece = tuple[str, bool]
"""A part of a text, and whether it differs from the other text."""


def differences(text: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Return two texts in pieces, those that differ marked, word by word; long passages in common are shortened."""
    ours, theirs = TOKEN.findall(text), TOKEN.findall(other)
    first: list[Piece] = []
    second: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if tag == "equal":
            common = _shortened("".join(ours[a:b]))
            first.append((common, False))
            second.append((common, False))
            continue
        if b > a:
            first.append(("".join(ours[a:b]), True))
        if d > c:
            second.append(("".join(theirs[c:d]), True))
    return first, second


def _shortened(text: str) -> str:
    return text if len(text) <= 3 * KEPT else f"{text[:KEPT].rstrip()} … {text[-KEPT:].lstrip()}"


def place(counted: DuplicateCount | ParaphraseCount, how: str = "copied in") -> str:
    """Return where the copies lie: `test, copied in train`, or `within train`."""
    return f"within {counted.split}" if counted.within else f"{counted.split}, {how} {counted.other}"


def likeness(pair: DuplicatePair) -> str:
    """Return how alike two rows are, and by which folds: `normalised (case, punctuation)`, `near, 0.85`."""
    if pair.grade in ("near", "paraphrase"):
        return f"{pair.grade}, {pair.similarity:.2f}"
    return f"{pair.grade} ({', '.join(pair.folds)})" if pair.folds else pair.grade


def grouped(pairs: Iterable[DuplicatePair]) -> Iterator[tuple[str, list[DuplicatePair]]]:
    """Yield the pairs of each two splits, with a title."""
    for (split, other), of_splits in groupby(pairs, key=lambda pair: (pair.split, pair.other_split)):
        yield f"Within {split}" if split == other else f"{split.capitalize()} and {other}", list(of_splits)


def note(audit: DuplicateAudit) -> str:
    """Explain the grades."""
    near = (
        f"near: they share at least {audit.threshold:.0%} of their words and pairs of neighbouring words "
        "(split.duplicate_threshold)"
        if audit.threshold < 1
        else "near-duplicates were not sought, as split.duplicate_threshold is 1"
    )
    folds = ", ".join(f"{fold} {count:,}" for fold, count in audit.folds.items())
    return (
        "Exact: the texts are equal. Normalised: they are equal but for case, white space, punctuation, markup, URLs, "
        f"numbers or forms of characters{f' (needed by: {folds})' if folds else ''}. {near[0].upper()}{near[1:]}. Each "
        "row counts once, with the row that it is most alike."
    )


def markdown(audit: DuplicateAudit) -> list[str]:
    """Return the part in Markdown; nothing where there are no copies."""
    if not audit.counts:
        return []
    head = ["Rows of", "Rows", "Exact", "Normalised", "Near", "Share", "Rows of the other split"]
    rows = (
        [
            place(counted),
            *(f"{number:,}" for number in (counted.rows, counted.exact, counted.normalised, counted.near)),
            f"{counted.share:.1%}",
            f"{counted.others:,}",
        ]
        for counted in audit.counts
    )
    return ["## Duplicates and leaks", table(head, rows), note(audit), *pair_parts(audit.pairs, audit.file)]


def pair_parts(every_pair: Sequence[DuplicatePair], file: str | None) -> list[str]:
    """Return pairs side by side in Markdown, and where all of them are."""
    parts = []
    for title, pairs in grouped(every_pair):
        parts.append(f"### {title}")
        shown: Sequence[DuplicatePair] = [
            pair for _, same in groupby(pairs, key=lambda pair: pair.grade) for pair in list(same)[:LISTED]
        ]
        parts += map(_markdown_pair, shown)
    if file:
        parts.append(f"All pairs: {code(file)}.")
    return parts


def _markdown_pair(pair: DuplicatePair) -> str:
    lines = [f"- {likeness(pair)}"]
    sides = zip((pair.id, pair.other_id), differences(pair.text, pair.other_text), strict=True)
    return "\n".join([*lines, *(f"  - {code(name)} {_bold(pieces)}" for name, pieces in sides)])


def _bold(pieces: Sequence[Piece]) -> str:
    """Return pieces on one line, those that differ in bold."""
    words = []
    for text, differs in pieces:
        marked = f"**{plain(text)}**" if differs and text.strip() else plain(text)
        words.append(f"{' ' * text[:1].isspace()}{marked}{' ' * text[-1:].isspace()}")
    return " ".join("".join(words).split()).replace("** **", " ") or "*(empty)*"
