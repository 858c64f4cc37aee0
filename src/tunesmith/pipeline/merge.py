"""`tunesmith merge`: the adapter of a run written into a full model, with the proof that it computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith import data, runs
from tunesmith.console import say
from tunesmith.errors import RunError
from tunesmith.pipeline.methods import load_result
from tunesmith.runs import Run

PROOF = "merge.json"
PROBES = 8
"""Rows that both models are run on."""
MOST = 1e-4
"""Largest difference of two logits, relative to the largest, at which two float32 models count as the same."""


def merge(run: str | Path | Run, output: str | Path) -> dict[str, Any]:
    """Write the merged model of a run with an adapter, plain Hugging Face files, into `output`; gives the proof.

    Of 4-bit weights the values they stand for are merged, in float32. Raises RunError where the merged model differs.
    """
    from tunesmith.models import adapters, load

    found = run if isinstance(run, Run) else runs.find(run)
    result = load_result(found)
    model, tokenizer = _parts(result)
    if not hasattr(model, "peft_config"):
        raise RunError(f"{found.path} has no adapter: its model is whole already", do=f"use {found.model}")
    merged = adapters.merge(model)
    proof = adapters.prove(merged, model, _probes(found, tokenizer))
    if proof["max_logit_difference"] > MOST * max(1.0, proof["largest_logit"]) or not proof["same_answers"]:
        raise RunError("the merged model computes something else", found=json.dumps(proof), do="keep the adapter")
    target = Path(output)
    if target.exists() and any(target.iterdir()):
        raise RunError(f"{target} is not empty", do="give a new folder")
    runs.write_folder(target, lambda folder: load.save(folder, merged, tokenizer))
    runs.write_whole(target / PROOF, (json.dumps(proof, indent=2) + "\n").encode())
    say(f"merged into {target}: logits differ by at most {proof['max_logit_difference']:.1e}")
    return proof


def _parts(result: Any) -> tuple[Any, Any]:
    """Model and tokenizer of whatever a run trained."""
    if hasattr(result, "encoder"):
        return result.encoder.model, result.encoder.tokenizer
    generator = getattr(result, "generator", result)
    if not hasattr(generator, "prompter"):
        raise RunError("only models that were trained by gradient have adapters", do="nothing is to be merged")
    return generator.model, generator.prompter.tokenizer


def _probes(run: Run, tokenizer: Any) -> list[list[int]]:
    """Token ids of a few training texts."""
    recipe = run.recipe
    rows = data.read(recipe.data, recipe.split, recipe.seed, recipe.task).train[:PROBES]
    return [tokenizer(row.text, truncation=True, max_length=64)["input_ids"] for row in rows]
