"""Runs of task `instruction`: responses to held-out prompts, their scores, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith import assets, hardware
from tunesmith.errors import RunError
from tunesmith.evaluation import length_bias, response_pairs, responses
from tunesmith.evaluation.intervals import Confidence
from tunesmith.manifest import UNKNOWN_COSTS
from tunesmith.pipeline import generated_responses, report_parts
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.base_model import RunScores
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.reporting import conclusions, sample_selection
from tunesmith.reporting.judge_schema import load_judge_report
from tunesmith.reporting.schema import GenerationReport, GenerationResult, StepResponse, TrainingSample
from tunesmith.runs import HASHES, Run
from tunesmith.tasks import instruction
from tunesmith.types import ResponseRow


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Measure the loss of validation and test answers, and let the model and its base answer the test prompts."""
    splits, generator = job.splits, result.generator
    rows = generated_responses.response_rows(generator, splits.test, job.recipe, watch)
    job.run.write_predictions("test", rows)
    answered = [
        {**instruction.columns(example.messages[:-1]), "output": row.reference, "model_response": row.response}
        for example, row in zip(splits.test, rows, strict=True)
        if row.response is not None
    ]
    if answered:  # as others read it: the rows of the data, with what the model said
        job.run.write(f"predictions/{Path(report_parts.title(job.run)).stem}-with-response.json", answered)
    validation = result.validation
    if validation is None and (held_out := generated_responses.losses(generator, splits.validation)):
        validation = {"loss": responses.mean_loss(held_out)}
    base_model.answer(job, generator, result.trainable > 0, watch)
    return Outcome(validation, sum(row.response is not None for row in rows))


def report(runs: Mapping[str, Run], confidence: Confidence) -> GenerationReport:
    """Return the report on runs by name, and on their base model where they share one."""
    methods = [_result(run, name) for name, run in runs.items()]
    rows = {name: run.predictions("test", ResponseRow) for name, run in runs.items()}
    if before := shared_base(runs.values()):
        run = next(run for run in runs.values() if base_model.stored(run))
        scores = run.load("scores.json", RunScores).base
        if scores is None:
            raise RunError(f"{run.path} has no scores of its base model", do=f"tunesmith evaluate {run.path}")
        methods.append(
            GenerationResult(
                name=base_model.NAME,
                is_base=True,
                run=str(run.path),
                description=f"the same model before training: {Path(run.recipe.model.name_or_path).name}",
                scores=scores,
                costs=replace(UNKNOWN_COSTS, parameters=run.finished.costs.parameters),
            )
        )
        rows[base_model.NAME] = before
    first = next(iter(runs.values()))
    return report_parts.report(partial(side_by_side, methods, rows, confidence), first, confidence)


def side_by_side(
    methods: Sequence[GenerationResult],
    rows: Mapping[str, Sequence[ResponseRow]],
    confidence: Confidence,
    **header: Any,
) -> GenerationReport:
    """Return the report on models that answered the same prompts. header: what it says about data and machine."""
    compared, pairs = response_pairs.compare(rows, confidence)
    best, worse = conclusions.rank(methods, compared)
    described = {name: length_bias.describe(of_one, confidence) for name, of_one in rows.items()}
    return GenerationReport(
        verdict=conclusions.of_responses(methods, compared, pairs),
        methods=tuple(methods),
        pairs=tuple(pairs),
        compared=compared,
        shown=tuple(sample_selection.choose(rows, compared, best, worse, confidence.seed)),
        lengths={name: lengths for name, lengths in described.items() if lengths is not None},
        **header,
    )


def shared_base(runs: Iterable[Run]) -> list[ResponseRow]:
    """Return the base model's responses, if the runs that have some have the same ones and no run is untuned itself."""
    runs = list(runs)
    responses = [rows for run in runs if (rows := base_model.stored(run))]
    tuned = all(run.finished.costs.trainable for run in runs)
    return responses[0] if responses and tuned and all(rows == responses[0] for rows in responses) else []


def _result(run: Run, name: str) -> GenerationResult:
    """Return a run as a method of the report."""
    recipe, manifest = run.recipe, run.finished
    generate, model = recipe.generate, recipe.model.name_or_path
    base_folder = None
    listed = f"model/{HASHES}"
    files = run.read(listed) if run.has(listed) else {file.name for file in run.model.glob("*")}
    if manifest.costs.endpoint is not None:
        saved = "prompt"
    elif "adapter_config.json" in files:
        saved = "adapter"
    elif manifest.costs.trainable:
        saved = "model"
    else:
        from tunesmith.models import pretrained

        saved, base_folder = "tokenizer", pretrained.location(recipe.model)
    samples: dict[str, TrainingSample] = {}
    for line in run.metrics():
        for sample in line.samples:
            known = samples.get(sample.id) or TrainingSample(sample.id, sample.prompt, sample.reference)
            samples[sample.id] = replace(known, answers=(*known.answers, StepResponse(line.step, sample.response)))
    return report_parts.method(
        GenerationResult,
        run,
        name,
        scores=run.load("scores.json", RunScores),
        samples=tuple(samples.values()),
        saved=saved,
        judged=load_judge_report(run.read("judged.json")) if run.has("judged.json") else None,
        base_model=assets.hub_id(model),
        base_folder=None if base_folder == model else base_folder,
        settings={
            "model": model,
            "template": manifest.notes.template or recipe.prompt.template,
            "max_length": recipe.model.max_length,
            **({"shots": recipe.prompt.shots} if recipe.prompt.shots else {}),
            "max_new_tokens": generate.max_new_tokens,
            "answers": f"sampled, temperature {generate.temperature:g}" if generate.do_sample else "greedy",
        },
        recipe=run.read_text("recipe.yaml"),
    )
