"""What each route does: requests go through the guard and a queue, and back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import Request
from fastapi.responses import StreamingResponse

from tunesmith.errors import TunesmithError
from tunesmith.protocols import Prompt
from tunesmith.recipe import Serve
from tunesmith.serving import drift_monitor
from tunesmith.serving.backends import (
    ClassifierOutput,
    ExplanationRequest,
    GenerationRequest,
    Served,
    ServedClassifier,
    ServedGenerator,
)
from tunesmith.serving.drift_monitor import DriftMonitor
from tunesmith.serving.drift_schemas import DriftResponse, ModelDrift
from tunesmith.serving.generation_stream import GenerationStream, StopSequences
from tunesmith.serving.guard import CONTEXT, AuditLog, ContentGuard, halves
from tunesmith.serving.live_models import Kind, LiveModel, LiveModels, Reload, no_such_model
from tunesmith.serving.middleware import ClientDisconnected, ServerState
from tunesmith.serving.openai import ChatRequest, CompletionRequest, ResponseBuilder
from tunesmith.serving.prometheus import ServerMetrics
from tunesmith.serving.queue import Deadline, Limits, Queue
from tunesmith.serving.refusal import Refusal
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.schemas import (
    ExplainRequest,
    ExplainResponse,
    LabelExplanation,
    PredictRequest,
    PredictResponse,
    PromptRequest,
    PromptResponse,
    ReloadedModel,
    ReloadRequest,
    ReloadResponse,
    scored,
)
from tunesmith.types import Example, Explanation, Message

Result = TypeVar("Result")
GUARD = "/guard"
"""The queue of the guard's classifier; no folder, and so no run, can have this name."""
GUARD_BATCH = 16
"""Texts of one request that the guard's classifier gets at once: those of other requests come in between."""


