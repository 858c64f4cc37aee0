"""`tunesmith chat`: a conversation with a run's model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.errors import DataError, RunError
from tunesmith.pipeline import engines
from tunesmith.pipeline.task_table import task_of
from tunesmith.recipe import Generate
from tunesmith.runs import Run
from tunesmith.types import Message


@dataclass
class ChatSession:
    """A conversation with a run's model."""

    run: Run
    settings: Generate
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        if not task_of(self.run).has_responses:
            raise RunError(f"{self.run.path} was not trained to answer", do="use `tunesmith predict`")
        self.generator = engines.load_generator(self.run, self.settings.engine)
        self.reset()

    def reset(self) -> None:
        """Forget the conversation so far."""
        self.messages = [Message("system", self.system)] if self.system else []

    def ask(self, text: str) -> Iterator[str]:
        """The response in pieces, as it is generated; it is remembered, as far as it was read."""
        if not text.strip():
            raise DataError("an empty question", expected="a text", found="nothing", do="write something")
        self.messages.append(Message("user", text))
        self.turns += 1
        pieces: list[str] = []
        try:
            for piece in self.generator.stream(self.messages, self.settings, self.run.recipe.seed + self.turns - 1):
                pieces.append(piece)
                yield piece
        finally:
            self.messages.append(Message("assistant", "".join(pieces)))


def chat(run: str | Path | Run, overrides: Sequence[str] = (), *, system: str | None = None) -> ChatSession:
    """A conversation with a run's model. overrides: of the `generate` section, such as `generate.do_sample=true`."""
    run = run if isinstance(run, Run) else runs.find(run)
    return ChatSession(run, recipes.load(run.recipe, overrides, sections=("generate",)).generate, system)
