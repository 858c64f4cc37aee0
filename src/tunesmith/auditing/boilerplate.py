"""Beginnings and ends that many texts share: headings, disclaimers, templates, names of sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.auditing.row_counts import RowCount
from tunesmith.data import personal_data
from tunesmith.records import omitted_if_none

FEWEST_WORDS = 4
"""Words that a shared beginning or end needs."""
FEWEST_ROWS = 10
SMALLEST_SHARE = 0.01
"""Share of the different texts that must have it."""
SAME = 0.9
"""A beginning is extended by a word with which this share of its texts goes on."""
MOST_WORDS = 60
MOST_CHARACTERS = 200
"""Of a shared beginning or end that are shown."""
Place = Literal["beginning", "end"]
PLACES: tuple[Place, ...] = ("beginning", "end")


@dataclass(frozen=True, slots=True)
class SharedText:
    """A beginning or an end that many different texts share."""

    place: Place
    text: str
    """With personal data masked."""
    words: int
    count: RowCount
    share: float
    """Of the different texts."""
    label: str | None = omitted_if_none()
    """The label that most of its rows have."""
    label_share: float | None = omitted_if_none()
    """Share of its rows that have this label."""


def find(
    ids: Sequence[str], texts: Sequence[str], labels: Sequence[str | None] | None = None
) -> tuple[SharedText, ...]:
    """Return what at least 1% of the different texts (and FEWEST_ROWS) begin or end with, the most frequent first."""
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    places = sorted(first.values())  # a text that occurs often is a duplicate and no boilerplate
    least = max(FEWEST_ROWS, SMALLEST_SHARE * len(places))
    shared = []
    where: Place
    for where in PLACES:
        if where == "beginning":
            words = {place: texts[place].split(None, MOST_WORDS)[:MOST_WORDS] for place in places}
        else:
            words = {place: texts[place].rsplit(None, MOST_WORDS)[: -MOST_WORDS - 1 : -1] for place in places}
        for group, length in _groups(words, places, 0, least):
            label, label_share = _main_label([labels[place] for place in group]) if labels else (None, None)
            shown = words[group[0]][:length]
            text = personal_data.masked(" ".join(shown if where == "beginning" else reversed(shown)))
            shared.append(
                SharedText(
                    where,
                    text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…",
                    length,
                    RowCount.of(ids[place] for place in group),
                    len(group) / len(places),
                    label,
                    label_share,
                )
            )
    return tuple(sorted(shared, key=lambda part: (-part.count.rows, part.place, part.text)))


def _groups(words: dict[int, list[str]], group: list[int], depth: int, least: float) -> Iterator[tuple[list[int], int]]:
    """Yield groups of texts and how many first words they share: as many as nearly all texts of the group do."""
    stack = [(group, depth)]
    while stack:
        group, depth = stack.pop()
        following: dict[str, list[int]] = {}
        for place in group:
            if len(words[place]) > depth:
                following.setdefault(words[place][depth], []).append(place)
        large = [places for places in following.values() if len(places) >= least]
        longest = max(large, key=len, default=[])
        if depth >= FEWEST_WORDS and len(longest) < SAME * len(group):
            yield group, depth
        elif depth < FEWEST_WORDS:
            stack += [(places, depth + 1) for places in large]
        else:
            stack.append((longest, depth + 1))


def _main_label(labels: Sequence[str | None]) -> tuple[str | None, float | None]:
    known = Counter(label for label in labels if label is not None)
    if not known:
        return None, None
    label, count = min(known.items(), key=lambda item: (-item[1], item[0]))
    return label, count / len(labels)
