"""From finished runs to one report: of a single run, or of several on the same split."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.errors import RunError
from tunesmith.evaluation import comparison, report
from tunesmith.recipe import Evaluate
from tunesmith.runs import Run
from tunesmith.types import Example, Prediction

WORST = 10
"""Confidently wrong examples that a report shows for each method."""


def build(runs: Sequence[Run], settings: Evaluate, seed: int) -> dict[str, Any]:
    """The report of finished runs as one dict, ready for JSON. Raises RunError where their splits differ."""
    manifests = [run.manifest for run in runs]
    _check_same_split(runs, manifests)
    names = _names(manifests)
    methods = [_method(run, manifest, name) for run, manifest, name in zip(runs, manifests, names, strict=True)]
    _check_same_confidence(methods)
    stored = {name: run.predictions("test") for name, run in zip(names, runs, strict=True)}
    gold = next(iter(stored.values()))[1]
    predictions = {name: found for name, (found, _) in stored.items()}
    data = manifests[0]["data"]
    pairs = comparison.compare(gold, predictions, data["labels"], settings, seed) if len(runs) > 1 else []
    return {
        "title": Path(data["source"].removeprefix("pypi:")).name,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": _command(),
        "version": __version__,
        "verdict": comparison.verdict(methods, pairs),
        "data": data,
        "methods": methods,
        "pairs": pairs,
        "environment": manifests[0]["environment"] | {"seed": seed},
    }


def write_run(run: Run) -> None:
    """The report, the model card and the loss plot of one run."""
    curve = _curve(run)
    if curve:
        _plot(curve, run.path / "training_loss.png")
    if (run.path / "scores.json").exists():
        recipe = run.recipe
        content = build([run], recipe.evaluate, recipe.seed)
        run.write("report.html", report.html(content))
        run.write("report.md", report.markdown(content))
        run.write("README.md", report.card(content))


def worst(examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The most confidently wrong examples, worst first."""
    wrong = [(e, p) for e, p in zip(examples, predictions, strict=True) if e.label != p.label]
    wrong.sort(key=lambda pair: (-max(pair[1].probabilities), pair[0].id))
    return [
        {
            "id": example.id,
            "text": example.text,
            "text_pair": example.text_pair,
            "gold": example.label,
            "predicted": prediction.label,
            "probability": max(prediction.probabilities),
        }
        for example, prediction in wrong[:WORST]
    ]


def _command() -> str:
    """The command line that led here, if it was ours."""
    ours = Path(sys.argv[0]).name in ("tunesmith", "__main__.py")
    return shlex.join(["tunesmith", *sys.argv[1:]]) if ours else "tunesmith, from Python"


def _check_same_split(runs: Sequence[Run], manifests: Sequence[dict[str, Any]]) -> None:
    """Only methods that were trained and tested on the same rows can be compared."""
    first = manifests[0]["data"]
    for run, manifest in zip(runs[1:], manifests[1:], strict=True):
        differing = [
            name for name, split in first["splits"].items()
            if split["fingerprint"] != manifest["data"]["splits"][name]["fingerprint"]
        ]  # fmt: skip
        if differing:
            raise RunError(
                f"{runs[0].path} and {run.path} were not made on the same split",
                expected="equal fingerprints of train, validation and test",
                found=f"different {', '.join(differing)}",
                do="train both with the same data, split and seed",
            )


def _check_same_confidence(methods: Sequence[dict[str, Any]]) -> None:
    levels = {method["scores"]["confidence"] for method in methods}
    if len(levels) > 1:
        found = ", ".join(f"{level:g}" for level in sorted(levels))
        raise RunError("the runs have intervals of different confidence", found=found, do="train them with one level")


def _names(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """The methods' names; runs of the same method are numbered."""
    names = [str(manifest["name"]) for manifest in manifests]
    return [
        name if names.count(name) == 1 else f"{name} {names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]


def _method(run: Run, manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "name": name,
        "run": str(run.path),
        "description": manifest["description"],
        "scores": run.read("scores.json"),
        "validation": manifest["validation"],
        "costs": manifest["costs"],
        "curve": _curve(run),
        "worst": run.read("worst.json")["worst"],
        "notes": manifest["notes"],
    }


def _curve(run: Run) -> dict[str, Any] | None:
    """Loss and deciding metric over the steps, of methods that train in steps."""
    lines = run.metrics()
    if not lines:
        return None
    metric = run.recipe.evaluate.metric_for_best_model
    key = f"validation_{metric}"
    return {
        "loss": [[line["step"], line["loss"]] for line in lines if "loss" in line],
        "validation": [[line["step"], line[key]] for line in lines if key in line],
        "validation_metric": metric,
    }


def _plot(curve: dict[str, Any], path: Path) -> None:
    """training_loss.png: the loss, and the deciding metric on a second axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve["loss"], strict=True), color="#1f5fa8", label="training loss")
    axes.set(xlabel="step", ylabel="loss", title="Training loss")
    axes.spines[["top", "right"]].set_visible(False)
    if curve["validation"]:
        right = axes.twinx()
        right.plot(*zip(*curve["validation"], strict=True), "o-", color="#b5541c", label="validation")
        right.set_ylabel(f"validation {curve['validation_metric']}", color="#b5541c")
        right.spines["top"].set_visible(False)
    figure.savefig(path, dpi=150)
