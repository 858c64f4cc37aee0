"""`tunesmith export` and `tunesmith merge`: a run's model in another format, compared with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith import records, runs
from tunesmith.console import say
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.exporting import parity, targets, usage
from tunesmith.exporting.parity import ParityReport
from tunesmith.exporting.source import PRECISIONS, ExportSource, Precision
from tunesmith.pipeline import in_memory, new_data, run_report
from tunesmith.pipeline.engines import FOLDER, ROWS
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor
from tunesmith.pipeline.task_table import read_splits
from tunesmith.protocols import Exportable, TextGenerator, TextPredictor
from tunesmith.reporting.schema import ExportedModel
from tunesmith.runs import Run
from tunesmith.types import Example

NEW_TOKENS = 16
"""Tokens of a generator's answers that are compared."""


def export(
    run: str | Path | Run,
    to: str,
    output: str | Path | None = None,
    *,
    source: object = None,
    rows: int = ROWS,
    precision: Precision = "auto",
    allow_loss: bool = False,
    name: str | None = None,
) -> ParityReport:
    """Write the model of a finished run for other software, into `RUN/export/<to>` or a new folder.

    to: one of `exporting.targets.TARGETS`. source: data to compare on; by default the run's own test rows, or those of
    validation or train. precision: of the weights; `auto` is the target's own. Raises RunError, and leaves nothing
    behind, where the export does not match the run; allow_loss: accept whatever rounding changes. name: of the file
    that `pth` writes, instead of one made of model, size and task.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    write = targets.find(to)
    if precision not in PRECISIONS or rows < 1:
        raise RecipeError(f"precision is {precision}, rows is {rows}", expected=f"{', '.join(PRECISIONS)}; 1 or more")
    if name is not None and (to != "pth" or Path(name).name != name or not name.endswith(".pth")):
        raise RecipeError(f"cannot name the {to} export {name}", expected="a name that ends in .pth, with --to pth")
    folder = Path(output or run.path / FOLDER / to)
    if output is not None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty folder", do="give a new folder")
    model = export_source(run, precision, name)
    settings = model.generate.model_copy(update={"max_new_tokens": min(NEW_TOKENS, model.generate.max_new_tokens)})
    parity_rows = model.predictor.parity_rows(_examples(run, source)[:rows], settings)
    reports: list[ParityReport] = []

    def fill(scratch: Path) -> None:
        exported = write(model, scratch)
        sizes = {"size_mb": runs.size(scratch) / 2**20, "run_size_mb": runs.size(run.model) / 2**20}
        report = parity.compare(
            model.predictor.logits,
            exported,
            parity_rows,
            predicted=model.target if model.parts.chat is None else None,
            target=to,
            precision=precision,
            **sizes,
        )
        if exported.generator is not None and isinstance(model.predictor, TextGenerator):
            report = parity.with_responses(report, model.predictor, exported.generator, parity_rows, settings)
        parity.check(report, allow_loss)
        (scratch / parity.FILE).write_text(json.dumps(records.dump(report), indent=2) + "\n", encoding="utf-8")
        (scratch / "README.md").write_text(_card(run, model, report, scratch), encoding="utf-8")
        reports.append(report)

    runs.write_folder(folder, fill)
    say(f"{to} in {folder}: {parity.summary(reports[0])}")
    return replace(reports[0], folder=str(folder))


def merge(run: str | Path | Run, output: str | Path) -> ParityReport:
    """Export a run with an adapter to safetensors in float32; 4-bit weights become the values that they stand for."""
    run = run if isinstance(run, Run) else runs.find(run)
    run.verify_model()  # a file of an adapter may be missing
    if not _has_adapter(run):
        raise RunError(f"{run.path} has no adapter: its model is a full one already", do=f"use {run.model}")
    return export(run, "safetensors", output, precision="float32")


def export_source(run: Run, precision: Precision, name: str | None = None) -> ExportSource:
    """Return the model of a run for a target. Raises RunError where its method has nothing to export."""
    recipe, predictor = run.recipe, load_predictor(run)
    if not isinstance(predictor, Exportable):
        raise RunError(f"method {recipe.method} has nothing to export", do=f"use the run as it is: {run.path}")
    parts = predictor.parts()

    def reload(folder: Path) -> Exportable:
        reloaded = METHODS[recipe.method].load(folder, recipe)
        assert isinstance(reloaded, Exportable)
        return reloaded

    return ExportSource(
        recipe.method,
        predictor.with_model(parts.model),  # a model that was not tuned is saved with its weights too
        parts,
        predictor.target if isinstance(predictor, TextPredictor) else None,
        run.model,
        reload,
        is_adapter=_has_adapter(run),
        base=recipe.model,
        generate=recipe.generate,
        precision=precision,
        name=name,
    )


def _has_adapter(run: Run) -> bool:
    return (run.model / "adapter_config.json").exists()


def _examples(run: Run, source: object) -> Sequence[Example]:
    """Return the rows of a source, or else the run's own: those of test, validation or train, the first that exists."""
    recipe = run.recipe
    if source is not None:
        with in_memory.as_path(source) as path:
            return new_data.read(new_data.settings(recipe, path))
    try:
        splits = read_splits(recipe)
    except DataError as error:
        raise DataError(
            f"{run.path}: cannot read the data to compare on",
            expected="the data that the run was trained on",
            found=str(error),
            do="give some rows with --data",
        ) from error
    return splits.test or splits.validation or splits.train


def _card(run: Run, model: ExportSource, report: ParityReport, folder: Path) -> str:
    """Return the run's model card, with how the export is used and how it compares with the run."""
    code = usage.usage(model, report.target, run.recipe.data.text_pair is not None, folder)
    proof = f"Written as {report.target} and compared with the run: {parity.summary(report)}."
    changed = None if report.exact else f"Measured before rounding: {parity.agreement(report)}."
    library = usage.library(model, report.target)
    saved = "adapter" if library == "peft" else "model"
    return run_report.card(run, ExportedModel(f"{code}\n\n{proof}", library, saved, changed))
