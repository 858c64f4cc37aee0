"""`tunesmith predict` of an instruction run, and `tunesmith chat`: what a generator answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import data, hardware, recipe as recipes, runs
from tunesmith.console import say
from tunesmith.data import summary
from tunesmith.errors import DataError, RunError
from tunesmith.pipeline.fitting.methods import load_generator
from tunesmith.protocols import TextGenerator
from tunesmith.recipe import Generate, Recipe
from tunesmith.runs import Run
from tunesmith.types import Example, Message, Response

Row = dict[str, Any]


def respond(run: Run, prompts: Sequence[str] = (), *, source: str | None = None) -> list[Row]:
    """Answers to prompts, or to every row of a source: id, prompt, response, tokens, ended; reference where known.

    The response is None where the prompt is too long even when it is cut.
    """
    examples = new_rows(run.recipe, source) if source else [_example(n, text) for n, text in enumerate(prompts, 1)]
    if not examples:
        raise DataError("nothing to answer", do="give a prompt (--text) or a data source (--data)")
    questions = [row.messages[:-1] if row.messages[-1].role == "assistant" else row.messages for row in examples]
    recipe = run.recipe
    answers = load_generator(run).attempt([row.id for row in examples], questions, recipe.generate, recipe.seed)
    return [
        {"id": row.id, "prompt": row.text, "response": None}
        | _told(answer)
        | ({"reference": row.messages[-1].content} if row.messages[-1].role == "assistant" else {})
        for row, answer in zip(examples, answers, strict=True)
    ]


def answered_rows(
    generator: TextGenerator, examples: Sequence[Example], recipe: Recipe, watch: hardware.Stopwatch | None = None
) -> list[Row]:
    """The rows of predictions/test.jsonl: the loss of every reference, and answers to the first `max_responses`.

    watch: times the answering, as `predict`.
    """
    asked = examples[: recipe.evaluate.max_responses]
    questions = [row.messages[:-1] for row in asked]
    with (watch or hardware.Stopwatch()).time("predict"):
        answers = generator.attempt([row.id for row in asked], questions, recipe.generate, recipe.seed)
    rows: list[Row] = [
        {"id": row.id, "prompt": row.text, "reference": row.messages[-1].content, "loss": loss, "learned": learned}
        for row, (loss, learned) in zip(examples, losses(generator, examples), strict=True)
    ]
    for row, answer in zip(rows, answers, strict=False):
        row |= _told(answer)
    return rows


def _told(answer: Response | None) -> Row:
    return {} if answer is None else {"response": answer.text, "tokens": answer.tokens, "ended": answer.ended}


def losses(generator: TextGenerator, examples: Sequence[Example]) -> list[tuple[float, int]]:
    """The loss of each conversation's last answer, summed over its tokens, and their number."""
    return generator.losses([row.id for row in examples], [row.messages for row in examples])


@dataclass
class ChatSession:
    """A conversation with a run's model."""

    run: Run
    settings: Generate
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        if self.run.recipe.task != "instruction":
            raise RunError(f"{self.run.path} was not trained to answer", do="use `tunesmith predict`")
        self.generator = load_generator(self.run)
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = [Message("system", self.system)] if self.system else []

    def ask(self, text: str) -> Iterator[str]:
        """The answer in pieces, as it is made; it is remembered, as far as it was read."""
        if not text.strip():
            raise DataError("an empty question", do="write something")
        self.messages.append(Message("user", text))
        self.turns += 1
        said: list[str] = []
        try:
            for piece in self.generator.stream(self.messages, self.settings, self.run.recipe.seed + self.turns - 1):
                said.append(piece)
                yield piece
        finally:
            self.messages.append(Message("assistant", "".join(said)))


def chat(run: str | Path | Run, overrides: Sequence[str] = (), *, system: str | None = None) -> ChatSession:
    """A conversation with a run's model. overrides: of the `generate` section, such as `generate.do_sample=true`."""
    found = run if isinstance(run, Run) else runs.find(run)
    return ChatSession(found, recipes.load(found.recipe, overrides).generate, system)


def _example(number: int, text: str) -> Example:
    if not text.strip():
        raise DataError(f"prompt {number} is empty", do="give a prompt with at least one word")
    return Example(f"prompt:{number}", text, messages=(Message("user", text),))


def new_rows(recipe: Recipe, source: str) -> list[Example]:
    """Rows of a new source, read as the run's own data was: same columns, same encoding, same policy."""
    update = {"path": source, "train": None, "validation": None, "test": None, "name": None, "revision": None}
    examples, changes = data.read_unlabelled(recipe.data.model_copy(update=update), recipe.task)
    for line in summary.lines(changes):
        say(f"data: {line}")
    return list(examples)
