"""Make a large corpus of reviews: sentences of small ones with the same label, recombined, with some words changed.

A changed word is one that is drawn from all words of the sources, so that the number of different n-grams grows with
the rows as it does in real text. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def sentences(paths: list[Path]) -> dict[str, list[str]]:
    """Return the sentences of the texts of each label; of files with columns `text` and `label`."""
    csv.field_size_limit(2**30)
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                by_label[row["label"]] += [part for part in SENTENCE.split(row["text"].strip()) if part]
    return dict(sorted(by_label.items()))


def main() -> None:
    args = options().parse_args()
    draw = random.Random(args.seed)  # noqa: S311
    by_label = sentences(args.sources)
    labels, words = list(by_label), [word for parts in by_label.values() for part in parts for word in part.split()]
    with args.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(args.rows):
            label, text = draw.choice(labels), []
            wanted, length = draw.lognormvariate(0, 0.6) * args.characters / 1.2, 0
            while length < wanted:
                text.append(draw.choice(by_label[label]))
                length += len(text[-1]) + 1
            changed = " ".join(text).split()
            for place in range(len(changed)):
                if draw.random() < args.changed:
                    changed[place] = draw.choice(words)
            writer.writerow([" ".join(changed), label])
    print(f"{args.rows:,} rows, {args.output.stat().st_size / 1e6:.0f} MB, {len(labels)} labels", file=sys.stderr)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="CSV files with columns text and label")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--rows", type=int, default=650_000)
    parser.add_argument("--characters", type=int, default=740, help="of a text, on average")
    parser.add_argument("--changed", type=float, default=0.05, help="share of the words that are changed")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
