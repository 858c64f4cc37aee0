"""What a run trained, as an export target sees it; and what a target hands back to be proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import RunError
from tunesmith.protocols import Exportable, Logits, ModelParts
from tunesmith.recipe import Generate, Model

Precision = Literal["auto", "float32", "float16", "bfloat16", "q8_0"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "float16", "bfloat16", "q8_0")
Runner = Callable[[Sequence[Any]], list[Logits]]
"""Rows in, one array of logits a row out, as `Exportable.logits` has them."""


@dataclass(frozen=True)
class ExportSource:
    """The model of a finished run."""

    method: str
    """Its name, for messages."""
    predictor: Exportable
    """As the run has it: with its adapter, where it has one."""
    parts: ModelParts
    labels: tuple[str, ...]
    folder: Path
    """Where the run keeps it."""
    reload: Callable[[Path], Exportable]
    """Loads what a predictor's `save` wrote into a folder."""
    is_adapter: bool
    """Whether the run trained matrices beside a model, and not the model."""
    base: Model
    """Names the model under an adapter."""
    generate: Generate
    precision: Precision = "auto"
    """What the weights are written in; `auto` is the target's own choice."""

    @property
    def has_own_format(self) -> bool:
        """Whether the model is kept in files that tunesmith alone reads: a bag of words, or a probe."""
        return self.parts.model is None or self.parts.head is not None

    def allow(self, target: str, *precisions: Precision) -> None:
        """Refuse a precision that a target cannot write."""
        if self.precision not in ("auto", *precisions):
            expected = ", ".join(("auto", *precisions))
            raise RunError(f"{target} cannot be written in {self.precision}", expected=expected, do="leave it out")


@dataclass(frozen=True)
class Exported:
    """What was read back from an exported folder, to be held against the run."""

    run: Runner
    engine: str
    """What computed it."""
    exact: bool = True
    """Nothing was rounded: every answer must be the same. Else nearly every one."""
    timed: bool = True
    """Whether the export's own engine computed it, so that its speed says something."""
