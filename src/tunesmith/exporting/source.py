"""What a run trained, as an export target sees it; and what a target hands back to be proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import RunError
from tunesmith.recipe import Generate

Precision = Literal["auto", "float32", "float16", "bfloat16", "q8_0"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "float16", "bfloat16", "q8_0")
Floats = NDArray[np.floating[Any]]
Runner = Callable[[Sequence[Any]], list[Floats]]
"""Rows in, one array of logits a row out: K for an Example; T x V for the T answer tokens of a `Written`."""


@dataclass(frozen=True, slots=True)
class PromptWithAnswer:
    """A prompt and the answer that a generator gave to it greedily: what its exports must write too."""

    ids: list[int]
    start: int
    """Where the answer begins."""


@dataclass(frozen=True)
class ChatSpec:
    """How a generator is talked to."""

    prompter: Any
    """A data.prompts.Prompter."""
    stops: list[str]
    """Texts behind which there is no more answer."""
    generate: Generate
    question: Any | None = None
    """A data.prompts.Question, where the generator is a classifier."""


@dataclass(frozen=True)
class ExportSource:
    """The model of a finished run. `linear` has neither model nor tokenizer; the others have all of it."""

    method: str
    result: Any
    """A Predictor or a Generator, as the run has it: with its adapter, where it has one."""
    folder: Path
    """Where the run keeps it."""
    run: Callable[[Any], Runner]
    """The logits of any such result."""
    reload: Callable[[Path], Any]
    """The result in a folder that its own `save` wrote."""
    exchange: Callable[[Any], Any]
    """The same result around another model."""
    labels: tuple[str, ...] = ()
    model: Any = None
    tokenizer: Any = None
    max_length: int = 0
    base: Any = None
    """Of an adapter: the settings that name the model under it."""
    probe: Any = None
    """Of a probe: its settings (pooling, normalize)."""
    regression: Any = None
    """Of a probe: weight, classes x features, and bias."""
    talk: ChatSpec | None = None
    """Of a generator."""
    precision: Precision = "auto"
    """What the weights are written in; `auto` is the target's own choice."""

    @property
    def is_adapter(self) -> bool:
        """Whether the run trained matrices beside a model, and not the model."""
        return hasattr(self.model, "peft_config")

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
