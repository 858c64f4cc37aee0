"""Models that a server can hold without loading anything, and a server in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from tunesmith.pipeline.commands import serve
from tunesmith.prediction import attribution
from tunesmith.protocols import AnswerRequest, Prompt
from tunesmith.recipe import Generate, Serve
from tunesmith.runs import Run
from tunesmith.serving import app, server
from tunesmith.serving.backends import Served, ServedClassifier, ServedGenerator
from tunesmith.serving.handlers import Handlers
from tunesmith.serving.middleware import Middleware
from tunesmith.types import Example, Explanation, MultilabelPrediction, Prediction, Response, ValuePrediction

LABELS = ("a", "b", "c")
PATIENCE = 20
"""Seconds after which a server counts as hanging; never measured, and less than any timeout of the server."""


@dataclass
class FakeClassifier:
    """Labels that follow from the text alone; takes `seconds` for a batch and remembers the batches."""

    labels: tuple[str, ...] = LABELS
    seconds: float = 0.0
    batches: list[list[str]] = field(default_factory=list)
    may_run: threading.Event | None = None
    """Waited for before each batch."""
    max_length: int | None = None
    """A token is a character."""
    prompt: str = ""
    """Put before the text, where it is not empty."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if self.may_run is not None:
            assert self.may_run.wait(60)
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
        return len(example.text)

    def rendered_prompt(self, example: Example) -> str | None:
        return self.prompt + example.text if self.prompt else None

    def save(self, folder: Any) -> None:
        raise NotImplementedError


THRESHOLDS = dict.fromkeys(LABELS, 0.3)


class FakeTagger(FakeClassifier):
    """All labels whose probability reaches THRESHOLDS."""

    def alone(self, text: str, name: str = "0") -> Any:
        probabilities = super().alone(text, name).probabilities
        reached = [label for label, p in zip(LABELS, probabilities, strict=True) if p >= THRESHOLDS[label]]
        return MultilabelPrediction(name, tuple(reached), probabilities)


class FakeRegressor(FakeClassifier):
    """A third of a text's characters."""

    def __init__(self) -> None:
        super().__init__(labels=())

    def alone(self, text: str, name: str = "0") -> Any:
        return ValuePrediction(name, len(text) / 3)


@dataclass
class FakeGenerator:
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

    def write(self, take: Callable[[int], Sequence[AnswerRequest]], places: int) -> None:
        open_: dict[int, tuple[AnswerRequest, list[str], int]] = {}
        while True:
            for request in take(places - len(open_)):
                text = "".join(map(chr, request.prompt)).split("<user>")[-1].removesuffix("<>")
                open_[len(self.written)] = request, list(self.answer(text)), 0
                self.written.append((text, 0))
            if not open_:
                return
            time.sleep(self.seconds)
            for row, (request, answer, count) in sorted(open_.items()):
                count += 1
                open_[row] = request, answer, count
                self.written[row] = (self.written[row][0], count)  # before the client can have heard of it
                last = count >= min(request.max_tokens, len(answer) + 1)
                piece = answer[count - 1] if count <= len(answer) else ""
                response = Response("", "".join(answer[:count]), count, count > len(answer)) if last else None
                if not request.on_token(piece, response) or last:
                    del open_[row]


def application(
    *models: Served, keys: Sequence[str] = (), guard_classifier: ServedClassifier | None = None, **settings: Any
) -> Middleware:
    """The application over some models."""
    handlers = Handlers({model.name: model for model in models}, Serve(**settings), guard_classifier)
    created = app.create(handlers, keys)
    created.handlers = handlers  # type: ignore[attr-defined]
    return created


def loaded(served: Sequence[Run], settings: Serve) -> Any:
    """The handlers of some runs."""
    return serve.load(serve.named([run.path for run in served]), settings)


def classifier(name: str = "labels", model: Any = None, **more: Any) -> ServedClassifier:
    """A classifier to serve."""
    fake: Any = model or FakeClassifier()

    def explainer(example: Example, label: str | None, on_batch: Callable[[], None]) -> list[Explanation]:
        return attribution.explain(fake, [example], label, on_batch=on_batch)

    return ServedClassifier(name, fake, prompted=bool(fake.prompt), explainer=explainer, **more)


def tagger(name: str = "tags") -> ServedClassifier:
    """A model of any number of labels to serve."""
    return ServedClassifier(name, FakeTagger(), task="multilabel", thresholds=THRESHOLDS)


def regressor(name: str = "stars") -> ServedClassifier:
    """A model of numbers to serve."""
    return ServedClassifier(name, FakeRegressor(), task="regression")


def generator(name: str = "talk", model: Any = None, **more: Any) -> ServedGenerator:
    """A generator to serve."""
    return ServedGenerator(name, model or FakeGenerator(), Generate(max_new_tokens=50), **more)


def client(made: Middleware, **more: Any) -> httpx.AsyncClient:
    """A client of the application itself, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://localhost", timeout=30, **more)


async def never_reload() -> None:
    """What SIGHUP starts in a test that sends none."""
    raise AssertionError("no test sends SIGHUP to itself")


def run(coroutine: Any) -> Any:
    """Run to the end."""
    return asyncio.run(coroutine)


@contextlib.contextmanager
def listening(made: Middleware, *more: socket.socket) -> Iterator[str]:
    """The application on a free port of this machine, whose address it gives, and on more sockets."""
    listener = server.listen(Serve(port=0))
    process = server.server(made, Serve(), never_reload)
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener, *more]}, daemon=True)
    thread.start()
    while not process.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.should_exit = True
        thread.join(10)


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for something that a broken server would never let happen."""
    for _ in range(100 * PATIENCE):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def message(text: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def post(made: Middleware, path: str, body: Any, **more: Any) -> httpx.Response:
    """The response to one request, with `body` as JSON."""

    async def main() -> httpx.Response:
        async with client(made) as http:
            return await http.post(path, json=body, **more)

    response: httpx.Response = run(main())
    return response


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error in a response, which has OpenAI's format and the request's id."""
    detail: dict[str, Any] = answer.json()["error"]
    assert set(detail) == {"message", "type", "code", "param", "request_id"}
    assert detail["request_id"] == answer.headers["x-request-id"]
    return detail


def answered(answer: httpx.Response, stream: bool) -> tuple[str, str]:
    """The text of a generator's response, streamed or not, and its `finish_reason`."""
    assert answer.status_code == 200, answer.text
    if not stream:
        choice = answer.json()["choices"][0]
        return str(choice["message"]["content"]), str(choice["finish_reason"])
    lines = [line[6:] for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    return "".join(choice["delta"].get("content", "") for choice in choices), str(choices[-1]["finish_reason"])
