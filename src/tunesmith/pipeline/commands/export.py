"""`tunesmith export` and `tunesmith merge`: a run's model in another form, with the proof that it says the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import runs
from tunesmith.console import say
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.exporting import parity, targets, usage
from tunesmith.exporting.source import PRECISIONS, ExportSource, Precision
from tunesmith.pipeline import in_memory, new_data, run_report
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor
from tunesmith.pipeline.task_table import read_splits
from tunesmith.protocols import Classifier, Exportable
from tunesmith.reporting.schema import ExportedModel
from tunesmith.runs import Run
from tunesmith.types import Example

ROWS = 50
"""Rows that a run and its export are compared on."""
NEW_TOKENS = 16
"""Tokens of a generator's answers that are compared."""
FOLDER = "export"
"""Where exports lie in a run, each under its target's name, unless another folder is given."""


def export(
    run: str | Path | Run,
    to: str,
    output: str | Path | None = None,
    *,
    source: object = None,
    rows: int = ROWS,
    precision: Precision = "auto",
    allow_loss: bool = False,
) -> dict[str, Any]:
    """Write the model of a finished run for other software, into `RUN/export/<to>` or a new folder; gives the proof.

    to: one of `exporting.targets.TARGETS`. source: data to compare on, instead of the run's own held-out rows.
    precision: of the weights; `auto` is the target's own. Raises RunError, and leaves nothing behind, where the export
    does not say what the run says; allow_loss: where weights are rounded, whatever comes of it is kept, and stated.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    write = targets.find(to)
    if precision not in PRECISIONS or rows < 1:
        raise RecipeError(f"precision is {precision}, rows is {rows}", expected=f"{', '.join(PRECISIONS)}; 1 or more")
    folder = _folder(run, to, output)
    trained = _export_source(run, precision)
    settings = trained.generate.model_copy(update={"max_new_tokens": min(NEW_TOKENS, trained.generate.max_new_tokens)})
    parity_rows = trained.predictor.parity_rows(_rows(run, source)[:rows], settings)
    proofs: list[dict[str, Any]] = []

    def fill(scratch: Path) -> None:
        exported = write(trained, scratch)
        proof = {"target": to, "precision": precision} | parity.compare(trained.predictor.logits, exported, parity_rows)
        size = {"size_mb": runs.size(scratch) / 2**20, "run_size_mb": runs.size(run.model) / 2**20}
        proofs.append(proof | size)
        parity.check(proofs[0], exported.exact, allow_loss)
        parity.write(proofs[0], scratch)
        card = _card(run, trained, proofs[0], exported.exact)
        (scratch / "README.md").write_text(card, encoding="utf-8")

    runs.write_folder(folder, fill)
    say(f"{to} in {folder}: {parity.summary(proofs[0])}")
    return proofs[0] | {"folder": str(folder)}


def merge(run: str | Path | Run, output: str | Path) -> dict[str, Any]:
    """`export` to safetensors of a run with an adapter, in float32; of 4-bit weights, the values they stand for."""
    run = run if isinstance(run, Run) else runs.find(run)
    if not _has_adapter(run):
        raise RunError(f"{run.path} has no adapter: its model is whole already", do=f"use {run.model}")
    return export(run, "safetensors", output, precision="float32")


def _folder(run: Run, to: str, output: str | Path | None) -> Path:
    """Where to write: within the run anew, elsewhere only where nothing is."""
    if output is None:
        return run.path / FOLDER / to
    target = Path(output)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(f"{target} is not an empty folder", do="give a new folder")
    return target


def _export_source(run: Run, precision: Precision) -> ExportSource:
    """The parts of what the run trained. Of a model that was not tuned the weights are written too."""
    recipe, predictor = run.recipe, load_predictor(run)
    if not isinstance(predictor, Exportable):
        raise RunError(f"a {recipe.method} model cannot be exported", do=f"use it as it is: {run.model}")
    parts = predictor.parts()

    def reload(folder: Path) -> Exportable:
        reloaded = METHODS[recipe.method].load(folder, recipe)
        assert isinstance(reloaded, Exportable)
        return reloaded

    return ExportSource(
        recipe.method,
        predictor.with_model(parts.model),
        parts,
        predictor.labels if isinstance(predictor, Classifier) else (),
        run.model,
        reload,
        is_adapter=_has_adapter(run),
        base=recipe.model,
        generate=recipe.generate,
        precision=precision,
    )


def _has_adapter(run: Run) -> bool:
    return (run.model / "adapter_config.json").exists()


def _rows(run: Run, source: object) -> Sequence[Example]:
    """Rows to compare on: of the source, or of the run's test split, else of validation, else of train."""
    recipe = run.recipe
    if source is not None:
        with in_memory.as_path(source) as path:
            return new_data.read(new_data.settings(recipe, path))
    try:
        splits = read_splits(recipe)
    except DataError as error:
        raise DataError(
            f"{run.path}: the data to compare on cannot be read", found=str(error), do="give some rows with --data"
        ) from error
    return splits.test or splits.validation or splits.train


def _card(run: Run, trained: ExportSource, proof: dict[str, Any], exact: bool) -> str:
    """The run's model card, with how this folder is used and what was proved of it."""
    used = usage.usage(trained, proof["target"], run.recipe.data.text_pair is not None)
    proved = f"Written as {proof['target']} and compared with the run: {parity.summary(proof)}."
    changed = None if exact else f"Measured before rounding: {parity.shared(proof)}."
    library = usage.made_for(trained, proof["target"])
    saved = "adapter" if library == "peft" else "model"
    return run_report.card(run, ExportedModel(f"{used}\n\n{proved}", library, saved, changed))
