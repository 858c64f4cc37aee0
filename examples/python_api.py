"""Compare methods on a DataFrame, keep the best run, and predict with it.

    python examples/python_api.py reviews.csv --text-column review --label-column stars

It is typed: `mypy --strict` passes.
"""

from __future__ import annotations

import argparse

import pandas as pd

import tunesmith
from tunesmith import Comparison, TrainedRun


def compare(reviews: pd.DataFrame, text: str, label: str) -> Comparison:
    """Compare two methods that take seconds."""
    audit = tunesmith.audit(reviews, text_column=text, label_column=label, method="linear")
    for finding in audit.findings:
        print(f"{finding.severity}: {finding.headline}")
    return tunesmith.compare(reviews, text_column=text, label_column=label, methods=["linear"], linear={"min_df": 1})


def accuracy(run: TrainedRun) -> tuple[float, float, float]:
    """Return the accuracy on the test split, and its 95% interval."""
    estimate = run.scores.headline["accuracy"]
    return estimate.low, estimate.value, estimate.high


def main() -> None:
    """Compare, choose by the validation split, and predict the shortest texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    args = parser.parse_args()
    reviews = pd.read_csv(args.table)
    comparison = compare(reviews, args.text_column, args.label_column)
    print(comparison.table()[["accuracy", "macro_f1", "train_seconds"]])
    run: TrainedRun = tunesmith.load_run(comparison.best.path)
    low, value, high = accuracy(run)
    print(f"accuracy {value:.3f} [{low:.3f}, {high:.3f}]")
    shortest = reviews[args.text_column].sort_values(key=lambda texts: texts.str.len())[:3]
    print(run.predict(shortest))


if __name__ == "__main__":
    main()
