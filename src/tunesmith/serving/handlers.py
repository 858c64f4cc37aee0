"""What each route does: requests through guard and queue, and back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import Request
from fastapi.responses import StreamingResponse

from tunesmith.errors import TunesmithError
from tunesmith.protocols import Prompt
from tunesmith.recipe import Serve
from tunesmith.serving.backends import (
    ClassifierOutput,
    GenerationRequest,
    Served,
    ServedClassifier,
    ServedGenerator,
)
from tunesmith.serving.generation_stream import GenerationStream, Stops, result, submit
from tunesmith.serving.guard import CONTEXT, Audit, ContentGuard, halves
from tunesmith.serving.middleware import ClientDisconnected, ServerState
from tunesmith.serving.openai import ChatRequest, CompletionRequest, ModelCard, ModelList, ResponseBuilder
from tunesmith.serving.prometheus import Metrics
from tunesmith.serving.queue import Limits, Queue
from tunesmith.serving.refusal import Refusal
from tunesmith.serving.schemas import (
    Input,
    Labels,
    PredictRequest,
    PredictResponse,
    PromptRequest,
    PromptResponse,
)
from tunesmith.types import Example, Message, Prediction

Result = TypeVar("Result")
Kind = TypeVar("Kind", ServedClassifier, ServedGenerator)
JUDGE = ":guard"
"""The queue of the guard's classifier; no run can have this name."""
TOGETHER = 16
"""Texts of one request that the guard's classifier gets at once: those of others come between."""


