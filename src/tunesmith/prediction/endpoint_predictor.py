"""A model behind an endpoint that is asked for labels or numbers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.console import say, warn
from tunesmith.data.conversations import transcript
from tunesmith.data.shots import Shots
from tunesmith.endpoints.chat_client import EndpointRequest
from tunesmith.prediction import endpoint_file, endpoint_replies
from tunesmith.prediction.endpoint_file import EndpointFile
from tunesmith.prediction.endpoint_model import EndpointModel, EndpointRecord, LazyRequests, Requests
from tunesmith.prediction.endpoint_prompts import EndpointPrompt
from tunesmith.recipe import Endpoint
from tunesmith.tasks import text_targets
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import HALF, MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import NO_LABEL, Example, MultilabelPrediction, Prediction, ValuePrediction

SHOWN = 3
"""Invalid replies that are shown."""
Read = tuple[EndpointRecord, Any]
"""A reply, and what it is read as: None where it is no answer."""
TINY = 1e-300
"""In place of a probability of 0, whose logarithm is not finite."""


@dataclass(frozen=True)
class EndpointPredictor:
    """A prompted model: every prediction is a request, or its reply in the journal."""

    model: EndpointModel
    target: Target
    prompt: EndpointPrompt
    settings: Endpoint
    seed: int
    shots: Shots = Shots()
    max_length = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities; none of a number."""
        return self.target.labels

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example, of the target's own type.

        A label has the probabilities that the log-probabilities of the reply's tokens say, or of several samples the
        share that names it; else there are none. A reply that is no label predicts NO_LABEL, one that is no number the
        mean of the training rows, and one that is no list of labels none; all of them are counted. Several samples are
        predicted as what most of them name, as the labels that at least half of them list, or as the mean of their
        numbers. Raises EndpointError as `EndpointModel.records`.
        """
        if not examples:
            return []
        records = self.model.records(self.requests(examples))
        replies, samples = _InvalidReplies(), self.settings.samples
        groups = ([replies.note(next(records), self._read) for _ in range(samples)] for _ in examples)
        if isinstance(self.target, Number):
            predictions: list[Any] = [
                self._number(example, group) for example, group in zip(examples, groups, strict=True)
            ]
            replies.report("no number: the mean of train stands in")
        elif isinstance(self.target, MultiLabel):
            predictions = [self._label_set(example, group) for example, group in zip(examples, groups, strict=True)]
            replies.report("no list of labels")
        else:
            predictions = self._labels(examples, groups)
            replies.report("no label")
        return predictions

    def requests(self, examples: Sequence[Example], repetition: int = 0) -> LazyRequests:
        """Return the requests about these examples, `samples` of each. repetition: to ask the same again."""
        return LazyRequests(len(examples) * self.settings.samples, partial(self._requests, examples, repetition))

    def answers(self, requests: Requests) -> list[tuple[str, object]]:
        """Return the text of the reply to each request, and what it is read as: a label, labels, a number, or None."""
        return [(record.text, self._read(record.text)) for record in self.model.records(requests)]

    def count_tokens(self, example: Example) -> int:
        """Return 0: the tokens of an endpoint are not known before it is asked."""
        return 0

    def rendered_prompt(self, example: Example) -> str:
        """Return the conversation that asks about a text, each turn after its role."""
        return transcript(self.prompt.messages(example, self.shots.of(example)))

    def save(self, folder: Path) -> None:
        """Write endpoint.json, which has no key, and the shots."""
        content = EndpointFile(
            settings=self.settings.model_dump(mode="json"),
            seed=self.seed,
            prompt=self.prompt,
            target=text_targets.to_settings(self.target),
        )
        endpoint_file.write(folder, content)
        self.shots.save(folder)

    def _requests(self, examples: Sequence[Example], repetition: int) -> Iterator[EndpointRequest]:
        settings = self.settings
        schema = self.prompt.schema() if settings.structured_output else None
        sampled = settings.samples > 1
        is_label = not isinstance(self.target, MultiLabel | Number)
        for example in examples:
            messages = self.prompt.messages(example, self.shots.of(example))
            for place in range(settings.samples):
                yield self.model.request(
                    messages,
                    self.seed + place,
                    temperature=settings.temperature if sampled else 0.0,
                    schema=schema,
                    logprobs=settings.logprobs and is_label and not sampled,
                    repetition=repetition,
                )

    def _read(self, text: str) -> Any:
        """Return what a reply is read as; None where it is no answer."""
        if isinstance(self.target, Number):
            return endpoint_replies.number(self.prompt.question, text)
        if isinstance(self.target, MultiLabel):
            return endpoint_replies.labels(self.prompt.question, text)
        return endpoint_replies.label(self.prompt.question, text)

    def _labels(self, examples: Sequence[Example], groups: Iterable[Sequence[Read]]) -> list[Prediction]:
        """Return a prediction for each example, by the replies about it."""
        labels = self.labels
        decides = isinstance(self.target, SingleLabel) and self.target.decision is not None
        found = [(self._vote(group), self._probabilities(group)) for group in groups]
        known = any(row for _, row in found)
        predictions, lacking = [], 0
        for example, (label, row) in zip(examples, found, strict=True):
            if known and not row:
                lacking += label != NO_LABEL
                row = () if label != NO_LABEL else [1 / len(labels)] * len(labels)  # as of any answer that is no label
            if row and decides:
                predictions += self.target.predictions([example], np.log(np.maximum([row], TINY)))
            else:
                predictions.append(Prediction(example.id, label, row))
        if lacking:
            warn(f"{lacking:,} of {len(found):,} replies came without usable log-probabilities (endpoint.logprobs)")
        return predictions

    def _vote(self, group: Sequence[Read]) -> str:
        votes = Counter(place for _, place in group if place is not None).most_common(1)
        return self.labels[votes[0][0]] if votes else NO_LABEL

    def _probabilities(self, group: Sequence[Read]) -> Sequence[float]:
        """Return the probability of each label by the replies about a text; none where they do not tell."""
        if len(group) == 1:
            (record, _), question = group[0], self.prompt.question
            return array("d", endpoint_replies.probabilities(question, record.text, record.tokens or ()) or ())
        votes = [place for _, place in group if place is not None]
        return array("d", [votes.count(k) / len(votes) for k in range(len(self.labels))] if votes else ())

    def _label_set(self, example: Example, group: Sequence[Read]) -> MultilabelPrediction:
        votes = Counter(place for _, places in group for place in places or ())
        shares = [votes[k] / len(group) for k in range(len(self.labels))]
        labels = tuple(label for label, share in zip(self.labels, shares, strict=True) if share >= HALF)
        return MultilabelPrediction(example.id, labels, shares if len(group) > 1 else ())

    def _number(self, example: Example, group: Sequence[Read]) -> ValuePrediction:
        values = [value for _, value in group if value is not None]
        default = self.target.mean if isinstance(self.target, Number) else 0.0
        return ValuePrediction(example.id, sum(values) / len(values) if values else default)


class _InvalidReplies:
    """Counts replies that are no answer, and keeps the first of them."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.number = self.invalid = self.cut = 0
        self.refused: Counter[str] = Counter()

    def note(self, record: EndpointRecord, read: Callable[[str], Any]) -> Read:
        """Return a reply with what it is read as."""
        answer = read(record.text)
        self.number += 1
        if answer is None:
            self.invalid += 1
            self.cut += record.truncated
            if record.failure:
                self.refused[record.failure] += 1
            elif len(self.shown) < SHOWN:
                self.shown.append(repr(record.text[:40]))
        return record, answer

    def report(self, why: str) -> None:
        """Say how many there were."""
        if not self.invalid:
            return
        parts = [f"note: {self.invalid:,} of {self.number:,} replies are {why}"]
        parts[0] += f": {', '.join(self.shown)}" if self.shown else ""
        parts += [f"{self.cut:,} were cut off (endpoint.max_tokens)"] if self.cut else []
        parts += [f"{count:,} empty: {failure}" for failure, count in self.refused.items()]
        say("; ".join(parts))
