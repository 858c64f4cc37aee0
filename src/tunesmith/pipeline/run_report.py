"""From finished runs to one report: of a single run, or of several on the same split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesmith import assets, records
from tunesmith.errors import RunError
from tunesmith.evaluation import label_pairs, length_bias, response_pairs
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.manifest import UNKNOWN_COSTS, Manifest
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.base_model import RunScores
from tunesmith.reporting import classification_report, conclusions, generation_report, model_card, sample_selection
from tunesmith.reporting.schema import (
    ClassificationReport,
    ClassificationResult,
    Curve,
    ExportedModel,
    GenerationReport,
    GenerationResult,
    Mistake,
    SeededEnvironment,
    StepResponse,
    TrainingSample,
    WorstMistakes,
    load_judge_report,
)
from tunesmith.runs import Run, data_name
from tunesmith.types import Example, Prediction, ResponseRow

WORST = 10
"""Confidently wrong examples that a report shows for each method."""


def build(runs: Sequence[Run], confidence: Confidence) -> ClassificationReport | GenerationReport:
    """Return the report on finished runs. Raises RunError where their tasks or splits differ."""
    manifests = [run.finished for run in runs]
    task = _task(runs, manifests)
    _check_same_split(runs, manifests)
    report = REPORTS[task].build(runs, confidence)
    levels = {method.scores.confidence for method in report.methods}
    if len(levels) > 1:
        found = ", ".join(f"{level:g}" for level in sorted(levels))
        raise RunError("the runs have intervals of different confidence", found=found, do="train them with one level")
    return report


def write_run(run: Run) -> None:
    """Write the report, the model card and the loss plot of one run."""
    learned = curve(run)
    if learned:
        _plot(learned, run.path / "training_loss.png")
    if (run.path / "scores.json").exists():
        report = build([run], confidence_of(run.recipe))
        write_pages(run, report)
        run.write("README.md", REPORTS[report.task].card(report, None))


def card(run: Run, exported: ExportedModel) -> str:
    """Return the model card of an exported run."""
    if not (run.path / "scores.json").exists():
        manifest = run.manifest
        head = f"# {title(run)}: {manifest.name}\n\n{manifest.description}. It was not tested.\n\n"
        return f"{head}## How to use\n\n{exported.usage}\n"
    report = build([run], confidence_of(run.recipe))
    return REPORTS[report.task].card(report, exported)


def write_comparison(folder: Run, report: ClassificationReport | GenerationReport) -> None:
    """Write the report on several runs as comparison.json, report.html and report.md."""
    folder.write("comparison.json", report)
    write_pages(folder, report)


def write_pages(folder: Run, report: ClassificationReport | GenerationReport) -> None:
    """Write a report as report.html and report.md."""
    pages = REPORTS[report.task].pages
    folder.write("report.md", pages.markdown(report))
    folder.write("report.html", pages.html(report))


def worst(examples: Sequence[Example], predictions: Sequence[Prediction]) -> WorstMistakes:
    """Return the most confidently wrong examples, worst first."""
    wrong = [(e, p) for e, p in zip(examples, predictions, strict=True) if e.label != p.label]
    wrong.sort(key=lambda pair: (-max(pair[1].probabilities), pair[0].id))
    return WorstMistakes(
        tuple(
            Mistake(
                id=example.id,
                text=example.text,
                text_pair=example.text_pair,
                gold=str(example.label),
                predicted=prediction.label,
                probability=max(prediction.probabilities),
            )
            for example, prediction in wrong[:WORST]
        )
    )


def title(run: Run) -> str:
    """Return what a page about this run is called: its data's name."""
    return data_name(run.manifest.data.source)


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


def _names(runs: Sequence[Run]) -> list[str]:
    """The methods' names; runs of the same method are numbered."""
    names = [run.manifest.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} {names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]


def _shared(runs: Sequence[Run], confidence: Confidence) -> dict[str, Any]:
    """What the reports of both tasks say about the data and the machine."""
    manifest = runs[0].finished
    environment = SeededEnvironment(**records.dump(manifest.environment), seed=confidence.seed)
    return {"title": title(runs[0]), "data": manifest.data, "environment": environment}


def _method(run: Run, name: str) -> dict[str, Any]:
    """What the results of both tasks have in common."""
    manifest = run.finished
    return {
        "name": name,
        "run": str(run.path),
        "description": manifest.description,
        "validation": manifest.validation,
        "costs": manifest.costs,
        "curve": curve(run),
        "notes": manifest.notes,
    }


def classification_of(runs: Sequence[Run], confidence: Confidence) -> ClassificationReport:
    """Return the report on classification runs: scores, the worst mistakes, pairs, and the verdict."""
    names = _names(runs)
    methods = tuple(
        ClassificationResult(
            scores=run.load("scores.json", ClassificationScores),
            worst=run.load("worst.json", WorstMistakes).worst,
            **_method(run, name),
        )
        for run, name in zip(runs, names, strict=True)
    )
    stored = {name: run.predictions("test") for run, name in zip(runs, names, strict=True)}
    gold = next(iter(stored.values()))[1]
    predictions = {name: predicted for name, (predicted, _) in stored.items()}
    labels = runs[0].manifest.data.labels
    pairs = label_pairs.compare(gold, predictions, labels, confidence) if len(runs) > 1 else []
    return ClassificationReport(
        verdict=conclusions.of_labels(methods, pairs),
        methods=methods,
        pairs=tuple(pairs),
        **_shared(runs, confidence),
    )