@dataclass
class Handlers:
    """The served models with their queues, the guard, and the figures."""

    models: Mapping[str, Served]
    settings: Serve
    judge: ServedClassifier | None = None
    """The classifier of the guard."""
    metrics: Metrics = field(default_factory=Metrics)
    state: ServerState = field(default_factory=ServerState)

    def __post_init__(self) -> None:
        known = {**self.models, **({JUDGE: self.judge} if self.judge else {})}
        self.queues = {name: self._queue(name, model) for name, model in known.items()}
        self.metrics.watch(self.queues)

    def _queue(self, name: str, model: Served) -> Queue:
        one = self.settings
        limits = Limits(one.queue_size, one.max_batch_tokens, model.rows, one.batch_wait_ms / 1000)
        return Queue(name, model.run, limits, lambda inputs, seconds: self.metrics.batched(name, inputs, seconds))

    @cached_property
    def guard(self) -> ContentGuard:
        """The rules that texts must pass."""
        path = self.settings.guard.audit_log
        audit = Audit(
            Path(path) if path else None,
            self.settings.log_texts,
            lambda where, action, rule: self.metrics.guard.labels(where, action, rule).inc(),
        )
        if self.judge is None:
            return ContentGuard(self.settings.guard, audit)
        context = min(CONTEXT, 2 * (self.judge.limit or CONTEXT))  # a token has more letters, so the rest fits too
        return ContentGuard(self.settings.guard, audit, partial(self._judge, self.judge), context)

    async def _judge(self, judge: ServedClassifier, texts: Sequence[str]) -> list[dict[str, float]]:
        """What a classifier says of texts. One that it cannot read whole is judged in halves too, and these in theirs:
        of each label the highest probability counts."""
        labels, size = judge.predictor.labels, min(TOGETHER, self.settings.queue_size)
        found = [dict.fromkeys(labels, 0.0) for _ in texts]
        left = list(enumerate(texts))
        while left:
            now, left = left[:size], left[size:]
            job = judge.job([Example(str(number), text) for number, text in now], self.deadline())
            said = cast(ClassifierOutput, await result(self.queues[JUDGE], job))
            for (number, text), one, cut in zip(now, said.predictions, said.cut, strict=True):
                for label, probability in zip(labels, one.probabilities, strict=True):
                    found[number][label] = max(found[number][label], probability)
                left += [(number, half) for half in halves(text)] if cut else []
        return found

    def close(self) -> None:
        """Take nothing more, and let go of the models."""
        for queue in self.queues.values():
            queue.close()

    def full(self) -> int | None:
        """Where no model can take one more input: seconds after which one probably can."""
        waits = [self.queues[name].full for name in self.models]
        known = [wait for wait in waits if wait is not None]
        return min(known) if len(known) == len(waits) else None

    def deadline(self) -> float:
        """Until when a request of now must be answered."""
        return time.monotonic() + self.settings.timeout_seconds

    def find(self, kind: type[Kind], name: str | None) -> Kind:
        """The model that a request means. Raises Refusal where there is none, or more than one."""
        fitting = [model for model in self.models.values() if isinstance(model, kind)]
        if name is None and len(fitting) == 1:
            return fitting[0]
        if name is None and fitting:
            raise Refusal.invalid("several models are served: say which", "model_missing", "model")
        found = self.models.get(name or "")
        if isinstance(found, kind):
            return found
        where = "/predict" if isinstance(found, ServedClassifier) else "/v1/chat/completions"
        message = f"this model is asked at {where}" if found else "no such model: see /v1/models"
        raise Refusal(404, message, "model_not_found", "model")

    # --- classifiers

    async def predict(self, body: PredictRequest, request: Request) -> PredictResponse:
        """Labels with probabilities, for one text or many."""
        model = self.find(ServedClassifier, body.model)
        examples = _examples(body, model, self.settings.max_inputs)
        if body.top_k is not None and body.top_k > len(model.predictor.labels):
            raise Refusal.invalid(f"top_k: there are {len(model.predictor.labels)} labels", param="top_k")
        self._note(request, model=model.name, inputs=len(examples), texts=[one.text for one in examples])
        deadline = self.deadline()

        async def work() -> ClassifierOutput:
            passed = await self.guard.example(examples, request.state.id)
            return cast(ClassifierOutput, await result(self.queues[model.name], model.job(passed, deadline)))

        found = await self._while_listened(request, work(), deadline)
        rows = zip(found.predictions, found.cut, strict=True)
        predictions = [_labels(one, cut, model.predictor.labels, body.top_k) for one, cut in rows]
        self._note(request, labels=[one.label for one in predictions])
        return PredictResponse(id=request.state.id, model=model.name, predictions=predictions)

    # --- generators

    async def chat(self, body: ChatRequest, request: Request) -> Any:
        """An answer to a conversation, whole or as a stream of server-sent events."""
        model = self.find(ServedGenerator, body.model)
        messages = [message.plain() for message in body.messages]
        if messages[-1].role != "user":
            raise Refusal.invalid("the last message must be the user's", param="messages")
        deadline = self.deadline()
        passed = await self._while_listened(request, self.guard.messages(messages, request.state.id), deadline)
        return await self._generate(model, body, passed, body.max_completion_tokens, request, deadline)

    async def complete(self, body: CompletionRequest, request: Request) -> Any:
        """How a text goes on, whole or as a stream of server-sent events. No template is put around it."""
        model = self.find(ServedGenerator, body.model)
        deadline = self.deadline()
        (passed,) = await self._while_listened(request, self.guard.inputs([body.text()], request.state.id), deadline)
        return await self._generate(model, body, passed, None, request, deadline)

    async def _generate(
        self,
        model: ServedGenerator,
        body: ChatRequest | CompletionRequest,
        prompt: Prompt,
        room: int | None,
        request: Request,
        deadline: float,
    ) -> Any:
        room = room or body.max_tokens
        if room and model.most and room > model.most:
            raise Refusal.invalid(f"at most {model.most} tokens can be asked for", param="max_tokens")
        question = GenerationRequest(prompt, body.generation(model.settings), body.number(), room)
        texts = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
        self._note(request, model=model.name, texts=texts)
        queue = self.queues[model.name]
        job = submit(queue, model.job(question, deadline))
        answer = GenerationStream(queue, job, Stops(body.stops()), self.guard.outlet(request.state.id))
        shape = ResponseBuilder(isinstance(body, ChatRequest), request.state.id, model.name)
        if body.stream:
            await self._while_listened(request, answer.start(), deadline)
            usage = bool(body.stream_options and body.stream_options.include_usage)
            stream = self._stream(answer, shape, usage, request)
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

        async def whole() -> str:
            await answer.start()
            return "".join([piece async for piece in answer.pieces()])

        text = await self._while_listened(request, whole(), deadline)
        self._end(answer, request)
        return shape.whole(text, answer.finish, answer.usage)

    async def _stream(
        self, answer: GenerationStream, shape: ResponseBuilder, usage: bool, request: Request
    ) -> AsyncIterator[str]:
        """Server-sent events. An error behind the first one can only be told as one more."""
        pieces, first, ended = answer.pieces(), True, False
        try:
            yield _event(shape.chunk(None, usage=usage))
            async for piece in pieces:
                if first:
                    self.metrics.first.labels(shape.head["model"]).observe(time.monotonic() - answer.job.came)
                    first = False
                yield _event(shape.chunk(piece, usage=usage))
            yield _event(shape.chunk("", answer.finish, usage))
            if usage:
                yield _event(shape.usage(answer.usage))
            ended = True
            yield "data: [DONE]\n\n"
        except Refusal as refusal:
            ended = True
            self.metrics.refused.labels(refusal.code).inc()
            yield _event(refusal.body(request.state.id))
        finally:
            await pieces.aclose()
            if not ended:
                self.metrics.left.inc()
            self._end(answer, request)

    def _end(self, answer: GenerationStream, request: Request) -> None:
        name = request.state.notes["model"]
        self.metrics.tokens.labels(name, "prompt").inc(answer.prompt_tokens)
        self.metrics.tokens.labels(name, "completion").inc(answer.tokens)
        self._note(request, tokens=f"{answer.prompt_tokens}+{answer.tokens}", texts=["".join(answer.text)])

    # --- both

    async def prompt(self, body: PromptRequest) -> PromptResponse:
        """The prompt as the model sees it: the text that the template makes."""
        if (body.messages is None) == (body.input is None):
            raise Refusal.invalid("give either messages or an input")
        if body.messages is not None:
            chat = self.find(ServedGenerator, body.model)
            turns = [Message(turn.role, turn.content) for turn in body.messages]
            make = lambda: chat.writer.rendered_prompt(turns)  # noqa: E731
            name = chat.name
        else:
            model = self.find(ServedClassifier, body.model)
            name, opening = model.name, model.opening
            if opening is None or body.input is None:
                raise Refusal.invalid("this model reads the text as it is", "no_prompt", "model")
            example = Example("input", body.input.text, body.input.text_pair)
            make = lambda: opening(example)  # noqa: E731
        try:
            return PromptResponse(model=name, prompt=await asyncio.to_thread(make))
        except TunesmithError as error:
            raise Refusal.invalid(str(error), "prompt_refused", "messages") from None

    def listing(self) -> ModelList:
        """Every served model."""
        return ModelList(data=[_model(model) for model in self.models.values()])

    async def _while_listened(self, request: Request, work: Coroutine[Any, Any, Result], deadline: float) -> Result:
        """What comes of some work, unless the client goes away or the time is over: then the work ends too."""
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
        try:
            left = max(0.0, deadline - time.monotonic())
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                return tasks[0].result()
            if not tasks[1].done():
                raise Refusal.late()
            self.metrics.left.inc()
            raise ClientDisconnected
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note(
        self, request: Request, texts: list[str] | None = None, labels: list[str] | None = None, **notes: Any
    ) -> None:
        """For the request's line in the log. Texts and labels only where they may stand there."""
        request.state.notes.update(notes)
        if self.settings.log_texts:
            for name, value in (("texts", texts), ("labels", labels)):
                if value is not None:
                    known = request.state.notes.get(name, "")
                    request.state.notes[name] = known + json.dumps(value)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _examples(body: PredictRequest, model: ServedClassifier, most: int) -> list[Example]:
    """The inputs of a request. Raises Refusal where they are too many, or not what the model was trained on."""
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    if len(given) > most:
        raise Refusal.invalid(f"{len(given)} inputs, more than {most}", "too_many_inputs", "inputs")
    inputs = [one if isinstance(one, Input) else Input(text=one) for one in given]
    for number, one in enumerate(inputs):
        if (one.text_pair is not None) != model.pairs:
            wanted = "text and text_pair" if model.pairs else "one text"
            raise Refusal.invalid(f"input {number}: this model wants {wanted}", "wrong_input", "inputs")
    return [Example(str(number), one.text, one.text_pair) for number, one in enumerate(inputs)]


def _labels(one: Prediction, cut: bool, labels: tuple[str, ...], top: int | None) -> Labels:
    ranked = sorted(zip(labels, one.probabilities, strict=True), key=lambda pair: -pair[1])
    return Labels(label=one.label, score=ranked[0][1], scores=dict(ranked[:top]), cut=cut)


def _model(model: Served) -> ModelCard:
    if isinstance(model, ServedGenerator):
        return ModelCard(id=model.name, created=model.created, task=model.task, limit=model.limit, prompted=True)
    return ModelCard(
        id=model.name,
        created=model.created,
        task=model.task,
        limit=model.limit,
        labels=list(model.predictor.labels),
        pairs=model.pairs,
        prompted=model.opening is not None,
    )
