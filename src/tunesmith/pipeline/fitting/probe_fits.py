"""Probes fitted to many parts of the same rows, on one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Probe
from tunesmith.types import DataNote, Example

if TYPE_CHECKING:
    from tunesmith.prediction.classify import Encoder


@dataclass(frozen=True)
class ProbeFits:
    """Fits probes to jobs, all with one encoder."""

    encoder: Encoder

    def __call__(self, job: Job) -> TrainResult:
        from tunesmith.prediction import classify

        recipe, rows = job.recipe, job.splits.train
        return classify.fit_probe(self.encoder, rows, job.target, recipe.probe, recipe.linear, job.weights())

    def embed(self, examples: Sequence[Example], settings: Probe) -> tuple[NDArray[np.float64], list[DataNote]]:
        """Return the embeddings of texts, N x D, and what the encoder's maximum length cut."""
        from tunesmith.prediction import classify

        return classify.embed(self.encoder, examples, settings)
