"""From finished runs to one report: of a single run, or of several on the same split."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesmith import __version__, records
from tunesmith.errors import RunError
from tunesmith.evaluation import label_pairs, length_bias, response_pairs
from tunesmith.evaluation.intervals import Confidence
from tunesmith.manifest import FinishedManifest, Manifest
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.reporting import classification_report, conclusions, generation_report, model_card, sample_selection
from tunesmith.runs import Run
from tunesmith.types import Example, Prediction, ResponseRow

WORST = 10
"""Confidently wrong examples that a report shows for each method."""


def build(runs: Sequence[Run], confidence: Confidence) -> dict[str, Any]:
    """The report of finished runs as one dict, ready for JSON. Raises RunError where their tasks or splits differ."""
    manifests = [run.finished for run in runs]
    task = _task(runs, manifests)
    _check_same_split(runs, manifests)
    names = _names(manifests)
    methods = [_method(run, manifest, name) for run, manifest, name in zip(runs, manifests, names, strict=True)]
    _check_same_confidence(methods)
    return {
        "task": task,
        "title": title(runs[0]),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": command(),
        "version": __version__,
        "data": records.dump(manifests[0].data),
        "environment": records.dump(manifests[0].environment) | {"seed": confidence.seed},
        **TASKS[task].compare(runs, methods, confidence),
    }


def write_run(run: Run) -> None:
    """The report, the model card and the loss plot of one run."""
    learned = curve(run)
    if learned:
        _plot(learned, run.path / "training_loss.png")
    if (run.path / "scores.json").exists():
        recipe = run.recipe
        content = build([run], confidence_of(recipe))
        _write_pages(run, content)
        run.write("README.md", TASKS[content["task"]].card(content))


def card(run: Run, usage: str, library: str, changed: str | None) -> str:
    """The model card of an exported run. usage: how to use it, in Markdown. library: what reads it, as hubs name it.

    changed: why the run's scores are not quite the export's own; its front matter then claims none.
    """
    manifest = run.manifest
    if not (run.path / "scores.json").exists():
        head = f"# {title(run)}: {manifest.name}\n\n{manifest.description}. It was not tested.\n\n"
        return f"{head}## How to use\n\n{usage}\n"
    recipe = run.recipe
    content = build([run], confidence_of(recipe))
    saved = "adapter" if library == "peft" else "model"
    content["methods"][0] |= {"usage": usage, "library": library, "saved": saved, "changed": changed}
    return TASKS[content["task"]].card(content)


def write_comparison(folder: Run, content: dict[str, Any]) -> None:
    """What `build` made of several runs, as comparison.json, report.html and report.md."""
    folder.write("comparison.json", content)
    _write_pages(folder, content)


def _write_pages(folder: Run, content: dict[str, Any]) -> None:
    pages = TASKS[content["task"]].pages
    folder.write("report.md", pages.markdown(content))
    folder.write("report.html", pages.html(content))


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


def title(run: Run) -> str:
    """What a page about this run is called: after its data."""
    return Path(run.manifest.data.source.removeprefix("pypi:")).name


def command() -> str:
    """The command line that led here, if it was ours."""
    ours = Path(sys.argv[0]).name in ("tunesmith", "__main__.py")
    return shlex.join(["tunesmith", *_without_secrets(sys.argv[1:])]) if ours else "tunesmith, from Python"


def _without_secrets(words: Sequence[str]) -> list[str]:
    return [re.sub(r"^((?:judge\.)?api_key=).*", r"\1***", word, flags=re.DOTALL) for word in words]


def _task(runs: Sequence[Run], manifests: Sequence[Manifest]) -> str:
    """What all the runs are about; runs from before there were tasks classify."""
    tasks = [manifest.task for manifest in manifests]
    if len(set(tasks)) > 1:
        raise RunError(
            "runs of different tasks cannot be compared",
            expected=f"only runs of task {tasks[0]}, as {runs[0].path}",
            found=", ".join(f"{run.path} ({task})" for run, task in zip(runs, tasks, strict=True) if task != tasks[0]),
            do="compare runs of one task",
        )
    return tasks[0]


def _check_same_split(runs: Sequence[Run], manifests: Sequence[Manifest]) -> None:
    """Only methods that were trained and tested on the same rows can be compared."""
    first = manifests[0].data
    for run, manifest in zip(runs[1:], manifests[1:], strict=True):
        differing = [
            name for name, split in first.splits.items() if split.fingerprint != manifest.data.splits[name].fingerprint
        ]
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


def _names(manifests: Sequence[Manifest]) -> list[str]:
    """The methods' names; runs of the same method are numbered."""
    names = [manifest.name for manifest in manifests]
    return [
        name if names.count(name) == 1 else f"{name} {names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]


def _method(run: Run, manifest: FinishedManifest, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "is_base": False,
        "run": str(run.path),
        "description": manifest.description,
        "scores": run.read("scores.json"),
        "validation": manifest.validation,
        "costs": records.dump(manifest.costs),
        "curve": curve(run),
        "notes": manifest.notes,
    }


def _compare_labels(runs: Sequence[Run], methods: Sequence[dict[str, Any]], confidence: Confidence) -> dict[str, Any]:
    """Of classification: each method's worst mistakes, pairs, and the verdict."""
    methods = [method | run.read("worst.json") for run, method in zip(runs, methods, strict=True)]
    stored = {method["name"]: run.predictions("test") for run, method in zip(runs, methods, strict=True)}
    gold = next(iter(stored.values()))[1]
    predictions = {name: found for name, (found, _) in stored.items()}
    labels = runs[0].manifest.data.labels
    pairs = label_pairs.compare(gold, predictions, labels, confidence) if len(runs) > 1 else []
    return {"verdict": label_pairs.verdict(methods, pairs), "methods": methods, "pairs": pairs}


def _compare_answers(runs: Sequence[Run], methods: Sequence[dict[str, Any]], confidence: Confidence) -> dict[str, Any]:
    """Of instructions: how each answered on the way, pairs, the verdict, and answers to lay side by side."""
    methods = [method | _answering(run) for run, method in zip(runs, methods, strict=True)]
    rows = {method["name"]: run.responses("test") for run, method in zip(runs, methods, strict=True)}
    if before := shared_base(runs):
        place = next(place for place, run in enumerate(runs) if base_model.stored(run))
        methods.append(_base_method(runs[place], methods[place]))
        rows[base_model.NAME] = before
    return side_by_side(methods, rows, confidence)


def side_by_side(
    methods: Sequence[dict[str, Any]], rows: Mapping[str, Sequence[ResponseRow]], confidence: Confidence
) -> dict[str, Any]:
    """What a report says of models that answered the same prompts, apart from where they come from."""
    compared = response_pairs.compare(rows, confidence)
    best, worse = conclusions.rank(methods, compared)
    return {
        "verdict": conclusions.said(methods, compared),
        "methods": methods,
        "pairs": compared.pop("pairs"),
        "compared": compared,
        "shown": sample_selection.choose(rows, compared, best, worse, confidence.seed),
        "lengths": {
            name: found for name, of in rows.items() if (found := length_bias.describe(of, confidence)) is not None
        },
    }


def shared_base(runs: Sequence[Run]) -> list[ResponseRow]:
    """The base model's answers, where the runs that asked it asked the same one, and none of them is untuned itself."""
    found = [rows for run in runs if (rows := base_model.stored(run))]
    tuned = all(run.finished.costs.trainable for run in runs)
    return found[0] if found and tuned and all(rows == found[0] for rows in found) else []


def _base_method(run: Run, method: Mapping[str, Any]) -> dict[str, Any]:
    """The base model as a method of the report: it cost no training and has no details of its own."""
    costs = dict.fromkeys(method["costs"]) | {"parameters": method["costs"]["parameters"], "trainable": 0}
    return {
        "name": base_model.NAME,
        "is_base": True,
        "run": method["run"],
        "description": f"the same model before training: {Path(run.recipe.model.name_or_path).name}",
        "scores": run.read("scores.json")["base"],
        "validation": None,
        "costs": costs,
        "curve": None,
        "notes": {},
        "samples": [],
    }


def _answering(run: Run) -> dict[str, Any]:
    """What the report says of a generator beyond its scores."""
    recipe = run.recipe
    generate, name = recipe.generate, recipe.model.name_or_path
    on_hub = re.fullmatch(r"[\w-]+/[\w.-]+", name, re.ASCII) and not Path(name).exists()
    return {
        "samples": _samples(run),
        "saved": _saved(run),
        "judged": run.read("judged.json") if (run.path / "judged.json").exists() else None,
        "base_model": name if on_hub else None,
        "settings": {
            "model": name,
            "template": run.finished.notes.get("template", recipe.prompt.template),
            "max_length": recipe.model.max_length,
            "max_new_tokens": generate.max_new_tokens,
            "answers": f"sampled, temperature {generate.temperature:g}" if generate.do_sample else "greedy",
        },
        "recipe": (run.path / "recipe.yaml").read_text(encoding="utf-8"),
    }


def _saved(run: Run) -> str:
    """What lies in model/: the whole `model`, an `adapter`, or of an untuned model the `tokenizer`."""
    if (run.model / "adapter_config.json").exists():
        return "adapter"
    return "model" if run.finished.costs.trainable else "tokenizer"


def _samples(run: Run) -> list[dict[str, Any]]:
    """Per validation prompt the answers at each evaluation, in the order of the steps."""
    found: dict[str, dict[str, Any]] = {}
    for line in run.metrics():
        for sample in line.samples:
            asked = {"id": sample.id, "prompt": sample.prompt, "reference": sample.reference, "answers": []}
            answered = {"step": line.step, "response": sample.response}
            found.setdefault(sample.id, asked)["answers"].append(answered)
    return list(found.values())


def curve(run: Run) -> dict[str, Any] | None:
    """Loss and deciding metric over the steps, of methods that train in steps."""
    lines = run.metrics()
    if not lines:
        return None
    metric = run.recipe.evaluate.metric_for_best_model
    return {
        "loss": [[line.step, line.loss] for line in lines if line.loss is not None],
        "validation": [[line.step, line.validation[metric]] for line in lines if metric in line.validation],
        "validation_metric": metric,
    }


def _plot(curve: dict[str, Any], path: Path) -> None:
    """training_loss.png: the loss; beside a validation loss, or with the deciding metric on a second axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve["loss"], strict=True), color="#1f5fa8", label="training loss")
    axes.set(xlabel="step", ylabel="loss", title="Training loss")
    axes.spines[["top", "right"]].set_visible(False)
    if curve["validation"]:
        same = curve["validation_metric"] == "loss"
        where = axes if same else axes.twinx()
        where.plot(*zip(*curve["validation"], strict=True), "o-", color="#b5541c", label="validation loss")
        if same:
            axes.legend(frameon=False)
        else:
            where.set_ylabel(f"validation {curve['validation_metric']}", color="#b5541c")
            where.spines["top"].set_visible(False)
    figure.savefig(path, dpi=150)


@dataclass(frozen=True)
class Task:
    """How the runs of one task are reported."""

    compare: Callable[[Sequence[Run], Sequence[dict[str, Any]], Confidence], dict[str, Any]]
    pages: ModuleType
    """Has `html` and `markdown`."""
    card: Callable[[Mapping[str, Any]], str]


TASKS = {
    "classification": Task(_compare_labels, classification_report, model_card.classification),
    "instruction": Task(_compare_answers, generation_report, model_card.generation),
}
