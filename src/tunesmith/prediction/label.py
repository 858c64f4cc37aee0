"""A generator as a classifier: by the probability of each label's text as the answer, or by the answer it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from tunesmith.console import say, warn
from tunesmith.data.prompts import Ids, LabelQuestion
from tunesmith.data.rows import listed
from tunesmith.errors import DataError, ModelError
from tunesmith.prediction import scoring
from tunesmith.prediction.generate import Generator, read_settings, write_settings
from tunesmith.protocols import Logits, ModelParts, PromptWithAnswer
from tunesmith.recipe import Generate, Predict
from tunesmith.tasks import classification
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import NO_LABEL, Example, Prediction

Floats = npt.NDArray[np.float64]
CONTENT_FREE = ("N/A", "[MASK]", "...")
"""Texts without content, for calibration. Not the paper's empty text: templates omit the heading of an empty input."""
SLACK = 3
"""Tokens that mode `free` may write beyond the longest label."""
BATCH_SIZE = 16
"""Prompts that mode `free` answers at once."""


@dataclass(frozen=True)
class LabelClassifier:
    """A causal language model that is asked for the label."""

    generator: Generator
    question: LabelQuestion
    settings: Predict
    max_tokens: int | str = "auto"
    """Tokens in memory at once."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities."""
        return self.question.labels

    @property
    def target(self) -> SingleLabel:
        return SingleLabel(self.labels)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, by the mode of the recipe.

        `score`: probabilities are a softmax over the labels' log-probabilities, end token included, each divided by
        its number of tokens if `normalize_length` is set. `constrained`: the label is that of greedy generation
        restricted to labels, the probabilities those of sampling so. `free`: the generated label has probability 1; if
        the answer is not a label, the prediction is NO_LABEL and all labels are equally likely.
        """
        if not examples:
            return []
        if self.settings.mode == "free":
            return self._read(examples)
        edges_BE = self._edges(examples, "predict")
        if self.settings.mode == "score":
            return classification.predictions(examples, self._probabilities(edges_BE, examples), self.labels)
        chosen = self._tree.greedy(edges_BE)
        rows = classification.softmax(self._tree.total(self._tree.constrained(edges_BE)))
        predictions = classification.predictions(examples, rows, self.labels)
        return [replace(row, label=self.labels[k]) for row, k in zip(predictions, chosen, strict=True)]

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt, with room for the longest label."""
        return self.generator.context_length - self.max_answer_tokens

    def count_tokens(self, example: Example) -> int:
        """Number of tokens of the whole prompt before cutting."""
        return len(self.generator.tokenize(self.question.ask(example)))

    def rendered_prompt(self, example: Example) -> str:
        """The question about a text in the chat template."""
        return self.generator.rendered_prompt(self.question.ask(example))

    def parts(self) -> ModelParts:
        parts = self.generator.parts()
        return replace(parts, chat=replace(parts.chat, question=self.question)) if parts.chat else parts

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[PromptWithAnswer]:
        return [self.generator.answer_greedily(self.question.ask(example), settings) for example in examples]

    def logits(self, rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        """Return T x V for the T tokens of each answer."""
        return self.generator.logits(rows)

    def with_model(self, model: nn.Module) -> LabelClassifier:
        return replace(self, generator=self.generator.with_model(model))

    def save(self, folder: Path) -> None:
        """Write the generator's files; labels, question and settings are in prompt.json."""
        self.generator.save(folder)
        write_settings(folder, replace(read_settings(folder), question=self.question, predict=self.settings))

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> LabelClassifier:
        """Load what `save` wrote. Raises ModelError for the folder of a generator that answers instructions."""
        settings = read_settings(folder)
        if settings.question is None or settings.predict is None:
            raise ModelError(f"the generator in {folder} is no classifier", do="use it with task instruction")
        return cls(Generator.load(folder, trust_remote_code), settings.question, settings.predict)

    def check(self) -> None:
        """Raise ModelError if two labels are the same tokens, and DataError if no text fits beside the question."""
        length = len(self.generator.tokenize(self.question.ask(Example("shortest", "a"))))
        limit = self.generator.context_length
        if length > limit - self.max_answer_tokens:
            raise DataError(
                "the question leaves no room for a text",
                expected=f"at most {limit} tokens for question and label (model.max_length)",
                found=f"{length} tokens without a text, {self.max_answer_tokens} of the longest label",
                do="raise model.max_length, or shorten prompt.instruction",
            )

    @property
    def max_answer_tokens(self) -> int:
        """Tokens reserved after a prompt for the longest label."""
        return max(map(len, self._answers))

    @cached_property
    def _answers(self) -> list[Ids]:
        """The tokens of every label, which do not depend on the text; this is checked with two texts."""
        asked = [self.question.ask(example) for example in _content_free()[:2]]
        first, second = (self.generator.chat_encoder.encode_answers(turns, self.question.texts) for turns in asked)
        if first != second:
            raise ModelError(
                "this chat template renders the same answer differently after different questions",
                do="choose another prompt.template",
            )
        texts: dict[tuple[int, ...], list[str]] = {}
        for text, ids in zip(self.question.texts, first, strict=True):
            texts.setdefault(tuple(ids), []).append(text)
        if same := [" and ".join(map(repr, alike)) for alike in texts.values() if len(alike) > 1]:
            raise ModelError(
                f"this tokenizer cannot tell the labels {listed(same)} apart",
                do="give them different texts: prompt.label_texts",
            )
        return first

    @cached_property
    def _tree(self) -> scoring.Tree:
        return scoring.Tree.of(self._answers)

    @cached_property
    def _reads_trees(self) -> bool:
        """Whether the model gives its own log-probabilities for a tree; warns once if it does not."""
        long = Example("long", "a " * self.generator.context_length)
        prompts = self._prompts([*_content_free()[:2], long], log=False)
        tried = sorted(self._answers, key=len)
        reason = scoring.disagrees(self.generator.model, prompts, [tried[0], *tried[1:][-2:]])
        if reason:
            warn(f"labels are scored one by one, which is slow: {reason}")
        return reason is None

    @cached_property
    def _priors(self) -> dict[bool, Floats]:
        """Probabilities of the labels for texts without content, K: of pairs (True) and of single texts."""
        return {}

    def _prior(self, paired: bool) -> Floats:
        if paired not in self._priors:
            edges_BE = self._edges(_content_free(paired), "calibrate")
            self._priors[paired] = classification.softmax(self._scores(edges_BE)).mean(axis=0)
        return self._priors[paired]

    def _edges(self, examples: Sequence[Example], title: str) -> Floats:
        score = scoring.score if self._reads_trees else scoring.score_padded
        return score(self.generator.model, self._prompts(examples), self._tree, self.max_tokens, title)

    def _prompts(self, examples: Sequence[Example], log: bool = True) -> list[Ids]:
        asked = [self.question.ask(example) for example in examples]
        return self.generator.encode(asked, self.max_answer_tokens, log)

    def _scores(self, edges_BE: Floats) -> Floats:
        """Return the log-probability of each label, B x K; its mean over the tokens if length is normalised."""
        lengths_K = np.array([len(ids) for ids in self._answers])
        return self._tree.total(edges_BE) / (lengths_K if self.settings.normalize_length else 1)

    def _probabilities(self, edges_BE: Floats, examples: Sequence[Example]) -> Floats:
        scores_BK = self._scores(edges_BE)
        if not self.settings.calibrate:
            return classification.softmax(scores_BK)
        # contextual calibration (Zhao et al. 2021, arXiv:2102.09690) with a diagonal matrix and no bias
        return classification.softmax(
            scores_BK - np.log([self._prior(example.text_pair is not None) for example in examples])
        )

    def _read(self, examples: Sequence[Example]) -> list[Prediction]:
        """Predict in mode `free`: generate answers, and match them to the labels' texts."""
        settings = Generate(max_new_tokens=self.max_answer_tokens + SLACK, batch_size=BATCH_SIZE)
        asked = [self.question.ask(example) for example in examples]
        written = self.generator.respond([example.id for example in examples], asked, settings, 0)
        predictions = [self._predicted(response.id, self._matched(response.text)) for response in written]
        if count := count_invalid(predictions):
            pairs = zip(written, predictions, strict=True)
            invalid = [repr(response.text[:40]) for response, prediction in pairs if prediction.label == NO_LABEL]
            say(f"note: {count:,} of {len(predictions):,} answers are no label: {', '.join(invalid[:3])}")
        return predictions

    def _matched(self, text: str) -> int | None:
        """Return the label with this text; case matters only if two texts differ in nothing else."""
        folded = [label_text.casefold() for label_text in self.question.texts]
        text = text.strip()
        if text in self.question.texts:
            return self.question.texts.index(text)
        return folded.index(text.casefold()) if folded.count(text.casefold()) == 1 else None

    def _predicted(self, name: str, label: int | None) -> Prediction:
        count = len(self.labels)
        if label is None:
            return Prediction(name, NO_LABEL, (1 / count,) * count)
        return Prediction(name, self.labels[label], tuple(float(k == label) for k in range(count)))


def asks_for_labels(folder: Path) -> bool:
    """Return whether the generator saved in a folder is a classifier."""
    return read_settings(folder).question is not None


def count_invalid(predictions: Sequence[Prediction]) -> int:
    """Return how many predictions are not a label."""
    return sum(prediction.label == NO_LABEL for prediction in predictions)


def _content_free(paired: bool = False) -> list[Example]:
    return [Example(text, text, text if paired else None) for text in CONTENT_FREE]
