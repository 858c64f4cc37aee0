"""The paraphrase part of an audit: rows that are similar in meaning by the embeddings of a probe's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tunesmith import recipe as recipes
from tunesmith.auditing import paraphrases
from tunesmith.auditing.paraphrases import ParaphraseAudit
from tunesmith.errors import RecipeError
from tunesmith.pipeline.audit_sections import duplicate_section
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.probe_fits import ProbeFits
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS
from tunesmith.types import DataNote, Example

FILE = "paraphrases.csv"
PROBE = "probe"
"""The method whose encoder embeds the texts."""


def threshold_of(asked: bool | float) -> float | None:
    """Return the cosine similarity from which rows are similar; None where it was not asked for.

    Raises RecipeError for one that is none.
    """
    if isinstance(asked, bool):
        return paraphrases.THRESHOLD if asked else None
    if not 0 < asked <= 1:
        raise RecipeError(f"--paraphrase-threshold is {asked:g}", expected="a number above 0, and at most 1")
    return asked


def audit(data: AuditInput) -> ParaphraseAudit | None:
    """Return the part, and write all pairs into paraphrases.csv; None where it was not asked for or does not apply."""
    threshold, index = data.plan.paraphrases, data.splits.copies
    if threshold is None or index is None:
        return None
    trainer = _trainer(data)
    fits = trainer.fit
    assert isinstance(fits, ProbeFits)
    notes: list[DataNote] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float64]:
        vectors, cut = fits.embed([Example(str(place), text) for place, text in enumerate(texts)], trainer.recipe.probe)
        notes.extend(cut)
        return vectors

    model = methods.find(trainer.recipe).model(trainer.recipe) or ""
    found, pairs = paraphrases.audit(duplicate_section.rows_of(data.splits), index, embed, threshold, model)
    found = replace(found, cut=sum(note.count for note in notes))
    return replace(found, file=duplicate_section.write(data.folder, FILE, pairs))


def _trainer(data: AuditInput) -> PartTrainer:
    """Return what embeds: of a task without a probe, that of a recipe without settings, whose model is an encoder."""
    if TASKS[data.recipe.task].has_responses:
        return PartTrainer.of(recipes.load({}), data.splits, PROBE)
    return data.trainer(PROBE)