@dataclass
class Handlers:
    """The served models with their queues, the guard, and the metrics."""

    models: InitVar[Mapping[str, Served]]
    settings: Serve
    guard_classifier: ServedClassifier | None = None
    load: InitVar[Callable[[str], Served] | None] = None
    """Returns the newest version of a model, for `reload`."""
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    state: ServerState = field(default_factory=ServerState)

    def __post_init__(self, models: Mapping[str, Served], load: Callable[[str], Served] | None) -> None:
        self.live = LiveModels(models, self._queue, load, self._count_reload)
        if self.guard_classifier is not None:
            self.live_guard = LiveModel(
                self.guard_classifier, self._queue(GUARD, self.guard_classifier), DriftMonitor(())
            )

    def _queue(self, name: str, model: Served) -> Queue:
        settings = self.settings
        wait = settings.batch_wait_ms / 1000
        limits = Limits(settings.queue_size, settings.max_batch_tokens, model.max_rows, wait)
        queue = Queue(name, model.run, limits, partial(self.metrics.observe_batch, name))
        self.metrics.watch(name, queue, model.version)
        return queue

    @cached_property
    def guard(self) -> ContentGuard:
        """The rules that texts must pass."""
        path = self.settings.guard.audit_log
        audit = AuditLog(
            Path(path) if path else None,
            self.settings.log_texts,
            lambda where, action, rule: self.metrics.guard.labels(where, action, rule).inc(),
        )
        classifier = self.guard_classifier
        if classifier is None:
            return ContentGuard(self.settings.guard, audit)
        # a token has more than two characters, so the piece itself fits too
        context = min(CONTEXT, 2 * (classifier.max_length or CONTEXT))
        return ContentGuard(self.settings.guard, audit, partial(self._classify_for_guard, classifier), context)

    async def _classify_for_guard(self, classifier: ServedClassifier, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return each text's probability of every label.

        A text that is longer than the classifier reads is classified in halves too, and these in theirs: of each label
        the highest probability counts.
        """
        labels, size = classifier.classifier.labels, min(GUARD_BATCH, self.settings.queue_size)
        highest = [dict.fromkeys(labels, 0.0) for _ in texts]
        waiting = list(enumerate(texts))
        while waiting:
            batch, waiting = waiting[:size], waiting[size:]
            examples = [Example(str(number), text) for number, text in batch]
            output = await self._predict(self.live_guard, examples, self.deadline())
            for (number, text), prediction, cut in zip(batch, output.predictions, output.cut, strict=True):
                for label, probability in zip(labels, prediction.probabilities, strict=True):
                    highest[number][label] = max(highest[number][label], probability)
                waiting += [(number, half) for half in halves(text)] if cut else []
        return highest

    async def _predict(
        self, live: LiveModel[ServedClassifier], examples: Sequence[Example], deadline: Deadline
    ) -> ClassifierOutput:
        return cast(ClassifierOutput, await live.queue.compute(live.served.queued(examples, deadline)))

    def close(self) -> None:
        """Accept nothing more, and let go of the models."""
        self.live.close()
        if self.guard_classifier is not None:
            self.live_guard.queue.close()

    def deadline(self) -> Deadline:
        """Return the deadline of a request that comes now."""
        return Deadline.after(self.settings.timeout_seconds)

    def _find(self, kind: type[Kind], name: str | None, request: Request) -> LiveModel[Kind]:
        """Return the model that a request means, which it keeps until it is answered. Raises Refusal."""
        live = self.live.find(kind, name)
        request.state.held.enter_context(live.in_use())
        log = _log(request)
        log.model, log.version = live.served.name, live.served.version
        return live

    # --- classifiers

    async def predict(self, body: PredictRequest, request: Request) -> PredictResponse:
        """Give one text or several their labels, or a number."""
        live = self._find(ServedClassifier, body.model, request)
        model = live.served
        most = self.settings.max_inputs
        examples = body.examples(model.pairs)
        if len(examples) > most:
            message = f"the request has {len(examples)} inputs; at most {most} are allowed"
            raise Refusal.invalid(message, "too_many_inputs", "inputs")
        labels = model.classifier.labels
        if body.top_k is not None and body.top_k > len(labels):
            reason = f"there are {len(labels)} labels" if labels else "this model predicts numbers"
            raise Refusal.invalid(f"top_k is {body.top_k}, but {reason}", param="top_k")
        if body.top_k is not None and not model.gives_probabilities:
            raise Refusal.invalid(f"top_k is {body.top_k}, but this model gives no probabilities", param="top_k")
        log = _log(request)
        log.inputs = len(examples)
        log.add_texts([example.text for example in examples])
        deadline = self.deadline()

        async def check_and_predict() -> ClassifierOutput:
            masked = await self.guard.check_examples(examples, log.id)
            output = await self._predict(live, masked, deadline)
            self._observe(live, characters=[len(row.text) + len(row.text_pair or "") for row in masked])
            self._observe(live, **drift_monitor.counted(output.predictions))
            return output

        output = await self._while_connected(request, check_and_predict(), deadline)
        log.add_predictions([prediction.answer for prediction in output.predictions])
        predictions = [
            scored(prediction, labels, body.top_k, cut)
            for prediction, cut in zip(output.predictions, output.cut, strict=True)
        ]
        return PredictResponse(id=log.id, model=model.name, version=model.version, predictions=predictions)

    async def explain(self, body: ExplainRequest, request: Request) -> ExplainResponse:
        """Return what each word of a text adds to the score of its predicted label, or of another label."""
        live = self._find(ServedClassifier, body.model, request)
        model = live.served
        example = body.example(0, model.pairs)
        if model.explainer is None:
            raise Refusal.invalid("this model cannot be explained", "no_explanation", "model")
        if body.label is not None and body.label not in model.classifier.labels:
            raise Refusal.invalid("no such label: see /v1/models", "no_such_label", "label")
        log = _log(request)
        log.inputs = 1
        log.add_texts([example.text])
        deadline = self.deadline()

        async def check_and_explain() -> list[Explanation]:
            (masked,) = await self.guard.check_examples([example], log.id)
            queued = model.queued_explanation(ExplanationRequest(masked, body.label), deadline)
            return cast(list[Explanation], await live.queue.compute(queued))

        explanations = await self._while_connected(request, check_and_explain(), deadline)
        return ExplainResponse(
            id=log.id,
            model=model.name,
            version=model.version,
            text=explanations[0].text,
            text_pair=explanations[0].text_pair,
            explanations=[LabelExplanation.of(explanation) for explanation in explanations],
        )

    # --- generators

    async def chat(self, body: ChatRequest, request: Request) -> Any:
        """Answer a conversation, in one response or as a stream of server-sent events."""
        live = self._find(ServedGenerator, body.model, request)
        messages = [turn.message() for turn in body.messages]
        if messages[-1].role != "user":
            raise Refusal.invalid("the last message must have the role user", param="messages")
        deadline = self.deadline()
        masked = await self._while_connected(request, self.guard.check_messages(messages, _log(request).id), deadline)
        max_tokens = body.max_completion_tokens or body.max_tokens
        return await self._generate(live, body, masked, max_tokens, request, deadline)

    async def complete(self, body: CompletionRequest, request: Request) -> Any:
        """Continue a text, without a template, in one response or as a stream of server-sent events."""
        live = self._find(ServedGenerator, body.model, request)
        deadline = self.deadline()
        (masked,) = await self._while_connected(
            request, self.guard.check_inputs([body.text()], _log(request).id), deadline
        )
        return await self._generate(live, body, masked, body.max_tokens, request, deadline)

    async def _generate(
        self,
        live: LiveModel[ServedGenerator],
        body: ChatRequest | CompletionRequest,
        prompt: Prompt,
        max_tokens: int | None,
        request: Request,
        deadline: Deadline,
    ) -> Any:
        model, queue, log = live.served, live.queue, _log(request)
        most = model.max_completion_tokens
        if max_tokens and most and max_tokens > most:
            raise Refusal.invalid(f"max_tokens is {max_tokens}; at most {most} are allowed", param="max_tokens")
        generation = GenerationRequest(prompt, body.generation(model.settings), body.seed_or_random(), max_tokens)
        log.add_texts([prompt] if isinstance(prompt, str) else [turn.content for turn in prompt])
        queue.submit(queued := model.queued(generation, deadline))
        stream = GenerationStream(queue, queued, StopSequences(body.stop_sequences()), self.guard.output_filter(log.id))
        builder = ResponseBuilder(isinstance(body, ChatRequest), log.id, model.name, model.version)
        if body.stream:
            await self._while_connected(request, stream.start(), deadline)
            usage = bool(body.stream_options and body.stream_options.include_usage)
            events = self._events(stream, builder, usage, live, log)
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)

        async def collect() -> str:
            await stream.start()
            return "".join([piece async for piece in stream.pieces()])

        text = await self._while_connected(request, collect(), deadline)
        self._record_generation(stream, live, log)
        return builder.whole(text, stream.finish, stream.usage)

    async def _events(
        self,
        stream: GenerationStream,
        builder: ResponseBuilder,
        usage: bool,
        live: LiveModel[ServedGenerator],
        log: RequestLog,
    ) -> AsyncIterator[str]:
        """Yield server-sent events. Once the first is sent, an error can only be one more event."""
        pieces, model, first, complete = stream.pieces(), live.served.name, True, False
        try:
            yield _event(builder.chunk(None, usage=usage))
            async for piece in pieces:
                if first:
                    self.metrics.first_token.labels(model).observe(time.monotonic() - stream.queued.created)
                    first = False
                yield _event(builder.chunk(piece, usage=usage))
            yield _event(builder.chunk("", stream.finish, usage))
            if usage:
                yield _event(builder.usage(stream.usage))
            complete = True
            yield "data: [DONE]\n\n"
        except Refusal as refusal:
            complete = True
            self.metrics.refused.labels(refusal.code).inc()
            yield _event(refusal.body(log.id))
        finally:
            await pieces.aclose()
            if not complete:
                self.metrics.disconnected.inc()
            self._record_generation(stream, live, log)

    def _record_generation(self, stream: GenerationStream, live: LiveModel[ServedGenerator], log: RequestLog) -> None:
        model, prompt = live.served.name, stream.queued.content.prompt
        characters = len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
        self._observe(live, characters=[characters], response_tokens=[stream.tokens])
        self.metrics.tokens.labels(model, "prompt").inc(stream.prompt_tokens)
        self.metrics.tokens.labels(model, "completion").inc(stream.tokens)
        log.tokens = f"{stream.prompt_tokens}+{stream.tokens}"
        log.add_texts(["".join(stream.text)])

    # --- both

    async def prompt(self, body: PromptRequest, request: Request) -> PromptResponse:
        """Render the prompt as the model sees it."""
        if (body.messages is None) == (body.input is None):
            raise Refusal.invalid("set either messages or input")
        rendering: Awaitable[str | None]
        if body.messages is not None:
            chat = self._find(ServedGenerator, body.model, request).served
            turns = [Message(turn.role, turn.content) for turn in body.messages]
            name = chat.name
            rendering = asyncio.to_thread(chat.generator.rendered_prompt, turns)
        else:
            model = self._find(ServedClassifier, body.model, request).served
            if not model.prompted or body.input is None:
                raise Refusal.invalid("this model reads the text without a prompt", "no_prompt", "model")
            example = Example("input", body.input.text, body.input.text_pair)
            name = model.name
            rendering = asyncio.to_thread(model.classifier.rendered_prompt, example)
        try:
            return PromptResponse(model=name, prompt=await rendering or "")
        except TunesmithError as error:
            raise Refusal.invalid(str(error), "prompt_refused", "messages") from None

    async def reload(self, request: Request, body: ReloadRequest | None = None) -> ReloadResponse:
        """Load the newest version of every model, or of one, without refusing a request meanwhile."""
        names = [] if body is None or body.model is None else [body.model]
        if not {*self.live}.issuperset(names):
            raise no_such_model()
        reloads = await self.live.reload(names)
        if problems := [f"{each.model}: {each.problem}" for each in reloads if each.problem is not None]:
            raise Refusal(500, "\n".join(["some models were not reloaded:", *problems]), "reload_failed")
        return ReloadResponse(
            id=_log(request).id,
            models=[
                ReloadedModel(model=each.model, version=each.version, previous=each.previous, seconds=each.seconds)
                for each in reloads
            ],
        )

    def _count_reload(self, reload: Reload) -> None:
        self.metrics.reloads.labels(reload.model, "failed" if reload.problem else "loaded").inc()

    def _observe(self, live: LiveModel[Any], **values: Sequence[str | float]) -> None:
        live.drift.observe(**values)
        self.metrics.observe_values(live.served.name, values)

    def drift(self, hours: int) -> DriftResponse:
        """Return how the requests of the last hours differ from the data that the runs were evaluated on."""
        models = [ModelDrift.of(name, self.live[name], hours) for name in self.live]
        return DriftResponse(hours=hours, fewest=drift_monitor.FEWEST, models=models)

    async def _while_connected(self, request: Request, work: Coroutine[Any, Any, Result], deadline: Deadline) -> Result:
        """Return the result of some work, which is cancelled when the client disconnects or the deadline passes."""

        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        tasks = asyncio.ensure_future(deadline.enforce(work)), asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                return tasks[0].result()
            self.metrics.disconnected.inc()
            raise ClientDisconnected
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _log(request: Request) -> RequestLog:
    return cast(RequestLog, request.state.log)


def _event(content: Mapping[str, object]) -> str:
    return f"data: {json.dumps(content)}\n\n"
