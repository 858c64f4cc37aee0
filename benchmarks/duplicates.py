"""Near-duplicates: planted leaks found, natural ones told apart, what thresholds and shingles do, and growth.

    python benchmarks/duplicates.py planted --train TRAIN --test TEST
    python benchmarks/duplicates.py score --train TRAIN --test TEST
    python benchmarks/duplicates.py growth --reviews FILE ... --rows 650000

Files are CSV with a column `text` (and `label` for `score`), gzipped or not. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.data import duplicates, near_duplicates
from tunesmith.types import Example

SUFFIXES = (
    "!",
    " Click here for more.",
    " (Reuters)",
    " Full story on our site today.",
    " Copyright 2004, all rights reserved.",
)
SENTENCE = re.compile(r"(?<=[.!?])\s+")
Change = Callable[[str, random.Random, Sequence[str]], str | None]


def one_word(text: str, draw: random.Random, words: Sequence[str]) -> str | None:
    """Return the text with a word exchanged for one of another text."""
    own = text.split(" ")
    own[draw.randrange(len(own))] = draw.choice(words)
    changed = " ".join(own)
    return None if changed == text else changed


def case(text: str, draw: random.Random, words: Sequence[str]) -> str | None:
    """Return the text in capitals, or in small letters."""
    return draw.choice((text.upper(), text.lower()))


def suffix(text: str, draw: random.Random, words: Sequence[str]) -> str | None:
    """Return the text with a few words at its end."""
    return text + draw.choice(SUFFIXES)


def reordered(text: str, draw: random.Random, words: Sequence[str]) -> str | None:
    """Return the text with its sentences in another order; None of a single sentence."""
    sentences = SENTENCE.split(text)
    if len(set(sentences)) < 2:
        return None
    changed = list(sentences)
    while changed == sentences:
        draw.shuffle(changed)
    return " ".join(changed)


CHANGES: dict[str, Change] = {"word": one_word, "case": case, "suffix": suffix, "order": reordered}


def read(path: Path) -> list[Example]:
    """Return the rows of a file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        return [
            Example(f"{path.name}:{number}", row["text"], label=row.get("label"))
            for number, row in enumerate(csv.DictReader(file), 2)
        ]


@dataclass
class Planted:
    """Train with copies of test rows in it."""

    train: list[Example]
    sources: dict[str, int]
    """By the id of a planted row the place of the test row that it is a copy of."""


