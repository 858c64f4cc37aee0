"""Models that a server can hold without loading anything, and a server in this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from tunesmith.protocols import OnToken, Prompt
from tunesmith.recipe import Generate, Serve
from tunesmith.serving import app, server
from tunesmith.serving.backends import Served, ServedClassifier, ServedGenerator
from tunesmith.serving.handlers import Handlers
from tunesmith.serving.middleware import Middleware
from tunesmith.types import Example, Message, Prediction, Response

LABELS = ("a", "b", "c")


@dataclass
class FakePredictor:
    """Labels that follow from the text alone; takes `seconds` for a batch and remembers the batches."""

    labels: tuple[str, ...] = LABELS
    seconds: float = 0.0
    batches: list[list[str]] = field(default_factory=list)
    gate: threading.Event | None = None
    """Wait for it before each batch."""

    max_length: int | None = None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if self.gate is not None:
            assert self.gate.wait(20)
        self.batches.append([one.text for one in examples])
        time.sleep(self.seconds)
        if any("explode" in one.text for one in examples):
            raise RuntimeError(f"secret: {examples[0].text}")
        return [self.alone(one.text + (one.text_pair or ""), one.id) for one in examples]

    def alone(self, text: str, name: str = "0") -> Prediction:
        """What it says of one text."""
        weights = [1 + sum(map(ord, text[start::3])) % 97 for start in range(len(self.labels))]
        probabilities = tuple(weight / sum(weights) for weight in weights)
        return Prediction(name, self.labels[probabilities.index(max(probabilities))], probabilities)

    def count_tokens(self, example: Example) -> int:
        raise NotImplementedError

    def rendered_prompt(self, example: Example) -> None:
        """There is no prompt."""

    def save(self, folder: Any) -> None:
        raise NotImplementedError


@dataclass
class FakeWriter:
    """Answers a prompt with its last message's words, one a token, in capitals; or with `answer`."""

    context_length: int = 200
    seconds: float = 0.0
    """For each token."""
    answer: Callable[[str], Sequence[str]] = lambda text: [f"{word} " for word in text.upper().split()]
    written: list[tuple[str, int]] = field(default_factory=list)
    """Prompts, and how many tokens of their answer were written."""

    def rendered_prompt(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else "".join(f"<{turn.role}>{turn.content}" for turn in prompt) + "<>"

    def tokenize(self, prompt: Prompt) -> list[int]:
        return [ord(letter) for letter in self.rendered_prompt(prompt)]

    def write(
        self,
        prompts: Sequence[list[int]],
        max_tokens: Sequence[int],
        seeds: Sequence[int],
        settings: Generate,
        on_token: OnToken,
    ) -> None:
        texts = ["".join(map(chr, ids)).split("<user>")[-1].removesuffix("<>") for ids in prompts]
        answers = [list(self.answer(text)) for text in texts]
        counts, open_ = [0] * len(texts), set(range(len(texts)))
        place = len(self.written)
        self.written += [(text, 0) for text in texts]
        while open_:
            time.sleep(self.seconds)
            for row in sorted(open_):
                count = counts[row] = counts[row] + 1
                self.written[place + row] = (texts[row], count)  # before the client can have heard of it
                last = count >= min(max_tokens[row], len(answers[row]) + 1)
                piece = answers[row][count - 1] if count <= len(answers[row]) else ""
                text = "".join(answers[row][:count])
                response = Response(str(row), text, count, count > len(answers[row])) if last else None
                if not on_token(row, piece, response) or last:
                    open_.discard(row)


def gate(
    *models: Served, keys: Sequence[str] = (), judge: ServedClassifier | None = None, **settings: Any
) -> Middleware:
    """The application over some models."""
    handlers = Handlers({model.name: model for model in models}, Serve(**settings), judge)
    made = app.create(handlers, keys)
    made.handlers = handlers  # type: ignore[attr-defined]
    return made


def classifier(name: str = "labels", predictor: Any = None, **more: Any) -> ServedClassifier:
    return ServedClassifier(name, predictor or FakePredictor(), **more)


def chat(name: str = "talk", writer: Any = None, **more: Any) -> ServedGenerator:
    return ServedGenerator(name, writer or FakeWriter(), Generate(max_new_tokens=50), **more)


def client(made: Middleware, **more: Any) -> httpx.AsyncClient:
    """A client of the application itself, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://localhost", timeout=30, **more)


def run(coroutine: Any) -> Any:
    """Run to the end."""
    return asyncio.run(coroutine)


@contextlib.contextmanager
def listening(made: Middleware) -> Iterator[str]:
    """The application on a free port of this machine; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = server.server(made, Serve())
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not process.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.should_exit = True
        thread.join(10)


def message(text: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def said(text: str) -> Message:
    return Message("user", text)
