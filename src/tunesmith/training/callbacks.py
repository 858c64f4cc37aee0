"""Code of the user that a training calls (`train.callbacks`)."""

from __future__ import annotations

from pathlib import Path

from tunesmith.training.loop import Step, TrainState


class Callback:
    """Base class of callbacks; override what you need. Every process has an instance, made without arguments.

    The model is `state.model`. What a callback raises ends the training.
    """

    def on_step(self, step: Step, state: TrainState) -> None:
        """Called after each optimizer step."""

    def on_evaluate(self, step: Step, state: TrainState) -> None:
        """Called after each evaluation, whose metrics are `step.scores`."""

    def on_save(self, folder: Path, state: TrainState) -> None:
        """Called in the main process after a checkpoint, or the best model so far, has been written to a folder."""
