"""How long an audit of texts takes, part by part, and how often two random parts of one set are told apart.

python benchmarks/audit_texts.py D/ag_news/train.csv.gz --rows 100000 --pairs 100
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TypeVar

from tunesmith import recipe as recipes
from tunesmith.auditing import boilerplate, drift, encoding_problems, label_leaks, languages, text_profile
from tunesmith.pipeline.audit_sections import text_section
from tunesmith.pipeline.task_table import read_splits
from tunesmith.types import Example

Result = TypeVar("Result")


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a file with columns text and label")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=0, help="pairs of random parts, of 1,000 and 500 rows")
    args = parser.parse_args()
    splits = read_splits(recipes.load({"data": {"path": args.path}, "split": {"test_size": 0, "validation_size": 0}}))
    rows = varied(splits.train, args.rows)
    train, test = rows[: len(rows) * 4 // 5], rows[len(rows) * 4 // 5 :]
    (column,) = text_section.columns({"train": tuple(train), "test": tuple(test)})
    parts: dict[str, Callable[[], object]] = {
        "languages": lambda: languages.profile(column.ids, column.texts, 1),
        "wrong characters": lambda: encoding_problems.find(column.ids, column.texts),
        "shared text": lambda: boilerplate.find(column.ids, column.texts, column.labels),
        "these, lengths and personal data": lambda: text_profile.profile(column, 1),
        "words and names of labels": lambda: label_leaks.find(train, test, splits.labels),
        "drift": lambda: drift.compare(("train", "test"), train, test, 1),
    }
    for name, part in parts.items():
        start = time.perf_counter()
        part()
        print(f"{name:34} {time.perf_counter() - start:6.1f} s", flush=True)
    if args.pairs:
        told_apart(splits.train, args.pairs)


def varied(examples: Sequence[Example], count: int) -> list[Example]:
    """Return `count` rows: the examples over and over, with their words in another order and one of them replaced."""
    draw, rows = random.Random(0), []  # noqa: S311
    for number in range(count):
        example = examples[number % len(examples)]
        words = example.text.split()
        draw.shuffle(words)
        words[draw.randrange(len(words))] = f"word{draw.randrange(50_000)}"
        rows.append(replace(example, id=f"row {number}", text=" ".join(words)))
    return rows


def told_apart(examples: Sequence[Example], pairs: int) -> None:
    """Print how often random parts are told apart; 2.5% is what a 95% interval allows on its upper side."""
    found = []
    for seed in range(pairs):
        drawn = random.Random(seed).sample(examples, 1500)  # noqa: S311
        result = drift.compare(("a", "b"), drawn[:1000], drawn[1000:], seed)
        assert result is not None
        found.append(result)
    aucs = [result.auc.value for result in found]
    widths = [(result.auc.high - result.auc.low) / 3.92 for result in found]
    detected = sum(result.detected for result in found)
    print(
        f"{pairs} random pairs: {detected} told apart; AUC {fmean(aucs):.3f}, standard deviation {stdev(aucs):.4f}, "
        f"standard error on average {fmean(widths):.4f}",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()
