"""What more labels bring: how often the band of a learning curve is right, and rows chosen to be labelled.

`curve`: of `whole` training rows half are drawn, a learning curve is made of the half alone, and its band for all of
them is held against the score that the method has with them. `next`: labels are added a hundred at a time, rows drawn
at random, the least certain ones, or those that `audit --unlabelled` chooses. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import recipe as recipes
from tunesmith.auditing import active_labelling
from tunesmith.console import silence
from tunesmith.data import nested_subsets
from tunesmith.pipeline import curve_training, held_out
from tunesmith.pipeline.audit_sections import active_labelling_section
from tunesmith.pipeline.fitting import text_features
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS, read_splits
from tunesmith.protocols import TextPredictor
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Example

MODEL = "pypi:all-minilm-l6-v2"
SEEDS = (1, 2, 3)
STEP = 100


@dataclass(frozen=True)
class Trial:
    """A curve of half of the rows, and what the score with all of them was."""

    method: str
    whole: int
    said: bool
    covered: bool = False
    width: float = 0.0
    """Of the band, in points."""
    gain: float = 0.0
    """As said, in points."""
    gain_covered: bool = False
    real_gain: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curve", "next"])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--methods", default="linear,probe")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--shares", default="1,0.5,0.25", help="how much of the data is `whole`")
    parser.add_argument("--labels", type=int, default=1500, help="most labels of `next`")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--output", type=Path)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    words = [f"data.train={args.train}", f"data.test={args.test}", f"model.name_or_path={args.model}"]
    words += ["split.validation_size=0", "bootstrap_samples=1000", *args.settings]
    found: list[Any] = []
    for name in args.methods.split(","):
        recipe = recipes.load({}, [*words, f"method={name}"])
        with silence():
            splits = read_splits(recipe)
        trainer = PartTrainer.of(recipe, splits, name)
        if args.what == "curve":
            trials = list(_trials(trainer, args))
            found += [vars(trial) for trial in trials]
            _show_trials(trials)
        else:
            found += _show_labelling(name, trainer, args)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1))


def _trials(trainer: PartTrainer, args: argparse.Namespace) -> Iterator[Trial]:
    for share in map(float, args.shares.split(",")):
        for repeat in range(args.repeats):
            yield _trial(trainer, round(share * len(trainer.splits.train)), repeat)


def _trial(trainer: PartTrainer, whole: int, repeat: int) -> Trial:
    recipe, splits = trainer.recipe, trainer.splits
    drawn = nested_subsets.order(splits.train, 1000 + repeat, TASKS[recipe.task].reader.strata)
    half = replace(splits, train=tuple(splits.train[n] for n in drawn.first(whole // 2)))
    with tempfile.TemporaryDirectory() as scratch, silence():
        planned = curve_training.plan({recipe.method: recipe}, half, SEEDS)
        curve = curve_training.measure(planned, half, Run(Path(scratch)), lambda _: replace(trainer, splits=half))
        everything = trainer.train([splits.train[n] for n in drawn.first(whole)])
        real = float(np.mean([row.label == row.gold for row in held_out.predict(everything, splits.test)]))
    (said,) = curve.methods
    if said.gain is None:
        return Trial(recipe.method, whole, said=False)
    band, before = said.band[-1].score, said.points[-1].score.value
    return Trial(
        method=recipe.method,
        whole=whole,
        said=True,
        covered=band.low <= real <= band.high,
        width=100 * (band.high - band.low),
        gain=100 * said.gain.value,
        gain_covered=said.gain.low <= real - before <= said.gain.high,
        real_gain=100 * (real - before),
    )


def _show_trials(trials: Sequence[Trial]) -> None:
    for whole in sorted({trial.whole for trial in trials}, reverse=True):
        some = [trial for trial in trials if trial.whole == whole]
        said = [trial for trial in some if trial.said]
        if not said:
            print(f"| {some[0].method} | {whole // 2:,} | {whole:,} | 0 of {len(some)} | | | | |", flush=True)
            continue
        mean = {name: np.mean([getattr(trial, name) for trial in said]) for name in ("width", "gain", "real_gain")}
        covered, gains = (sum(getattr(trial, name) for trial in said) for name in ("covered", "gain_covered"))
        print(
            f"| {some[0].method} | {whole // 2:,} | {whole:,} | {len(said)} of {len(some)} | {covered} of {len(said)} "
            f"| {mean['width']:.1f} | {mean['gain']:+.2f} | {mean['real_gain']:+.2f} | {gains} of {len(said)} |",
            flush=True,
        )


def _labelling(kind: str, trainer: PartTrainer, most: int, seed: int) -> Iterator[tuple[int, float]]:
    """Yield labels and accuracy: from STEP rows at random on, STEP more at a time."""
    recipe, splits, draw = trainer.recipe, trainer.splits, np.random.default_rng(seed)
    order = nested_subsets.order(splits.train, 1000 + seed, TASKS[recipe.task].reader.strata)
    labelled = order.first(STEP)
    with silence():
        while True:
            predictor = trainer.train([splits.train[n] for n in labelled], decide=False)
            rows = predictor.predict(splits.test)
            right = [row.label == example.label for row, example in zip(rows, splits.test, strict=True)]
            yield len(labelled), float(np.mean(right))
            if len(labelled) >= most:
                return
            known = set(labelled)
            pool = [n for n in range(len(splits.train)) if n not in known]
            if kind == "random":
                chosen = draw.permutation(len(pool))[:STEP].tolist()
            else:
                chosen = _chosen(kind, predictor, splits.train, pool, recipe, seed + len(labelled))
            labelled = sorted([*labelled, *(pool[n] for n in chosen)])


def _chosen(
    kind: str, predictor: TextPredictor, rows: Sequence[Example], pool: Sequence[int], recipe: Recipe, seed: int
) -> list[int]:
    """Return places in the pool. All rows are predicted: what is known of their texts then serves every round."""
    predictions = predictor.predict(rows)
    if kind == "margin":
        ranked_NK = np.sort(np.array([predictions[n].probabilities for n in pool]), axis=1)
        return [int(n) for n in np.argsort(ranked_NK[:, -1] - ranked_NK[:, -2], kind="stable")[:STEP]]
    errors_NK = active_labelling_section.errors_of(predictor.labels, predictions)
    features = text_features.table(predictor, rows, recipe.linear)
    return active_labelling.choose(errors_NK[pool], features[pool], STEP, seed)


def _show_labelling(name: str, trainer: PartTrainer, args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    curves = {}
    for kind in ("random", "margin", "chosen"):
        lines = [list(_labelling(kind, trainer, args.labels, seed)) for seed in range(args.repeats)]
        curves[kind] = np.array([[score for _, score in line] for line in lines])
        counts = [count for count, _ in lines[0]]
        found.append({"method": name, "kind": kind, "labels": counts, "scores": curves[kind].tolist()})
    wanted = float(curves["random"][:, -1].mean())
    for kind, scores in curves.items():
        mean = scores.mean(axis=0)
        needed = [
            next((count for count, score in zip(counts, line, strict=True) if score >= wanted), None) for line in scores
        ]
        reached = [count for count in needed if count is not None]
        at = ", ".join(
            f"{count}: {100 * score:.1f}"
            for count, score in zip(counts, mean, strict=True)
            if count in (100, 300, 500, 1000, counts[-1])
        )
        print(
            f"| {name} | {kind} | {at} | {np.mean(reached) if reached else 0:.0f} ({len(reached)} of {len(needed)}) "
            f"| wanted {100 * wanted:.1f} | over random {100 * (scores - curves['random']).mean():+.2f} "
            f"[{', '.join(f'{100 * d:+.2f}' for d in (scores - curves['random']).mean(axis=1))}] |",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
