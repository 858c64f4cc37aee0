"""The served models: a predictor of labels or numbers, or a generator, under a name, and how each computes a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.errors import TunesmithError
from tunesmith.protocols import AnswerRequest, Prompt, TextGenerator, TextPredictor
from tunesmith.recipe import Generate
from tunesmith.serving.drift_monitor import Quantity
from tunesmith.serving.queue import Deadline, Join, QueuedRequest
from tunesmith.serving.refusal import DeadlineExceeded, Refusal
from tunesmith.types import Example, Explanation, Response

CHARACTERS_PER_TOKEN = 4
"""A rough estimate, only used to fill batches."""


@dataclass(frozen=True, slots=True)
class ClassifierOutput:
    """The result of a request to a classifier."""

    predictions: list[Any]
    """Of the task's own type."""
    cut: list[bool]
    """For each input, whether the model read only the beginning."""


@dataclass(frozen=True, slots=True)
class ExplanationRequest:
    """A text whose prediction is to be explained."""

    example: Example
    label: str | None
    """Whose score is explained; None for the predicted one."""


Explainer = Callable[[Example, str | None, Callable[[], None]], list[Explanation]]
"""Example, label, and what is called before each batch of the model -> the explanation of each explained label."""


@dataclass(frozen=True)
class ServedClassifier:
    """A predictor of labels or numbers under a name."""

    name: str
    classifier: TextPredictor
    pairs: bool = False
    """Whether an input is two texts."""
    max_input_tokens: int | None = None
    """Longer inputs are refused; None accepts all, and the model reads their beginning."""
    prompted: bool = False
    """Whether the model is asked for the label by a prompt."""
    created: int = 0
    explainer: Explainer | None = None
    task: str = "classification"
    thresholds: dict[str, float] | None = None
    """Of several labels for a text: the probability from which each is predicted."""
    gives_probabilities: bool = True
    """Whether predicted labels have probabilities."""
    version: str = ""
    """Of the run, as `Run.version` has it."""
    run_name: str = ""
    """The run's folder."""
    quantities: tuple[Quantity, ...] = ()
    """What drift is measured against."""
    max_rows: int = field(default=10**9, init=False)

    @property
    def max_length(self) -> int | None:
        """Most tokens that the model reads."""
        return self.classifier.max_length

    def queued(self, examples: Sequence[Example], deadline: Deadline) -> QueuedRequest:
        """Return a request for the predictions of some texts."""
        sizes = [(len(row.text) + len(row.text_pair or "")) // CHARACTERS_PER_TOKEN + 2 for row in examples]
        tokens = sum(min(size, self.max_length or size) for size in sizes)
        return QueuedRequest(examples, len(examples), tokens, deadline=deadline)

    def queued_explanation(self, request: ExplanationRequest, deadline: Deadline) -> QueuedRequest:
        """Return a request for an explanation, which takes about a prediction for each word."""
        size = (len(request.example.text) + len(request.example.text_pair or "")) // CHARACTERS_PER_TOKEN + 2
        return QueuedRequest(request, tokens=size * min(size, self.max_length or size), deadline=deadline)

    def run(self, batch: Sequence[QueuedRequest], join: Join) -> None:
        """Predict the texts of all requests at once; a text that is too long only fails its own request.

        Explanations come last, one by one.
        """
        self._predict([request for request in batch if not isinstance(request.content, ExplanationRequest)])
        for request in batch:
            if isinstance(request.content, ExplanationRequest):
                self._explain(request, request.content)

    def _explain(self, request: QueuedRequest, content: ExplanationRequest) -> None:
        def check() -> None:
            if request.cancelled or request.deadline.passed:
                raise DeadlineExceeded

        assert self.explainer is not None
        try:
            self._is_cut(0, content.example)
            request.finish(self.explainer(content.example, content.label, check))
        except Refusal as refusal:
            request.finish(refusal)

    def _predict(self, batch: Sequence[QueuedRequest]) -> None:
        accepted: list[tuple[QueuedRequest, list[bool]]] = []
        for request in batch:
            try:
                cut = [self._is_cut(number, example) for number, example in enumerate(request.content)]
                accepted.append((request, cut))
            except Refusal as refusal:
                request.finish(refusal)
        if not accepted:
            return
        predictions = iter(self.classifier.predict([row for request, _ in accepted for row in request.content]))
        for request, cut in accepted:
            request.finish(ClassifierOutput([next(predictions) for _ in cut], cut))

    def _is_cut(self, number: int, example: Example) -> bool:
        """Return whether a text is longer than the model reads. Raises Refusal where it is longer than is accepted."""
        if self.max_length is None:
            return False
        size = len(example.text.encode()) + len((example.text_pair or "").encode())
        if size + 8 <= min(self.max_length, self.max_input_tokens or self.max_length):  # a token has at least one byte
            return False
        tokens = self.classifier.count_tokens(example)
        if self.max_input_tokens is not None and tokens > self.max_input_tokens:
            message = f"input {number} has {tokens} tokens; at most {self.max_input_tokens} are accepted"
            raise Refusal.invalid(message, "input_too_long", "inputs")
        return tokens > self.max_length


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a generator is to answer."""

    prompt: Prompt
    settings: Generate
    seed: int
    max_tokens: int | None
    """Most tokens of the answer that the client asked for; None for the run's own setting."""


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """How an answer ended, after all of its pieces."""

    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class ServedGenerator:
    """A text generator under a name."""

    name: str
    generator: TextGenerator
    settings: Generate
    """Used where a request does not say otherwise."""
    max_input_tokens: int | None = None
    """Longer prompts are refused."""
    max_completion_tokens: int | None = None
    """Most tokens that a request may ask for."""
    created: int = 0
    version: str = ""
    run_name: str = ""
    quantities: tuple[Quantity, ...] = ()
    task: str = field(default="instruction", init=False)

    @property
    def max_rows(self) -> int:
        """Most answers that are generated at once."""
        return self.settings.batch_size

    @property
    def max_length(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.generator.context_length

    def queued(self, generation: GenerationRequest, deadline: Deadline) -> QueuedRequest:
        """Return a request for an answer. Its first event is the number of prompt tokens, the others are pieces."""
        tokens = min(_characters(generation.prompt) // CHARACTERS_PER_TOKEN + 1, self.max_length)
        return QueuedRequest(generation, tokens=tokens, deadline=deadline)

    def run(self, batch: Sequence[QueuedRequest], join: Join) -> None:
        """Generate the answers to all requests; those that come meanwhile join between two tokens."""
        waiting = deque(batch)

        def take(free: int) -> list[AnswerRequest]:
            waiting.extend(join(free - len(waiting)) if free > len(waiting) else ())
            requests = [self._accept(waiting.popleft()) for _ in range(min(free, len(waiting)))]
            return [request for request in requests if request is not None]

        while waiting:
            self.generator.write(take, self.max_rows)

    def _accept(self, queued: QueuedRequest) -> AnswerRequest | None:
        """Return what the generator is to answer; None for a request that is refused, or not wanted any more."""
        generation: GenerationRequest = queued.content
        try:
            prompt, max_tokens = self._encode(generation)
        except Refusal as refusal:
            queued.finish(refusal)
            return None
        except TunesmithError as error:  # such as a template that expects other roles
            queued.finish(Refusal.invalid(str(error), "prompt_refused", "messages"))
            return None

        def on_token(piece: str, response: Response | None) -> bool:
            wanted = queued.add(piece) if piece or response is None else True
            if response is not None:
                full = not response.ended and response.tokens >= max_tokens
                queued.finish(GenerationOutput(response.tokens, "length" if full else "stop"))
            elif not wanted:
                queued.finish(DeadlineExceeded())
            return wanted

        if not queued.add(len(prompt)):
            queued.finish(DeadlineExceeded())
            return None
        return AnswerRequest(prompt, max_tokens, generation.seed, generation.settings, on_token)

    def _encode(self, generation: GenerationRequest) -> tuple[list[int], int]:
        """Return a prompt's ids, and how many tokens its answer may have. Raises Refusal where that does not fit."""
        context, own, asked = self.max_length, self.settings.max_new_tokens, generation.max_tokens
        if _characters(generation.prompt) > context * 100:
            raise Refusal.too_long(f"the prompt is longer than {context} tokens")
        ids = self.generator.tokenize(generation.prompt)
        longest = min(context - 1, self.max_input_tokens or context)
        if not 0 < len(ids) <= longest:
            raise Refusal.too_long(f"the prompt has {len(ids)} tokens; 1 to {longest} are accepted")
        free = context - len(ids)
        if asked is not None and asked > free:
            raise Refusal.too_long(f"prompt ({len(ids)} tokens) and answer ({asked}) exceed the context of {context}")
        return ids, min(asked or own, free, self.max_completion_tokens or free)


Served = ServedClassifier | ServedGenerator


def _characters(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
