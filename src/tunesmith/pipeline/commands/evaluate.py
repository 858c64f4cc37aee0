"""`tunesmith evaluate`: how good a run's predictions are, or the answers in any file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import records
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation import metrics
from tunesmith.pipeline import new_data, response_comparison, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.methods import load_classifier
from tunesmith.pipeline.task_table import task_of
from tunesmith.runs import Run
from tunesmith.types import Example

Source = str | Path | Run


def evaluate(
    *sources: Source,
    data: str | None = None,
    overrides: Sequence[str] = (),
    responses: Sequence[str] = (),
    reference: str | None = None,
    instruction: str | None = None,
    report: str | Path | None = None,
) -> dict[str, Any]:
    """Score runs, or files of answers; several models on the same prompts also by paired tests.

    sources: run directories, whose scores are computed again from their stored predictions; or files with an
    instruction, a reference and a response a row, one model's or several (`data.answers` finds the columns; responses,
    reference and instruction name them). No model is needed. data: labelled data for a classification run to predict
    and be scored on; overrides: `data.*` settings, where it differs from the training data. report: an HTML page to
    write about answers, with a Markdown twin beside it.

    Gives the scores of one model, with its base model's under `base`; of several {"models": {name: scores}, "pairs",
    "verdict", ...}.
    """
    if not sources:
        raise RecipeError("nothing to evaluate", expected="a run directory, or a file of answers")
    columns = response_comparison.ResponseColumns(tuple(responses), reference, instruction)
    run = response_comparison.as_run(sources[0]) if len(sources) == 1 else None
    if run is not None and not task_of(run).has_responses:
        if report is not None or columns != response_comparison.ResponseColumns():
            raise RecipeError("a classification run is evaluated with --data alone", do="see its report.html")
        return _labels(run, data, overrides)
    if data is not None or overrides:
        raise RecipeError(
            "--data is labelled data for one classification run", do="answer it first: tunesmith predict RUN --data"
        )
    if run is not None:
        run.write("scores.json", base_model.score(run))
        compared = run_report.instruction_of([run], confidence_of(run.recipe))
    else:
        compared = response_comparison.compare(sources, columns)
    if report is not None:
        response_comparison.write(compared, Path(report))
    if run is not None or len(compared.methods) == 1:
        return dict(records.dump(compared.methods[0].scores))
    return {
        "models": {method.name: records.dump(method.scores) for method in compared.methods},
        "compared": records.dump(compared.compared),
        "pairs": records.dump(compared.pairs),
        "verdict": compared.verdict,
    }


def _labels(run: Run, source: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Of a classification run: its test predictions again, or a new labelled source.

    New data is predicted and written to the run as `predictions/<name>.jsonl` and `scores-<name>.json`.
    """
    recipe = run.recipe
    if source is None:
        if overrides:
            raise RecipeError(f"stored predictions are scored as they are: {', '.join(overrides)}", do="give --data")
        predictions, gold = run.predictions("test")
        scores = metrics.score(gold, predictions, run.manifest.data.labels, confidence_of(recipe))
        run.write("scores.json", scores)
        return dict(records.dump(scores))
    examples = new_data.read(new_data.settings(recipe, source, overrides))
    predictor = load_classifier(run)
    gold = _gold(examples, predictor.labels)
    name = Path(source).name.split(".")[0]
    if name in ("test", "validation"):
        name = f"new-{name}"  # the run's own splits keep their files
    predictions = predictor.predict(examples)
    run.write_predictions(name, predictions, gold)
    scores = metrics.score(gold, predictions, predictor.labels, confidence_of(recipe))
    run.write(f"scores-{name}.json", scores)
    return dict(records.dump(scores))


def _gold(examples: Sequence[Example], labels: Sequence[str]) -> list[str]:
    missing = [example.id for example in examples if example.label is None]
    if missing:
        raise DataError(
            f"{len(missing)} rows have no label: {', '.join(missing[:5])}", do="use `tunesmith predict`, or add labels"
        )
    unknown = sorted({str(example.label) for example in examples} - set(labels))
    if unknown:
        raise RunError(f"labels that the run does not know: {', '.join(unknown)}", expected=", ".join(labels))
    return [str(example.label) for example in examples]
