"""`tunesmith explain`: which words made the predictions of a finished run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith import records, runs
from tunesmith.console import printable
from tunesmith.data import frames
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.pipeline import in_memory, new_data
from tunesmith.pipeline.commands.predict import from_texts
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.prediction_stream import check_pairs
from tunesmith.pipeline.task_table import task_of
from tunesmith.prediction import attribution
from tunesmith.reporting import explanation_report
from tunesmith.reporting.explanation_report import ExplanationReport
from tunesmith.runs import Run
from tunesmith.types import Explanation

COLUMN = "explanation"
"""What is added to the rows of a data source."""


def explain(
    run: str | Path | Run,
    texts: object = (),
    *,
    text_pairs: object = (),
    source: object = None,
    overrides: Sequence[str] = (),
    label: str | None = None,
    method: str = attribution.AUTO,
) -> list[Explanation]:
    """Return what each word adds to what a finished run predicts, for some texts or for every row of a data source.

    texts, text_pairs, source, overrides: as `predict` takes them. label: the label whose score is explained; by default
    the predicted one, or each of them. method: `exact`, the weights of a linear model; `integrated-gradients`, of an
    encoder; `occlusion`, what changes where a word is left out, or masked; `auto` is the first that the run can have.
    Raises RunError for a run that answers instructions, and RecipeError for an unknown label or method, and for a run
    without probabilities.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    if task_of(run).has_responses:
        raise RunError(
            f"cannot explain {run.path}",
            expected="a run that predicts labels or numbers",
            found=f"a run of task {run.recipe.task}",
        )
    methods.check_probabilities(run.recipe, f"explain {run.path}")
    if source is None and frames.rows(texts) is not None:
        source, texts = texts, ()
    singles, seconds = frames.texts(texts), frames.texts(text_pairs)
    if source is not None and singles:
        raise RecipeError("texts and a data source exclude each other", do="give one of them")
    if source is None:
        examples = from_texts(singles, seconds, "explain")
    else:
        with in_memory.as_path(source) as path:
            examples = [*new_data.read(new_data.settings(run.recipe, path, overrides))]
    check_pairs(run, examples)
    return attribution.explain(methods.load_text_predictor(run), examples, label, method)


def check_files(output: Path | None, page: Path | None, source: str | None, *, overwrite: bool) -> None:
    """Refuse files that could not or should not be written, before the work and not after it."""
    for file, suffix in ((output, ".jsonl"), (page, ".html")):
        if file is not None and file.suffix != suffix:
            raise RecipeError(f"cannot write {file}", expected=f"a name that ends in {suffix}", do="change the name")
        if file is not None:
            new_data.check_output(file, source, overwrite=overwrite)


def write(
    explanations: Sequence[Explanation],
    run: Run,
    source: str | None,
    overrides: Sequence[str] = (),
    *,
    output: Path | None = None,
    html: Path | None = None,
) -> list[Path]:
    """Write explanations as JSON Lines, those of a source's rows with all columns of the rows, and as a page."""
    written = []
    if output is not None:
        rows = [records.dump(explanation) for explanation in explanations]
        if source is not None:
            columns = new_data.columns(new_data.settings(run.recipe, source, overrides))
            rows = [_with_columns(row, columns[row["id"]], source) for row in rows]
        lines = [printable(json.dumps(row, ensure_ascii=False, default=str)) + "\n" for row in rows]
        written.append(runs.write_whole(output, "".join(lines).encode(errors="backslashreplace")))
    if html is not None:
        report = ExplanationReport(
            title=run.path.resolve().name, description=run.manifest.description, explanations=tuple(explanations)
        )
        written.append(runs.write_whole(html, explanation_report.html(report).encode(errors="backslashreplace")))
    return written


def _with_columns(row: dict[str, object], columns: dict[str, object], source: str) -> dict[str, object]:
    if COLUMN in columns:
        do = "rename it in the data"
        raise DataError(f"{source}: a column that is written", expected="another name", found=COLUMN, do=do)
    return columns | {COLUMN: {name: value for name, value in row.items() if name not in ("id", "text", "text_pair")}}