def instruction_of(runs: Sequence[Run], confidence: Confidence) -> GenerationReport:
    """Return the report on instruction runs, and on their base model where they share one."""
    names = _names(runs)
    methods = [_generation_result(run, name) for run, name in zip(runs, names, strict=True)]
    rows = {name: run.responses("test") for run, name in zip(runs, names, strict=True)}
    if before := shared_base(runs):
        asked = next(run for run in runs if base_model.stored(run))
        methods.append(_base_result(asked))
        rows[base_model.NAME] = before
    return GenerationReport(task="instruction", **_shared(runs, confidence), **side_by_side(methods, rows, confidence))


def side_by_side(
    methods: Sequence[GenerationResult], rows: Mapping[str, Sequence[ResponseRow]], confidence: Confidence
) -> dict[str, Any]:
    """Return what a report says about models that answered the same prompts, wherever they come from."""
    compared, pairs = response_pairs.compare(rows, confidence)
    best, worse = conclusions.rank(methods, compared)
    described = {name: length_bias.describe(of_one, confidence) for name, of_one in rows.items()}
    return {
        "verdict": conclusions.of_responses(methods, compared, pairs),
        "methods": tuple(methods),
        "pairs": tuple(pairs),
        "compared": compared,
        "shown": tuple(sample_selection.choose(rows, compared, best, worse, confidence.seed)),
        "lengths": {name: lengths for name, lengths in described.items() if lengths is not None},
    }


def shared_base(runs: Sequence[Run]) -> list[ResponseRow]:
    """The base model's answers, where the runs that asked it asked the same one, and none of them is untuned itself."""
    answers = [rows for run in runs if (rows := base_model.stored(run))]
    tuned = all(run.finished.costs.trainable for run in runs)
    return answers[0] if answers and tuned and all(rows == answers[0] for rows in answers) else []


def _base_result(run: Run) -> GenerationResult:
    """The base model as a method of the report: it cost no training and has no details of its own."""
    scores = run.load("scores.json", RunScores).base
    if scores is None:
        raise RunError(f"{run.path} has no scores of its base model", do=f"tunesmith evaluate {run.path}")
    return GenerationResult(
        name=base_model.NAME,
        is_base=True,
        run=str(run.path),
        description=f"the same model before training: {Path(run.recipe.model.name_or_path).name}",
        scores=scores,
        costs=replace(UNKNOWN_COSTS, parameters=run.finished.costs.parameters),
    )


def _generation_result(run: Run, name: str) -> GenerationResult:
    recipe, manifest = run.recipe, run.finished
    generate, model = recipe.generate, recipe.model.name_or_path
    base_folder = None
    if (run.model / "adapter_config.json").exists():
        saved = "adapter"
    elif manifest.costs.trainable:
        saved = "model"
    else:
        from tunesmith.models import pretrained

        saved, base_folder = "tokenizer", pretrained.location(recipe.model)
    return GenerationResult(
        scores=run.load("scores.json", RunScores),
        samples=_samples(run),
        saved=saved,
        judged=load_judge_report(run.read("judged.json")) if (run.path / "judged.json").exists() else None,
        base_model=assets.hub_id(model),
        base_folder=None if base_folder == model else base_folder,
        settings={
            "model": model,
            "template": manifest.notes.get("template", recipe.prompt.template),
            "max_length": recipe.model.max_length,
            "max_new_tokens": generate.max_new_tokens,
            "answers": f"sampled, temperature {generate.temperature:g}" if generate.do_sample else "greedy",
        },
        recipe=run.read_text("recipe.yaml"),
        **_method(run, name),
    )


def _samples(run: Run) -> tuple[TrainingSample, ...]:
    by_prompt: dict[str, TrainingSample] = {}
    for line in run.metrics():
        for sample in line.samples:
            known = by_prompt.get(sample.id) or TrainingSample(sample.id, sample.prompt, sample.reference)
            answers = (*known.answers, StepResponse(line.step, sample.response))
            by_prompt[sample.id] = replace(known, answers=answers)
    return tuple(by_prompt.values())


def curve(run: Run) -> Curve | None:
    """Return loss and deciding metric over the steps; None for methods that do not train in steps."""
    lines = run.metrics()
    if not lines:
        return None
    metric = run.recipe.evaluate.metric_for_best_model
    return Curve(
        loss=tuple((line.step, line.loss) for line in lines if line.loss is not None),
        validation=tuple((line.step, line.validation[metric]) for line in lines if metric in line.validation),
        validation_metric=metric,
    )


def _plot(curve: Curve, path: Path) -> None:
    """training_loss.png: the loss; beside a validation loss, or with the deciding metric on a second axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve.loss, strict=True), color="#1f5fa8", label="training loss")
    axes.set(xlabel="step", ylabel="loss", title="Training loss")
    axes.spines[["top", "right"]].set_visible(False)
    if curve.validation:
        same = curve.validation_metric == "loss"
        right = axes if same else axes.twinx()
        right.plot(*zip(*curve.validation, strict=True), "o-", color="#b5541c", label="validation loss")
        if same:
            axes.legend(frameon=False)
        else:
            right.set_ylabel(f"validation {curve.validation_metric}", color="#b5541c")
            right.spines["top"].set_visible(False)
    figure.savefig(path, dpi=150)


@dataclass(frozen=True)
class ReportKind:
    """How the runs of one task are reported."""

    build: Callable[[Sequence[Run], Confidence], ClassificationReport | GenerationReport]
    pages: ModuleType
    """Has `html` and `markdown`."""
    card: Callable[[Any, ExportedModel | None], str]
    """The model card of the one run in a report of this task."""


REPORTS = {
    "classification": ReportKind(classification_of, classification_report, model_card.classification),
    "instruction": ReportKind(instruction_of, generation_report, model_card.generation),
}
