"""Suspect labels against cleanlab, by the same out-of-fold probabilities: where the truth, or annotators, are known.

Wrong rows are those whose label differs from the column `--truth`, or on which the columns `--votes` disagree; or
labels that `--plant` changes at random. cleanlab runs in an interpreter of its own (`--cleanlab PYTHON`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import recipe as recipes
from tunesmith.auditing import label_errors
from tunesmith.auditing.annotator_agreement import auroc
from tunesmith.auditing.label_errors import LabelPredictions
from tunesmith.data import annotator_votes, dataset
from tunesmith.evaluation.intervals import Confidence
from tunesmith.pipeline import out_of_fold
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import Recipe
from tunesmith.types import Splits

FIRST = 1000
PEER = """
import json, sys, warnings
import numpy as np
warnings.filterwarnings("ignore")
from cleanlab import __version__
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
stored = np.load(sys.argv[1])
given, probabilities = stored["given"], stored["probabilities"]
found = {"version": __version__, "share": float(1 - np.trace(estimate_joint(given, probabilities)))}
for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
    for adjusted in (False, True):
        if not (adjusted and method == "confidence_weighted_entropy"):  # which cleanlab refuses
            scores = get_label_quality_scores(given, probabilities, method=method, adjust_pred_probs=adjusted)
            found[f"{method}{' adjusted' * adjusted}"] = scores.tolist()
issues = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
found["find_label_issues"] = issues.tolist()
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("settings", nargs="*", help="of the recipe, as section.name=value")
    parser.add_argument("--method", default="probe")
    parser.add_argument("--truth", help="column with the true label")
    parser.add_argument("--votes", help="data.votes: rows are wrong on which annotators disagree")
    parser.add_argument("--plant", type=float, default=0.0, help="share of labels to change at random")
    parser.add_argument("--next", action="store_true", help="plant the next label instead of any other one")
    parser.add_argument("--cleanlab", default=sys.executable, help="interpreter that has cleanlab")
    args = parser.parse_intermixed_args()
    whole = [f"data.path={args.file}", "split.test_size=0", "split.validation_size=0"]
    votes = [f"data.votes={args.votes}"] if args.votes else []
    recipe = recipes.load({}, [*whole, *votes, *args.settings])
    splits = read_splits(recipe)
    splits, wrong_N = planted(splits, args.plant, args.next) if args.plant else (splits, known(recipe, splits, args))
    predicted = out_of_fold.predict(PartTrainer.of(recipe, splits, args.method))
    probabilities_NK = np.array([prediction.probabilities for prediction in predicted.train])
    given_N = np.array(predicted.target.encode(splits.train), dtype=np.intp)
    rows = LabelPredictions(probabilities_NK, given_N, np.ones(len(given_N), dtype=bool))
    none = LabelPredictions(probabilities_NK[:0], given_N[:0])
    ours, _ = label_errors.of_labels(rows, none, splits.labels)
    share = label_errors.share_of_labels(rows, Confidence(resamples=500))
    peer = cleanlab(args.cleanlab, probabilities_NK, given_N)
    agree = (probabilities_NK.argmax(axis=1) == given_N).mean()
    print(f"{args.file}: {len(given_N):,} rows, {wrong_N.mean():.2%} wrong; {predicted.method} agrees with {agree:.1%}")
    print(f"share: tunesmith {share.value:.2%} [{share.low:.2%}, {share.high:.2%}], cleanlab {peer['share']:.2%}")
    most = label_errors.unexplained(rows, Confidence(resamples=500))
    print(f"at most: {most.value:.2%} [{most.low:.2%}, {most.high:.2%}]")
    if not wrong_N.any():
        return
    print(f"{'':55} AUPRC   first {FIRST:,}  AUROC")
    show("tunesmith", ours.quality, wrong_N)
    for name, scores in peer.items():
        if isinstance(scores, list) and name != "find_label_issues":
            show(f"cleanlab {peer['version']} {name}", np.array(scores), wrong_N)
    flagged = {"tunesmith": [*ours.suggestions], "find_label_issues": peer["find_label_issues"]}
    for name, places in flagged.items():
        hits = wrong_N[places]
        precision, recall = (hits.mean() if len(hits) else 0.0), hits.sum() / max(1, wrong_N.sum())
        print(f"flagged by {name}: {len(places):,} rows, precision {precision:.3f}, recall {recall:.3f}")


def known(recipe: Recipe, splits: Splits, args: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows are wrong, by the column of the truth or by the votes; none without either."""
    ids = [row.id for row in splits.train]
    if args.truth:
        true = dataset.column_values(recipe.data, recipe.split, [args.truth], ids)[args.truth]
        return np.array([row.label != label for row, label in zip(splits.train, true, strict=True)])
    if not args.votes:
        return np.zeros(len(ids), dtype=bool)
    votes = annotator_votes.read(recipe.data, recipe.split, splits.train, splits.labels).votes
    return np.array([counts is not None and len(counts) > 1 for counts in votes])


def planted(splits: Splits, rate: float, to_next: bool) -> tuple[Splits, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the splits with a share of the labels changed, and which rows these are."""
    draw, labels = np.random.default_rng(0), splits.labels
    wrong_N = np.zeros(len(splits.train), dtype=bool)
    wrong_N[draw.choice(len(wrong_N), int(rate * len(wrong_N)), replace=False)] = True
    train = list(splits.train)
    for n in np.flatnonzero(wrong_N).tolist():
        step = 1 if to_next else int(draw.integers(1, len(labels)))
        train[n] = replace(train[n], label=labels[(labels.index(str(train[n].label)) + step) % len(labels)])
    return replace(splits, train=tuple(train)), wrong_N


def cleanlab(python: str, probabilities_NK: Any, given_N: Any) -> dict[str, Any]:
    """Return what cleanlab says of the same probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, probabilities=probabilities_NK, given=given_N)
        done = subprocess.run([python, "-c", PEER, str(path)], check=True, capture_output=True, text=True)  # noqa: S603
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(name: str, quality_N: Any, wrong_N: Any) -> None:
    order = np.argsort(quality_N, kind="stable")
    hits = wrong_N[order]
    precision = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()
    print(f"{name:55} {precision:.4f}  {hits[:FIRST].mean():.4f}  {auroc(-quality_N, wrong_N):.4f}")


if __name__ == "__main__":
    main()
