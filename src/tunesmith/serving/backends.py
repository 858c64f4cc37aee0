"""What is served: a classifier or a generator under a name, and what one batch of its requests does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.errors import TunesmithError
from tunesmith.protocols import Classifier, Prompt, TextGenerator
from tunesmith.recipe import Generate
from tunesmith.serving.queue import DeadlineExceeded, QueuedRequest
from tunesmith.serving.refusal import Refusal
from tunesmith.types import Example, Prediction, Response

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

    def job(self, examples: Sequence[Example], deadline: float) -> QueuedRequest:
        """A request for the labels of some texts."""
        sizes = [(len(one.text) + len(one.text_pair or "")) // LETTERS + 2 for one in examples]
        tokens = sum(min(size, self.limit or size) for size in sizes)
        return QueuedRequest(examples, len(examples), tokens, deadline=deadline)

    def run(self, jobs: Sequence[QueuedRequest]) -> None:
        """Label the texts of all jobs at once; a text that is too long fails its own request alone."""
        fit: list[tuple[QueuedRequest, list[bool]]] = []
        for job in jobs:
            try:
                fit.append((job, [self._is_cut(number, one) for number, one in enumerate(job.content)]))
            except Refusal as refusal:
                job.finish(refusal)
        found = iter(self.predictor.predict([example for job, _ in fit for example in job.content]) if fit else [])
        for job, cut in fit:
            job.finish(ClassifierOutput([next(found) for _ in cut], cut))

    def _is_cut(self, number: int, example: Example) -> bool:
        """Whether a text is longer than the model reads. Raises Refusal where it is longer than is accepted."""
        least = min((limit for limit in (self.limit, self.longest) if limit is not None), default=None)
        letters = len(example.text.encode()) + len((example.text_pair or "").encode())
        if self.count is None or least is None or letters + 8 <= least:  # no token is less than a byte
            return False
        tokens = self.count(example)
        if self.longest is not None and tokens > self.longest:
            raise Refusal.invalid(
                f"input {number} has {tokens} tokens, more than {self.longest}", "input_too_long", "inputs"
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

    def job(self, question: GenerationRequest, deadline: float) -> QueuedRequest:
        """A request for an answer. Its first event is the number of the prompt's tokens, the others are pieces."""
        kind: Hashable = question.settings.model_copy(update={"max_new_tokens": 1})
        letters = _letters(question.prompt)
        return QueuedRequest(
            question, tokens=min(letters // LETTERS + 1, self.limit), kind=str(kind), deadline=deadline
        )

    def run(self, jobs: Sequence[QueuedRequest]) -> None:
        """Answer the questions of all jobs at once."""
        asked: list[tuple[QueuedRequest, list[int], int]] = []
        for job in jobs:
            try:
                asked.append((job, *self._encode(job.content)))
            except Refusal as refusal:
                job.finish(refusal)
            except TunesmithError as error:  # such as a template that wants other roles
                job.finish(Refusal.invalid(str(error), "prompt_refused", "messages"))
        asked = [one for one in asked if one[0].tell(len(one[1]))]
        if not asked:
            return

        def heard(row: int, piece: str, response: Response | None) -> bool:
            job = asked[row][0]
            go_on = job.tell(piece) if piece or response is None else True
            if response is not None:
                full = not response.ended and response.tokens >= asked[row][2]
                job.finish(GenerationOutput(response.tokens, "length" if full else "stop"))
            return go_on

        prompts, rooms = [ids for _, ids, _ in asked], [room for *_, room in asked]
        questions: list[GenerationRequest] = [job.content for job, *_ in asked]
        self.writer.write(prompts, rooms, [one.seed for one in questions], questions[0].settings, heard)
        for job, *_ in asked:
            job.finish(DeadlineExceeded())  # of one that ended because its time was over; others have their response

    def _encode(self, question: GenerationRequest) -> tuple[list[int], int]:
        """A prompt's ids, and how many tokens its answer may have. Raises Refusal where there is no room."""
        if _letters(question.prompt) > self.limit * 100:
            raise Refusal.too_long(f"the prompt is longer than {self.limit} tokens")
        ids = self.writer.tokenize(question.prompt)
        longest = min(self.limit - 1, self.longest or self.limit)
        if not 0 < len(ids) <= longest:
            raise Refusal.too_long(f"the prompt has {len(ids)} tokens; 1 to {longest} are accepted")
        left = self.limit - len(ids)
        if question.room is not None and question.room > left:
            raise Refusal.too_long(f"prompt ({len(ids)} tokens) and answer ({question.room}) exceed {self.limit}")
        rooms = (question.room or self.settings.max_new_tokens, left, self.most or left)
        return ids, min(rooms)


Served = ServedClassifier | ServedGenerator


def _letters(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
