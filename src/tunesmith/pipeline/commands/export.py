"""`tunesmith export` and `tunesmith merge`: a run's model in another form, with the proof that it says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import data, runs
from tunesmith.console import say
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.exporting import parity, targets, usage
from tunesmith.exporting.source import PRECISIONS, ChatSpec, ExportSource, Precision, PromptWithAnswer, Runner
from tunesmith.pipeline import new_data, run_report
from tunesmith.pipeline.fitting.methods import METHODS, load_result
from tunesmith.recipe import Recipe
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
    source: str | None = None,
    rows: int = ROWS,
    precision: Precision = "auto",
    allow_loss: bool = False,
) -> dict[str, Any]:
    """Write the model of a finished run for other software, into `RUN/export/<to>` or a new folder; gives the proof.

    to: one of `exporting.targets.TARGETS`. source: data to compare on, instead of the run's own held-out rows.
    precision: of the weights; `auto` is the target's own. Raises RunError, and leaves nothing behind, where the export
    does not say what the run says; allow_loss: where weights are rounded, whatever comes of it is kept, and stated.
    """
    found = run if isinstance(run, Run) else runs.find(run)
    write = targets.find(to)
    if precision not in PRECISIONS or rows < 1:
        raise RecipeError(f"precision is {precision}, rows is {rows}", expected=f"{', '.join(PRECISIONS)}; 1 or more")
    folder = _folder(found, to, output)
    trained = _trained(found, precision)
    probes = _probes(found, trained, source, rows)
    reference = _runner(trained.result)
    proofs: list[dict[str, Any]] = []

    def fill(scratch: Path) -> None:
        exported = write(trained, scratch)
        proof = {"target": to, "precision": precision} | parity.compare(reference, exported, probes)
        size = {"size_mb": runs.size(scratch) / 2**20, "run_size_mb": runs.size(found.model) / 2**20}
        proofs.append(proof | size)
        parity.check(proofs[0], exported.exact, allow_loss)
        parity.write(proofs[0], scratch)
        card = _card(found, trained, proofs[0], exported.exact)
        (scratch / "README.md").write_text(card, encoding="utf-8")

    runs.write_folder(folder, fill)
    say(f"{to} in {folder}: {parity.summary(proofs[0])}")
    return proofs[0] | {"folder": str(folder)}


def merge(run: str | Path | Run, output: str | Path) -> dict[str, Any]:
    """`export` to safetensors of a run with an adapter, in float32; of 4-bit weights, the values they stand for."""
    found = run if isinstance(run, Run) else runs.find(run)
    if not (found.model / "adapter_config.json").exists():
        raise RunError(f"{found.path} has no adapter: its model is whole already", do=f"use {found.model}")
    return export(found, "safetensors", output, precision="float32")


def _folder(run: Run, to: str, output: str | Path | None) -> Path:
    """Where to write: within the run anew, elsewhere only where nothing is."""
    if output is None:
        return run.path / FOLDER / to
    target = Path(output)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(f"{target} is not an empty folder", do="give a new folder")
    return target


def _trained(run: Run, precision: Precision) -> ExportSource:
    """What the run's method is made of. Of a model that was not tuned the weights are written too."""
    recipe, result = run.recipe, load_result(run)
    method = METHODS[recipe.method]
    known: dict[str, Any] = {"labels": tuple(getattr(result, "labels", ()))}
    generator = getattr(result, "generator", result)
    if hasattr(result, "encoder"):
        encoder = result.encoder
        known |= {"model": encoder.model, "tokenizer": encoder.tokenizer, "max_length": encoder.max_length}
        known |= {"probe": getattr(result, "settings", None), "regression": getattr(result, "regression", None)}
    elif hasattr(generator, "prompter"):
        question = getattr(result, "question", None)
        known |= {"model": generator.model, "tokenizer": generator.prompter.tokenizer, "max_length": generator.limit}
        known |= {"talk": ChatSpec(generator.prompter, generator.stops, recipe.generate, question)}
        result = _exchanged(result, generator.model)
    return ExportSource(
        recipe.method,
        result,
        run.model,
        _runner,
        lambda folder: method.load(folder, recipe),
        lambda model: _exchanged(result, model),
        base=recipe.model,
        precision=precision,
        **known,
    )


