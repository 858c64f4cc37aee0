"""A model behind an endpoint that is asked for labels or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.console import say, warn
from tunesmith.data.conversations import transcript
from tunesmith.endpoints.chat_client import EndpointRequest
from tunesmith.prediction import endpoint_file, endpoint_replies
from tunesmith.prediction.endpoint_file import EndpointFile
from tunesmith.prediction.endpoint_model import EndpointModel, EndpointRecord
from tunesmith.prediction.endpoint_prompts import EndpointPrompt
from tunesmith.recipe import Endpoint
from tunesmith.tasks import text_targets
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import HALF, MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import NO_LABEL, Example, MultilabelPrediction, Prediction, ValuePrediction

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
    max_length = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities; none of a number."""
        return self.target.labels

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example, of the target's own type.

        A label has the probabilities that the log-probabilities of the reply's tokens say, or of several samples the
        share that names it; else there are none. A reply that is no label predicts NO_LABEL, one that is no number the
        mean of the training rows, and one that lists no label none; all of them are counted. Several samples are
        predicted as what most of them name, as the labels that at least half of them list, or as the mean of their
        numbers. Raises EndpointError as `EndpointModel.records`.
        """
        if not examples:
            return []
        samples = self.settings.samples
        replies = self.model.records(self.requests(examples))
        by_example = [replies[start : start + samples] for start in range(0, len(replies), samples)]
        if isinstance(self.target, Number):
            return self._numbers(examples, by_example, self.target.mean)
        if isinstance(self.target, MultiLabel):
            return self._label_sets(examples, by_example)
        return self._labels(examples, by_example)

    def requests(self, examples: Sequence[Example], repetition: int = 0) -> list[EndpointRequest]:
        """Return the requests about these examples, `samples` of each. repetition: to ask the same again."""
        return list(self._requests(examples, repetition))

    def answers(self, requests: Sequence[EndpointRequest]) -> list[tuple[str, object]]:
        """Return the text of the reply to each request, and what it is read as: a label, labels, a number, or None."""
        read: Callable[[Any, str], object] = endpoint_replies.label
        if isinstance(self.target, Number):
            read = endpoint_replies.number
        elif isinstance(self.target, MultiLabel):
            read = endpoint_replies.labels
        question = self.prompt.question
        return [(record.text, read(question, record.text)) for record in self.model.records(requests)]

    def count_tokens(self, example: Example) -> int:
        """Return 0: the tokens of an endpoint are not known before it is asked."""
        return 0

    def rendered_prompt(self, example: Example) -> str:
        """Return the conversation that asks about a text, each turn after its role."""
        return transcript(self.prompt.messages(example))

    def save(self, folder: Path) -> None:
        """Write endpoint.json, which has no key."""
        content = EndpointFile(
            settings=self.settings.model_dump(mode="json"),
            seed=self.seed,
            prompt=self.prompt,
            target=text_targets.to_settings(self.target),
        )
        endpoint_file.write(folder, content)

    def _requests(self, examples: Sequence[Example], repetition: int) -> Iterator[EndpointRequest]:
        settings = self.settings
        schema = self.prompt.schema() if settings.structured_output else None
        sampled = settings.samples > 1
        is_label = not isinstance(self.target, MultiLabel | Number)
        for example in examples:
            messages = self.prompt.messages(example)
            for place in range(settings.samples):
                yield self.model.request(
                    messages,
                    self.seed + place,
                    temperature=settings.temperature if sampled else 0.0,
                    schema=schema,
                    logprobs=settings.logprobs and is_label and not sampled,
                    repetition=repetition,
                )

    def _labels(self, examples: Sequence[Example], replies: Sequence[Sequence[EndpointRecord]]) -> list[Prediction]:
        question, labels = self.prompt.question, self.labels
        decides = isinstance(self.target, SingleLabel) and self.target.decision is not None
        named = [[endpoint_replies.label(question, record.text) for record in group] for group in replies]
        self._report([record for group in replies for record in group], [place for group in named for place in group])
        found = [self._probabilities(group, places) for group, places in zip(replies, named, strict=True)]
        known = any(found)
        predictions = []
        lacking = 0
        for example, row, places in zip(examples, found, named, strict=True):
            votes = Counter(place for place in places if place is not None).most_common(1)
            label = labels[votes[0][0]] if votes else NO_LABEL
            if row is None and known:
                lacking += bool(votes)
                row = None if votes else [1 / len(labels)] * len(labels)  # as any model's whose answer is no label
            if row is not None and decides:
                predictions += self.target.predictions([example], np.log(np.maximum([row], TINY)))
            else:
                predictions.append(Prediction(example.id, label, row or ()))
        if lacking:
            warn(f"{lacking:,} of {len(found):,} replies came without usable log-probabilities (endpoint.logprobs)")
        return predictions

    def _probabilities(self, replies: Sequence[EndpointRecord], places: Sequence[int | None]) -> Sequence[float] | None:
        """Return the probability of each label by the replies about a text, which name these; None if unknown."""
        if self.settings.samples == 1:
            return endpoint_replies.probabilities(self.prompt.question, replies[0].text, replies[0].tokens or ())
        votes = [place for place in places if place is not None]
        return [votes.count(k) / len(votes) for k in range(len(self.labels))] if votes else None

    def _label_sets(
        self, examples: Sequence[Example], replies: Sequence[Sequence[EndpointRecord]]
    ) -> list[MultilabelPrediction]:
        question = self.prompt.question
        listed = [[endpoint_replies.labels(question, record.text) for record in group] for group in replies]
        self._report([record for group in replies for record in group], [one for group in listed for one in group])
        if unknown := [name for group in listed for one in group if one for name in one[1]]:
            say(f"note: left out of lists of labels, as they are none: {_shown(unknown)}")
        predictions = []
        for example, group in zip(examples, listed, strict=True):
            votes = Counter(place for one in group if one for place in one[0])
            shares = [votes[k] / len(group) for k in range(len(self.labels))]
            labels = tuple(label for label, share in zip(self.labels, shares, strict=True) if share >= HALF)
            predictions.append(MultilabelPrediction(example.id, labels, shares if len(group) > 1 else ()))
        return predictions

    def _numbers(
        self, examples: Sequence[Example], replies: Sequence[Sequence[EndpointRecord]], default: float
    ) -> list[ValuePrediction]:
        read = [[endpoint_replies.number(self.prompt.question, record.text) for record in group] for group in replies]
        self._report([record for group in replies for record in group], [value for group in read for value in group])
        predictions = []
        for example, group in zip(examples, read, strict=True):
            values = [value for value in group if value is not None]
            predictions.append(ValuePrediction(example.id, sum(values) / len(values) if values else default))
        return predictions

    def _report(self, replies: Sequence[EndpointRecord], read: Sequence[object]) -> None:
        """Say how many replies are no answer."""
        invalid = [record.text for record, answer in zip(replies, read, strict=True) if answer is None]
        if invalid:
            what = {Number: "no number: the mean of train stands in", MultiLabel: "no list of labels"}
            why = what.get(type(self.target), "no label")
            cut = sum(record.truncated for record, answer in zip(replies, read, strict=True) if answer is None)
            more = f"; {cut:,} were cut off (endpoint.max_tokens)" if cut else ""
            refused = Counter(record.failure for record in replies if record.failure)
            more += "".join(f"; {count:,} empty: {failure}" for failure, count in refused.items())
            say(f"note: {len(invalid):,} of {len(replies):,} replies are {why}: {_shown(invalid)}{more}")


def _shown(texts: Sequence[str]) -> str:
    """Return the first few of some texts, shortened."""
    return ", ".join(repr(text[:40]) for text in texts[:3])
