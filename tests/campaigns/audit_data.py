"""Odd data for an audit: labels, texts and groups that no data set should have."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests import tiny

Row = dict[str, Any]
SCRIPT = "<script>alert(1)</script>"
"""What must not stand in a page as it is."""


@dataclass(frozen=True)
class AuditData:
    """A file, the settings with which it is read, and what is in it."""

    path: Path
    kind: str
    words: tuple[str, ...]
    rows: list[Row]

    @property
    def is_whole(self) -> bool:
        """Whether every row has a text, and a label that another row has too."""
        counts = Counter(str(row["label"]) for row in self.rows)
        return all(str(row["text"]).strip() and row["label"] not in ("", None, []) for row in self.rows) and (
            "task=regression" in self.words or min(counts.values()) > 1
        )


def plain(random: Random, rows: int) -> list[Row]:
    """Return rows of three topics, some under a wrong one."""
    texts = tiny.texts(rows, seed=random.randrange(1000))
    topics = sorted({label for _, label in texts})
    return [{"text": text, "label": random.choice(topics) if random.random() < 0.1 else label} for text, label in texts]


def _texts(make: Callable[[Random, str], str], share: float = 1.0) -> Callable[[Random], list[Row]]:
    def rows(random: Random) -> list[Row]:
        found = plain(random, random.choice([12, 30, 90]))
        return [row | {"text": make(random, row["text"])} if random.random() < share else row for row in found]

    return rows


def _labels(make: Callable[[Random, int], Any]) -> Callable[[Random], list[Row]]:
    def rows(random: Random) -> list[Row]:
        found = plain(random, random.choice([12, 30, 90]))
        return [row | {"label": make(random, place)} for place, row in enumerate(found)]

    return rows


def _groups(make: Callable[[Random, int], Any]) -> Callable[[Random], list[Row]]:
    def rows(random: Random) -> list[Row]:
        return [row | {"group": make(random, place)} for place, row in enumerate(plain(random, 60))]

    return rows


def _several(random: Random) -> list[Row]:
    rows = plain(random, 60)
    return [row | {"label": random.sample(["a", "b", "c|d", "=e"], random.randint(0, 3))} for row in rows]


ODD_LABELS = ("=1+1", "a | b", "a;b", "x" * 999, "caf\u00e9", SCRIPT, "'", '"', "a\nb", "\U0001f600", "@x", "0", "-1")
ODD: dict[str, Callable[[Random], list[Row]]] = {
    "two rows": lambda random: plain(random, 2),
    "three rows": lambda random: plain(random, 3),
    "one row": lambda random: plain(random, 1),
    "ten rows": lambda random: plain(random, 10),
    "one label": _labels(lambda random, place: "same"),
    "a label for each row": _labels(lambda random, place: f"label {place}"),
    "one row of a label": _labels(lambda random, place: "rare" if place == 3 else ["a", "b"][place % 2]),
    "numbers as labels": _labels(lambda random, place: place % 3),
    "fractions as labels": _labels(lambda random, place: (place % 5) / 2),
    "true and false": _labels(lambda random, place: place % 2 == 0),
    "odd labels": _labels(lambda random, place: random.choice(ODD_LABELS)),
    "missing labels": _labels(lambda random, place: random.choice(["a", "b", "", None])),
    "no labels": _labels(lambda random, place: ""),
    "equal numbers": _labels(lambda random, place: 7),
    "numbers": _labels(lambda random, place: random.choice([1, 2.5, -1e9, 1e9, 0])),
    "labels in lists": _several,
    "empty texts": _texts(lambda random, text: random.choice(["", "  ", "\t", "\n"]), 0.5),
    "only empty texts": _texts(lambda random, text: ""),
    "very long texts": _texts(lambda random, text: f"{text} " * random.choice([2_000, 20_000]), 0.1),
    "a long word": _texts(lambda random, text: text.replace(" ", "") * 5_000, 0.1),
    "all the same": _texts(lambda random, text: "the same text for all"),
    "copies": _texts(lambda random, text: random.choice(["a goal", "a chip", "A GOAL!", "one vote"])),
    "emoji": _texts(
        lambda random, text: "".join(random.choices("\U0001f600\U0001f468\u200d\U0001f469\ufe0f\u2764", k=9))
    ),
    "zero bytes": _texts(lambda random, text: text.replace(" ", "\0"), 0.3),
    "control characters": _texts(lambda random, text: f"\x1b[31m{text}\x07\u202e\u2028", 0.3),
    "punctuation": _texts(lambda random, text: random.choice("!?.,;:-") * random.randint(1, 5)),
    "a letter": _texts(lambda random, text: random.choice("abc")),
    "numbers as texts": _texts(lambda random, text: str(random.randrange(10**9))),
    "no spaces": _texts(
        lambda random, text: "".join(random.choices("\u4e00\u4e8c\u4e09\u5929\u5730\u4eba\u5c71", k=20))
    ),
    "markup": _texts(lambda random, text: f"{SCRIPT}<b>{text}</b>&amp;{{{{ 7*7 }}}}{{% raw %}}|`*_"),
    "formulas": _texts(lambda random, text: f'=HYPERLINK("http://x","{text}")'),
    "lines": _texts(lambda random, text: text.replace(" ", random.choice(["\n", "\r\n", "\r"]))),
    "wrong encodings": _texts(
        lambda random, text: f"{text} caf\u00e9 \u201cx\u201d".encode().decode("cp1252", "ignore")
    ),
    "personal data": _texts(lambda random, text: f"{text} a@b.com 4111 1111 1111 1111 +49 170 1234567"),
    "one group": _groups(lambda random, place: "one"),
    "a group for each row": _groups(lambda random, place: place),
    "missing groups": _groups(lambda random, place: random.choice(["", None, "a", "b", 3])),
    "dates": _groups(lambda random, place: f"20{random.randint(10, 25)}-0{random.randint(1, 9)}-1{place % 9}"),
    "odd dates": _groups(lambda random, place: random.choice(["2020-02-30", "0000-00-00", "1/2/3", "9" * 30, ""])),
}
REGRESSIONS = ("equal numbers", "numbers")


def written(random: Random, number: int, folder: Path) -> AuditData:
    """Write a file of odd rows, every kind in turn."""
    kind = list(ODD)[number % len(ODD)]
    rows = ODD[kind](random)
    words: list[str] = []
    if kind == "labels in lists":
        words.append("task=multilabel")
    elif kind in REGRESSIONS or (kind in ("fractions as labels", "two rows") and random.random() < 0.3):
        words.append("task=regression")
    if "group" in rows[0] and "date" not in kind:
        words.append("split.group=group")
    words += random.choice([[], [], ["test_size=0", "validation_size=0"], ["test_size=2", "validation_size=0"]])
    if random.random() < 0.2:
        words.append(f"split.leaks={random.choice(['error', 'remove'])}")
    is_csv = kind != "labels in lists" and random.random() < 0.6
    path = folder / ("rows.csv" if is_csv else "rows.jsonl")
    if is_csv:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return AuditData(path, kind, tuple(words), rows)
