"""What is served: a classifier or a generator under a name, and what one batch of its requests does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.errors import TunesmithError
from tunesmith.protocols import Classifier, Prompt, TextGenerator
from tunesmith.recipe import Generate
from tunesmith.serving.queue import Deadline, QueuedRequest
from tunesmith.serving.refusal import DeadlineExceeded, Refusal
from tunesmith.types import Example, Message, Prediction, Predictor, Response

LETTERS = 4
"""Of a token, roughly; only to fill batches by."""


@dataclass(frozen=True)
class ClassifierOutput:
    """The result of a request to a classifier."""

    predictions: list[Prediction]
    cut: list[bool]
    """Whether the model read only the beginning, for each input."""


@dataclass(frozen=True)
class ServedClassifier:
    """A predictor under a name."""

    name: str
    predictor: Classifier
    pairs: bool = False
    """Whether an input is two texts."""
    count: Callable[[Example], int] | None = None
    """Tokens of an input, uncut; None where length does not matter, as for a bag of words."""
    limit: int | None = None
    """Most tokens that the model reads."""
    longest: int | None = None
    """Most tokens that are accepted."""
    opening: Callable[[Example], str] | None = None
    """The prompt as the model sees it, where it is a generator that classifies."""
    created: int = 0
    task: str = field(default="classification", init=False)
    rows: int = field(default=10**9, init=False)

    def queued(self, examples: Sequence[Example], deadline: Deadline) -> QueuedRequest:
        """Return a request for the labels of some texts."""
        sizes = [(len(row.text) + len(row.text_pair or "")) // LETTERS + 2 for row in examples]
        tokens = sum(min(size, self.limit or size) for size in sizes)
        return QueuedRequest(examples, len(examples), tokens, deadline=deadline)

    def run(self, batch: Sequence[QueuedRequest]) -> None:
        """Classify the texts of all requests at once; a text that is too long only fails its own request."""
        accepted: list[tuple[QueuedRequest, list[bool]]] = []
        for request in batch:
            try:
                cut = [self._is_cut(number, example) for number, example in enumerate(request.content)]
                accepted.append((request, cut))
            except Refusal as refusal:
                request.finish(refusal)
        if not accepted:
            return
        predictions = iter(self.predictor.predict([row for request, _ in accepted for row in request.content]))
        for request, cut in accepted:
            request.finish(ClassifierOutput([next(predictions) for _ in cut], cut))

    def _is_cut(self, number: int, example: Example) -> bool:
        """Return whether a text is longer than the model reads. Raises Refusal where it is longer than is accepted."""
        least = min((limit for limit in (self.limit, self.longest) if limit is not None), default=None)
        size = len(example.text.encode()) + len((example.text_pair or "").encode())
        if self.count is None or least is None or size + 8 <= least:  # a token has at least one byte
            return False
        tokens = self.count(example)
        if self.longest is not None and tokens > self.longest:
            raise Refusal.invalid(
                f"input {number} has {tokens} tokens; at most {self.longest} are accepted", "input_too_long", "inputs"
            )
        return self.limit is not None and tokens > self.limit


@dataclass(frozen=True)
class GenerationRequest:
    """What a generator is to answer."""

    prompt: Prompt
    settings: Generate
    seed: int
    room: int | None
    """Most tokens of the answer that the request asks for; None for what settings and model allow."""


@dataclass(frozen=True)
class GenerationOutput:
    """How an answer ended; its text was told in pieces."""

    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class ServedGenerator:
    """A generator under a name."""

    name: str
    writer: TextGenerator
    settings: Generate
    """How it answers where a request does not say."""
    longest: int | None = None
    """Most tokens of a prompt that are accepted."""
    most: int | None = None
    """Most tokens that a request may ask for."""
    created: int = 0
    task: str = field(default="instruction", init=False)

    @property
    def rows(self) -> int:
        """Most answers that are written at once."""
        return self.settings.batch_size

    @property
    def limit(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.writer.context_length

    def queued(self, generation: GenerationRequest, deadline: Deadline) -> QueuedRequest:
        """Return a request for an answer. Its first event is the number of prompt tokens, the others are pieces."""
        key: Hashable = generation.settings.model_copy(update={"max_new_tokens": 1})
        tokens = min(_characters(generation.prompt) // LETTERS + 1, self.limit)
        return QueuedRequest(generation, tokens=tokens, batch_key=str(key), deadline=deadline)

    def run(self, batch: Sequence[QueuedRequest]) -> None:
        """Generate the answers to all requests at once."""
        accepted: list[tuple[QueuedRequest, list[int], int]] = []
        for request in batch:
            try:
                accepted.append((request, *self._encode(request.content)))
            except Refusal as refusal:
                request.finish(refusal)
            except TunesmithError as error:  # such as a template that expects other roles
                request.finish(Refusal.invalid(str(error), "prompt_refused", "messages"))
        accepted = [row for row in accepted if row[0].add(len(row[1]))]
        if not accepted:
            return

        def on_token(row: int, piece: str, response: Response | None) -> bool:
            request, _, max_tokens = accepted[row]
            wanted = request.add(piece) if piece or response is None else True
            if response is not None:
                full = not response.ended and response.tokens >= max_tokens
                request.finish(GenerationOutput(response.tokens, "length" if full else "stop"))
            return wanted

        prompts, rooms = [ids for _, ids, _ in accepted], [room for *_, room in accepted]
        contents: list[GenerationRequest] = [request.content for request, *_ in accepted]
        self.writer.write(prompts, rooms, [content.seed for content in contents], contents[0].settings, on_token)
        for request, *_ in accepted:
            request.finish(DeadlineExceeded())  # of one that was stopped because it is late; others have their response

    def _encode(self, generation: GenerationRequest) -> tuple[list[int], int]:
        """Return a prompt's ids, and how many tokens its answer may have. Raises Refusal where that does not fit."""
        if _characters(generation.prompt) > self.limit * 100:
            raise Refusal.too_long(f"the prompt is longer than {self.limit} tokens")
        ids = self.writer.tokens(generation.prompt)
        longest = min(self.limit - 1, self.longest or self.limit)
        if not 0 < len(ids) <= longest:
            raise Refusal.too_long(f"the prompt has {len(ids)} tokens; 1 to {longest} are accepted")
        left, asked = self.limit - len(ids), generation.room
        if asked is not None and asked > left:
            raise Refusal.too_long(
                f"prompt ({len(ids)} tokens) and answer ({asked}) exceed the context of {self.limit} tokens"
            )
        return ids, min(asked or self.settings.max_new_tokens, left, self.most or left)


Served = ServedClassifier | ServedGenerator


def _characters(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
