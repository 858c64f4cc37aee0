"""The linear method beside scikit-learn, on the same n-grams and the same loss, and beside fastText.

`vectorize`: TF-IDF of the recipe's n-grams, by us and by scikit-learn. `fit`: logistic regression on these features.
The loss is given relative to the lowest of all sides. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tunesmith.models import newton
from tunesmith.models.ngrams import WORD
from tunesmith.models.vectorizer import vectorize
from tunesmith.recipe import Linear
from tunesmith.types import Example

SETTINGS = Linear()
PEERS: dict[str, dict[str, Any]] = {
    "lbfgs": {"solver": "lbfgs"},
    "lbfgs, tol 1e-5": {"solver": "lbfgs", "tol": 1e-5},
    "newton-cg, float32": {"solver": "newton-cg", "tol": 2e-5},
}


def read(path: Path, rows: int | None) -> list[Example]:
    """The rows of a CSV file with columns `text` and `label`, in random order."""
    csv.field_size_limit(2**30)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows_read = csv.DictReader(file)
        if missing := {"text", "label"} - set(rows_read.fieldnames or ()):
            sys.exit(f"error: {path} has no column {min(missing)!r}; expected columns text and label in its first line")
        examples = [Example(str(i), row["text"], label=row["label"]) for i, row in enumerate(rows_read)]
    random.Random(0).shuffle(examples)  # noqa: S311
    return examples[:rows]


def loss(features: Any, gold: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """C times the cross-entropy, plus half the squared weights; in float64."""
    scores = features @ weight.T.astype(np.float64) + bias
    if len(bias) == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    scores -= scores.max(axis=1, keepdims=True)
    log_shares = scores[np.arange(len(gold)), gold] - np.log(np.exp(scores).sum(axis=1))
    return float(-SETTINGS.C * log_shares.sum() + 0.5 * (weight.astype(np.float64) ** 2).sum())


def fasttext(examples: Sequence[Example], test: Sequence[Example], threads: int) -> Callable[[], float]:
    """Return what trains fastText with its defaults and returns its accuracy."""

    def words(example: Example) -> str:
        return " ".join(WORD.findall(example.text.lower()))

    def run() -> float:
        from fasttext import FastText  # a peer: see requirements.txt

        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.writelines(f"__label__{example.label} {words(example)}\n" for example in examples)
            file.flush()
            model = FastText.train_supervised(file.name, thread=threads, verbose=0)
        hits = [model.f.predict(words(e) + "\n", 1, 0.0, "strict")[0][1] == f"__label__{e.label}" for e in test]
        return float(np.mean(hits))

    return run


def main() -> None:
    args = options().parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    train, test = read(args.train, args.rows), read(args.test, None) if args.test else []
    labels = sorted({str(example.label) for example in train})
    gold = np.array([labels.index(str(example.label)) for example in train])
    truth = np.array([labels.index(str(example.label)) for example in test])
    peer = TfidfVectorizer(ngram_range=(1, 2), min_df=SETTINGS.min_df, sublinear_tf=True)
    table, features = vectorize(train, SETTINGS), peer.fit_transform([example.text for example in train])
    order = [peer.vocabulary_[gram] for gram in table.vocabulary]
    held_out = peer.transform([example.text for example in test]) if test else None
    single, ones = features.astype(np.float32), np.ones(len(gold))
    results: dict[tuple[str, str], dict[str, float | None]] = {}

    def ours() -> tuple[np.ndarray, np.ndarray]:
        weight, bias, _ = newton.fit(table.features, gold, ones, len(labels), SETTINGS.C, 1000, args.threads)
        scattered = np.empty_like(weight)
        scattered[:, order] = weight
        return scattered, bias

    def theirs(name: str) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        def run() -> tuple[np.ndarray, np.ndarray]:
            model = LogisticRegression(C=SETTINGS.C, max_iter=1000, **PEERS[name])
            model.fit(single if "float32" in name else features, gold)
            return model.coef_, model.intercept_

        return run

    solvers = {"tunesmith": ours} | {name: theirs(name) for name in args.peers}
    vectorizers = {
        "tunesmith": lambda: vectorize(train, SETTINGS),
        "scikit-learn": lambda: TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(
            [example.text for example in train]
        ),
    }
    sides: dict[tuple[str, str], Callable[[], Any]] = {("vectorize", name): run for name, run in vectorizers.items()}
    sides |= {("fit", name): run for name, run in solvers.items()}
    if args.fasttext:
        sides["whole", "fastText"] = fasttext(train, test, args.threads)
    seconds: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, run in sides.items():
            start = clock()
            output = run()
            seconds[side].append(clock() - start)
            if side[0] == "fit" and side not in results:
                weight, bias = output
                scores = None if held_out is None else held_out @ weight.T + bias
                chosen = scores if scores is None or len(bias) > 1 else np.hstack([0 * scores, scores])
                accuracy = None if chosen is None else float((chosen.argmax(axis=1) == truth).mean())
                results[side] = {"loss": loss(features, gold, weight, bias), "accuracy": accuracy}
            elif side[0] == "whole":
                results[side] = {"loss": None, "accuracy": output}
    best = min(result["loss"] for result in results.values() if result["loss"] is not None)
    print(f"{len(train):,} rows, {len(labels)} classes, {len(order):,} n-grams, {args.threads} thread(s), {args.clock}")
    print(
        "| | side | s, median | ratio, median of rounds | above the lowest loss | accuracy |\n|---|---|---|---|---|---|"
    )
    for (part, name), times in seconds.items():
        base = seconds.get((part, "tunesmith"), seconds["fit", "tunesmith"])
        ratio = statistics.median(other / mine for other, mine in zip(times, base, strict=True))
        result = results.get((part, name), {"loss": None, "accuracy": None})
        above = "" if result["loss"] is None else f"{result['loss'] / best - 1:.1e}"
        reached = "" if result["accuracy"] is None else f"{result['accuracy']:.4f}"
        shown = f"{ratio:.2f}" if part != "whole" else ""
        print(f"| {part} | {name} | {statistics.median(times):.2f} | {shown} | {above} | {reached} |", flush=True)
    if args.output:
        content = {f"{part}, {name}": times for (part, name), times in seconds.items()}
        args.output.write_text(json.dumps(content, indent=1) + "\n")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="CSV with columns text and label")
    parser.add_argument("--test", type=Path, help="the same, for the accuracy")
    parser.add_argument("--rows", type=int, help="of --train; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="scikit-learn's solvers")
    parser.add_argument("--fasttext", action="store_true")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine shared with others")
    parser.add_argument("--output", type=Path, help="write the seconds of every round to this JSON file")
    return parser


if __name__ == "__main__":
    main()
