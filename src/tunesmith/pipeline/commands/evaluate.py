"""`tunesmith evaluate`: how good a run's predictions are, or the answers in any file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith import recipe as recipes
from tunesmith.console import warn
from tunesmith.data import example_table
from tunesmith.errors import DataError, FileError, RecipeError, RunError
from tunesmith.evaluation.response_pairs import ResponseComparison, ResponsePair
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.pipeline import (
    engines,
    held_out,
    in_memory,
    instruction_runs,
    leaked_rows,
    new_data,
    prediction_stream,
    response_comparison,
    run_report,
    slice_scores,
)
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import Scores, check_data, read_splits, task_of
from tunesmith.protocols import TextPredictor
from tunesmith.recipe import Split
from tunesmith.records import omitted_if_none
from tunesmith.reporting.header import DifferingSettings
from tunesmith.runs import Run

SLICES = ("evaluate.slices", "slices")
"""The setting that finished runs take too, by both of its names."""


@dataclass(frozen=True, slots=True)
class ComparedScores:
    """The scores of several models on the same prompts, and the paired test of every two of them."""

    models: dict[str, GenerationScores]
    compared: ResponseComparison
    pairs: tuple[ResponsePair, ...]
    verdict: str
    differing: tuple[DifferingSettings, ...] | None = omitted_if_none()
    """Settings that differ between runs of one method, where their names do not say it."""


def evaluate(
    *sources: object,
    data: object = None,
    overrides: Sequence[str] = (),
    responses: Sequence[str] = (),
    reference: str | None = None,
    instruction: str | None = None,
    report: str | Path | None = None,
    engine: str = "torch",
    **settings: object,
) -> Scores | ComparedScores:
    """Score runs, or files of answers; several models on the same prompts also by paired tests.

    sources: run directories, whose scores are computed again from their stored predictions; or files or tables with an
    instruction, a reference and a response a row, one model's or several (`data.response_files` finds the columns;
    responses, reference and instruction name them). No model is needed. data: labelled data for a classification run
    to predict and be scored on; overrides and settings: those of `data`, where it differs from the training data, and
    `evaluate.slices`, also of a run's own test rows; engine: what computes its predictions: `torch`, or a key of
    `engines.ENGINES`, whose export lies in the run. report: an HTML page about answers, with a Markdown twin beside it.
    """
    if not sources:
        raise RecipeError("nothing to evaluate", expected="a run directory, or a file of answers")
    columns = response_comparison.ResponseColumns(tuple(responses), reference, instruction)
    run = response_comparison.as_run(sources[0]) if len(sources) == 1 else None
    task = None if run is None else task_of(run)
    labelled = task is not None and not task.has_responses
    if run is not None and labelled and (report is not None or columns != response_comparison.ResponseColumns()):
        raise RecipeError(f"a {run.recipe.task} run is evaluated with --data alone", do="see its report.html")
    overrides = [*overrides, *recipes.overrides_of(settings)]
    chosen = [*overrides, *([] if engine == "torch" else [f"--engine {engine}"])]
    if (data is not None or chosen) and not labelled:
        raise RecipeError(
            "--data is labelled data for one run of labels or numbers",
            do="answer it first: tunesmith predict RUN --data",
        )
    if run is not None and data is not None:
        with in_memory.as_path(data) as path:
            return _score_new_data(run, path, overrides, engine)
    if other := [word for word in chosen if word.partition("=")[0] not in SLICES]:
        raise RecipeError(f"stored predictions are scored as they are: {', '.join(other)}", do="give --data")
    if run is not None and task is not None:
        scores = task.score(run)
        run.write("scores.json", scores)
        if overrides:
            _read_slices(run, overrides)
        leaked_rows.write_scores(run, scores)
        slice_scores.write_test(run)
        if overrides:
            run_report.write_run(run)
        if report is not None:
            content = instruction_runs.report({run.manifest.name: run}, confidence_of(run.recipe))
            response_comparison.write(content, Path(report))
        return scores
    content = response_comparison.compare(sources, columns)
    if report is not None:
        response_comparison.write(content, Path(report))
    models = {method.name: method.scores for method in content.methods}
    if len(models) == 1:
        return content.methods[0].scores
    return ComparedScores(models, content.compared, content.pairs, content.verdict, content.differing)


def _read_slices(run: Run, overrides: Sequence[str]) -> None:
    """Read the test rows of a run again, for other slices than it was trained with."""
    recipe = recipes.load(run.recipe, overrides, sections=SLICES[:1])
    splits = read_splits(recipe)
    check_data(splits, run)
    slice_scores.keep(run, slice_scores.read(recipe, splits.test))


def _score_new_data(run: Run, source: str, overrides: Sequence[str], engine: str) -> Scores:
    """Predict labelled rows with a run; write predictions/<name>.jsonl, scores-<name>.json and, of slices,
    slices-<name>.json. Where rows are copies of training rows, leaks-<name>.json and clean-<name>.json too.
    """
    recipe = new_data.settings(run.recipe, source, overrides, more=SLICES[:1])
    examples = new_data.read(recipe)
    predictor = engines.load(run, engine, "--engine")
    assert isinstance(predictor, TextPredictor)
    noun = "label" if predictor.labels else "number"
    targets = example_table.targets(examples)
    if missing := [place for place, row in enumerate(targets) if row.gold is None]:
        raise DataError(
            f"{source}: {len(missing)} rows have no {noun}",
            expected=f"a {noun} in every row",
            found=", ".join(examples[place].id for place in missing[:5]),
            do=f"use `tunesmith predict`, or add the {noun}s",
        )
    if predictor.labels and (
        unknown := sorted({label for row in targets for label in row.all_labels} - {*predictor.labels})
    ):
        raise RunError(f"labels that the run does not know: {', '.join(unknown)}", expected=", ".join(predictor.labels))
    slice_values = slice_scores.read(recipe, examples, Split())
    name = Path(source).name.split(".")[0]
    if name in ("test", "validation"):
        name = f"new-{name}"  # the run's own splits keep their files
    size = prediction_stream.rows_at_once(predictor)
    parts = (examples[start : start + size] for start in range(0, len(examples), size))
    run.write_predictions(name, (row for part in parts for row in held_out.predict(predictor, part)))
    scores = task_of(run).score(run, name)
    run.write(f"scores-{name}.json", scores)
    slice_scores.write(run, slice_values, name)
    try:
        splits = read_splits(run.recipe)
        check_data(splits, run)
    except (DataError, FileError, RunError) as error:
        warn(f"copies of training rows are not looked for in {name}: {str(error).splitlines()[0]}")
    else:
        leaked_rows.keep_of_new_data(run, name, examples, splits.train)
        leaked_rows.write_scores(run, scores, name)
    return scores