def plant(train: Sequence[Example], test: Sequence[Example], change: Change, share: float, seed: int) -> Planted:
    """Return train with changed copies of a share of the test rows at random places."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    words = [word for row in draw.sample(train, min(len(train), 1000)) for word in row.text.split()]
    planted = Planted(list(train), {})
    for place in draw.sample(range(len(test)), len(test)):
        if len(planted.sources) >= share * len(test):
            break
        if (changed := change(test[place].text, draw, words)) is not None:
            row = replace(test[place], id=f"planted:{place}", text=changed)
            planted.train.insert(draw.randrange(len(planted.train) + 1), row)
            planted.sources[row.id] = place
    return planted


def flagged(train: Sequence[Example], test: Sequence[Example], threshold: float) -> dict[str, set[str]]:
    """Return the ids of train rows that are copies of test rows, by grade."""
    index = near_duplicates.find([train, test], threshold)
    rows: dict[str, set[str]] = {"exact": set(), "normalised": set(), "near": set()}
    for copy in duplicates.copies(train, test, index):
        rows[copy.grade].add(copy.id)
    return rows


def run_planted(args: argparse.Namespace) -> None:
    """Print recall and precision of planted copies, beside the copies that were there before."""
    train, test = read(args.train), read(args.test)
    for threshold in args.thresholds:
        natural_by_grade = flagged(train, test, threshold)
        natural = set().union(*natural_by_grade.values())
        print(f"threshold {threshold}: natural", {grade: len(ids) for grade, ids in natural_by_grade.items()})
        for name, change in CHANGES.items():
            rows = hits = others = 0
            grades: dict[str, int] = {}
            for seed in range(args.seeds):
                planted = plant(train, test, change, args.share, seed)
                by_grade = flagged(planted.train, test, threshold)
                all_flagged = set().union(*by_grade.values())
                rows += len(planted.sources)
                hits += len(all_flagged & planted.sources.keys())
                others += len(all_flagged - planted.sources.keys() - natural)
                for grade, ids in by_grade.items():
                    grades[grade] = grades.get(grade, 0) + len(ids & planted.sources.keys())
            precision = hits / (hits + others) if hits + others else float("nan")
            print(f"  {name:7} planted {rows:4}  recall {hits / rows:.4f}  precision {precision:.4f}  {grades}")


def run_score(args: argparse.Namespace) -> None:
    """Print the accuracy of a linear model: without planting, with it, and on the clean part of test."""
    train, test = read(args.train), read(args.test)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "test.csv"), test)
        for seed in range(args.seeds):
            for name in ("none", *CHANGES):
                rows = train if name == "none" else plant(train, test, CHANGES[name], args.share, seed).train
                write(Path(folder, "train.csv"), rows)
                run = Path(folder, f"{name}-{seed}")
                settings = ["method=linear", f"data.train={folder}/train.csv", f"data.test={folder}/test.csv"]
                command = [sys.executable, "-m", "tunesmith", "train", *settings, "--run-dir", str(run), "-q"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
                scores = json.loads((run / "scores.json").read_text())["headline"]["accuracy"]
                clean = json.loads((run / "clean.json").read_text()) if (run / "clean.json").exists() else None
                print(f"seed {seed} {name:7} {shown(scores)}", end="")
                print(f"  clean, {clean['rows']} rows: {shown(clean['headline']['accuracy'])}" if clean else "")


def shown(estimate: dict[str, float]) -> str:
    """Return `0.9001 [0.8900, 0.9100]`."""
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


def write(path: Path, rows: Sequence[Example]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([row.text, row.label] for row in rows)


def reviews(sources: Sequence[Path], rows: int, seed: int) -> Iterator[str]:
    """Yield reviews made of sentences of others: 90% new ones, 6% changed copies of an earlier one, 3% of a template,
    1% of boilerplate.
    """
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    texts = [row.text for path in sources for row in read(path)]
    draw.shuffle(texts)
    sentences = [sentence for text in texts for sentence in SENTENCE.split(text) if len(sentence) > 2]
    words = [word for text in texts[:2000] for word in text.split()]
    lengths = [len(text) for text in texts]
    made: list[str] = []
    for _ in range(rows):
        kind = draw.random()
        if kind < 0.06 and made:
            change = draw.choice([*CHANGES.values()])
            yield change(draw.choice(made), draw, words) or draw.choice(made)
        elif kind < 0.09:
            yield f"Your order {draw.randrange(10**6)} of {draw.choice(words)} {draw.choice(words)} has shipped today."
        elif kind < 0.1:
            yield "This review was removed because it does not meet our guidelines for reviews."
        else:
            wanted, chosen = draw.choice(lengths), [draw.choice(sentences)]
            while sum(map(len, chosen)) < wanted:
                chosen.append(draw.choice(sentences))
            text = " ".join(chosen)
            if len(made) < 100_000:
                made.append(text)
            yield text


def run_growth(args: argparse.Namespace) -> None:
    """Print time and memory of 1/4, 1/2 and all of the rows, each in a process of its own."""
    for part in (4, 2, 1):
        size = args.rows // part
        command = [sys.executable, __file__, "once", "--rows", str(size), "--reviews", *map(str, args.reviews)]
        subprocess.run(command, check=True)  # noqa: S603


def run_once(args: argparse.Namespace) -> None:
    """Print what finding the near-duplicates takes, by the number of rows. A fifth of the rows is the test split."""
    rows = [Example(f"r:{n}", text) for n, text in enumerate(reviews(args.reviews, args.rows, 1))]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    characters = sum(len(row.text) for row in rows)
    cut = len(rows) // 5
    wall, cpu = time.perf_counter(), time.process_time()
    index = near_duplicates.find([rows[cut:], rows[:cut]], args.thresholds[0])
    found, cpu_found = time.perf_counter() - wall, time.process_time() - cpu
    leaks = duplicates.copies(rows[cut:], rows[:cut], index)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    texts = len(set(index.numbers.of_rows(rows)))
    print(
        f"{len(rows):,} rows of {characters / len(rows):.0f} characters: find {found:.0f} s (CPU {cpu_found:.0f} s), "
        f"with leaks {wall:.0f} s (CPU {cpu:.0f} s); peak {peak:,.0f} MB, {before:,.0f} MB before; "
        f"{texts:,} texts after folding, {len(index.first):,} near pairs, {len(leaks):,} leaks",
        flush=True,
    )


RUNS = {"planted": run_planted, "score": run_score, "growth": run_growth, "once": run_once}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--share", type=float, default=0.01, help="of the test rows that are planted")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.7])
    parser.add_argument("--reviews", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=650_000)
    args = parser.parse_args()
    RUNS[args.what](args)


if __name__ == "__main__":
    main()