def _exchanged(result: Any, model: Any) -> Any:
    """The same result around another model, which is then its own."""
    if hasattr(result, "encoder"):
        return replace(result, encoder=replace(result.encoder, model=model))
    if hasattr(result, "generator"):
        return replace(result, generator=replace(result.generator, model=model, base=None))
    return replace(result, model=model, base=None)


def _runner(result: Any) -> Runner:
    """The logits of whatever a run trained: of labels, or of the tokens of given answers."""
    generator = getattr(result, "generator", result)
    if hasattr(generator, "prompter"):
        return lambda rows: [_token_logits(generator.model, row) for row in rows]
    if hasattr(result, "regression") and hasattr(result, "encoder"):
        return lambda rows: list(_probe_logits(result, rows))
    if hasattr(result, "encoder"):
        return lambda rows: list(result.encoder.rows(rows, lambda output, batch: output.logits, "compare")[0])
    return lambda rows: [np.log(np.maximum(one.probabilities, 1e-30)) for one in result.predict(rows)]


def _probe_logits(probe: Any, rows: Sequence[Example]) -> Any:
    from tunesmith.prediction import classify

    features, _ = classify.embed(probe.encoder, rows, probe.settings)
    logits_BK = features @ probe.regression.weight.T + probe.regression.bias
    return np.hstack([np.zeros_like(logits_BK), logits_BK]) if logits_BK.shape[1] == 1 else logits_BK


def _token_logits(model: Any, row: PromptWithAnswer) -> Any:
    """T x V: what the model says before each token of the answer. The likeliest of each being that token means that
    it would have written the same answer."""
    import torch

    with torch.inference_mode():
        ids_1T = torch.tensor([row.ids[:-1]], device=model.device)
        return model.eval()(input_ids=ids_1T).logits[0, row.start - 1 :].float().cpu().numpy()


def _probes(run: Run, trained: ExportSource, source: str | None, number: int) -> list[Any]:
    """Rows to compare on: of the source, or of the run's test split, else of validation, else of train."""
    recipe = run.recipe
    if source:
        examples: Sequence[Example] = new_data.read(recipe, source)
    else:
        try:
            splits = data.read(recipe.data, recipe.split, recipe.seed, recipe.task)
        except DataError as error:
            raise DataError(
                f"{run.path}: the data to compare on cannot be read", found=str(error), do="give some rows with --data"
            ) from error
        examples = splits.test or splits.validation or splits.train
    return [_written(trained, row, recipe) for row in examples[:number]] if trained.talk else list(examples[:number])


def _written(trained: ExportSource, row: Example, recipe: Recipe) -> PromptWithAnswer:
    """A prompt with the run's own greedy answer."""
    import torch

    from tunesmith.prediction import generate

    generator = getattr(trained.result, "generator", trained.result)
    question = getattr(trained.result, "question", None)
    answered = bool(row.messages) and row.messages[-1].role == "assistant"
    asked = question.ask(row) if question else row.messages[:-1] if answered else row.messages
    (ids,) = generator.encode([asked], min(NEW_TOKENS, generator.room(recipe.generate)), aloud=False)
    with torch.inference_mode():
        ids_1T = torch.tensor([ids], device=generator.device)
        plain = generate.PLAIN | {"max_new_tokens": min(NEW_TOKENS, generator.room(recipe.generate))}
        found = generator.model.eval().generate(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), **plain)
    return PromptWithAnswer(found[0].tolist(), len(ids))


def _card(run: Run, trained: ExportSource, proof: dict[str, Any], exact: bool) -> str:
    """The run's model card, with how this folder is used and what was proved of it."""
    used = usage.usage(trained, proof["target"], run.recipe.data.text_pair is not None)
    proved = f"Written as {proof['target']} and compared with the run: {parity.summary(proof)}."
    changed = None if exact else f"Measured before rounding: {parity.shared(proof)}."
    return run_report.card(run, f"{used}\n\n{proved}", usage.made_for(trained, proof["target"]), changed)
