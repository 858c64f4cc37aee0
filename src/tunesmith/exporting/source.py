"""What a run trained, as an export target sees it, and what a target returns to be compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tunesmith.errors import RunError
from tunesmith.protocols import Exportable, Logits, ModelParts, TextGenerator
from tunesmith.recipe import Generate, Model
from tunesmith.tasks.text_targets import Target

Precision = Literal["auto", "float32", "float16", "bfloat16", "q8_0"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Runner = Callable[[Sequence[Any]], list[Logits]]
"""Rows in, one array of logits per row out: `Exportable.logits`."""


@dataclass(frozen=True)
class ExportSource:
    """The model of a finished run."""

    method: str
    """Its name, for messages."""
    predictor: Exportable
    """The run's predictor, with its adapter if it has one."""
    parts: ModelParts
    target: Target | None
    """What is predicted; None for a generator that answers."""
    folder: Path
    """The run's `model/`."""
    reload: Callable[[Path], Exportable]
    """Loads what a predictor's `save` wrote into a folder."""
    is_adapter: bool
    """Whether the run trained an adapter, and not the model itself."""
    base: Model
    """The model under an adapter."""
    generate: Generate
    precision: Precision = "auto"
    """Of the weights; `auto` is the target's own choice."""
    name: str | None = None
    """File name of a state dict; None for one made of model, size and task."""

    @property
    def has_own_format(self) -> bool:
        """Whether the model's files are tunesmith's own: a bag of words, or a probe."""
        return self.parts.model is None or self.parts.head is not None

    def require_precision(self, target: str, *precisions: Precision) -> None:
        """Raise RunError for a precision that a target cannot write."""
        if self.precision not in ("auto", *precisions):
            expected = ", ".join(("auto", *precisions))
            raise RunError(f"{target} cannot be written in {self.precision}", expected=expected, do="leave it out")


@dataclass(frozen=True)
class Exported:
    """What was read back from an exported folder, to be compared with the run."""

    run: Runner
    engine: str
    """What computes it."""
    exact: bool = True
    """Whether nothing was rounded: then every answer must be the same."""
    timed: bool = True
    """Whether users will run it by this engine, so that its speed means something."""
    others: Mapping[str, Runner] = field(default_factory=dict)
    """Other ways to compute the same logits, by name: a generator's tokens one by one, and in a batch."""
    generator: TextGenerator | None = None
    """The export as a text generator, whose answers are compared too, and whose speed is that of the export."""
