"""A generator as a classifier: how likely it finds each label's text behind the question, or what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from tunesmith.console import say, warn
from tunesmith.data import labels as names
from tunesmith.data.prompts import Ids, LabelQuestion
from tunesmith.data.rows import listed
from tunesmith.errors import DataError, ModelError
from tunesmith.prediction import scoring
from tunesmith.prediction.generate import Generator, read_settings, write_settings
from tunesmith.protocols import Logits, ModelParts, PromptWithAnswer
from tunesmith.recipe import Generate, Predict
from tunesmith.types import NO_LABEL, Example, Prediction

Floats = npt.NDArray[np.float64]
CONTENT_FREE = ("N/A", "[MASK]", "...")
"""Texts that say nothing. Not the empty one of the paper: templates leave out the heading of an empty input."""
MORE = 3
"""Tokens that mode `free` may write beyond the longest label."""
ROWS = 16
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

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, by the mode of the recipe.

        `score`: probabilities are a softmax over the labels' log-probabilities, end token included, each divided by
        its number of tokens where `normalize_length` is set. `constrained`: the label is what greedy generation gives
        where only labels can be written, the probabilities are those of drawing so. `free`: what was written has all
        probability; where that is no label, the label is NO_LABEL and all labels are equally likely.
        """
        if not examples:
            return []
        if self.settings.mode == "free":
            return self._read(examples)
        edges_BE = self._edges(examples, "predict")
        if self.settings.mode == "score":
            return names.predictions(examples, self._probabilities(edges_BE, examples), self.labels)
        chosen = self._tree.greedy(edges_BE)
        rows = names.softmax(self._tree.total(self._tree.confined(edges_BE)))
        return [
            Prediction(example.id, self.labels[k], tuple(row))
            for example, k, row in zip(examples, chosen, rows.tolist(), strict=True)
        ]

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt, which leave the longest label its place."""
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
        """T x V for the T tokens of each answer."""
        return self.generator.logits(rows)

    def with_model(self, model: nn.Module) -> LabelClassifier:
        return replace(self, generator=self.generator.with_model(model))

    def save(self, folder: Path) -> None:
        """The generator's files; labels, question and settings are in prompt.json."""
        self.generator.save(folder)
        question = {"labels": self.labels, "texts": self.question.texts, "instruction": self.question.instruction}
        write_settings(folder, {"question": question, "predict": self.settings.model_dump(mode="json")})

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> LabelClassifier:
        """What `save` wrote. Raises ModelError for the folder of a generator that answers instructions."""
        content = read_settings(folder)
        if "question" not in content:
            raise ModelError(f"the generator in {folder} is no classifier", do="use it with task instruction")
        asked = content["question"]
        question = LabelQuestion(tuple(asked["labels"]), tuple(asked["texts"]), asked["instruction"])
        return cls(Generator.load(folder, trust_remote_code), question, Predict(**content["predict"]))

    def check(self) -> None:
        """Before any work: raises ModelError where labels are the same tokens, DataError where no text would fit."""
        length, limit = (
            len(self.generator.tokenize(self.question.ask(Example("shortest", "a")))),
            self.generator.context_length,
        )
        if length > limit - self.max_answer_tokens:
            raise DataError(
                f"the question without a text has {length} tokens, the longest label {self.max_answer_tokens}",
                expected=f"at most {limit} together (model.max_length)",
                do="raise model.max_length, or shorten prompt.instruction",
            )

    @property
    def max_answer_tokens(self) -> int:
        """Tokens that are kept free behind a prompt for the longest label."""
        return max(map(len, self._answers))

    @cached_property
    def _answers(self) -> list[Ids]:
        """Every label's tokens. They do not depend on the text: tried on two."""
        asked = [self.question.ask(example) for example in _content_free()[:2]]
        first, second = (self.generator.chat_encoder.encode_answers(turns, self.question.texts) for turns in asked)
        if first != second:
            raise ModelError(
                "this chat template writes an answer in another way for another question",
                do="choose another prompt.template",
            )
        texts: dict[tuple[int, ...], list[str]] = {}
        for text, ids in zip(self.question.texts, first, strict=True):
            texts.setdefault(tuple(ids), []).append(text)
        if same := [" and ".join(map(repr, alike)) for alike in texts.values() if len(alike) > 1]:
            raise ModelError(
                f"this tokenizer cannot tell the labels {listed(same)} apart",
                do="give them other texts: prompt.label_texts",
            )
        return first

    @cached_property
    def _tree(self) -> scoring.Tree:
        return scoring.Tree.of(self._answers)

    @cached_property
    def _reads_trees(self) -> bool:
        """Whether the model gives its own log-probabilities for a tree; warns once where it does not."""
        long = Example("long", "a " * self.generator.context_length)
        prompts = self._prompts([*_content_free()[:2], long], log=False)
        tried = sorted(self._answers, key=len)
        reason = scoring.disagrees(self.generator.model, prompts, [tried[0], *tried[1:][-2:]])
        if reason:
            warn(f"labels are scored one by one, which is slow: {reason}")
        return reason is None

    @cached_property
    def _biases(self) -> dict[bool, Floats]:
        """What the labels get for texts that say nothing, K: for single texts (False) and for pairs."""
        return {}

    def _bias(self, paired: bool) -> Floats:
        if paired not in self._biases:
            edges_BE = self._edges(_content_free(paired), "calibrate")
            self._biases[paired] = names.softmax(self._scores(edges_BE)).mean(axis=0)
        return self._biases[paired]

    def _edges(self, examples: Sequence[Example], title: str) -> Floats:
        score = scoring.score if self._reads_trees else scoring.score_padded
        return score(self.generator.model, self._prompts(examples), self._tree, self.max_tokens, title)

    def _prompts(self, examples: Sequence[Example], log: bool = True) -> list[Ids]:
        asked = [self.question.ask(example) for example in examples]
        return self.generator.encode(asked, self.max_answer_tokens, log)

    def _scores(self, edges_BE: Floats) -> Floats:
        """Log-probability of each label, B x K; a token's mean of it where length is normalised."""
        lengths_K = np.array([len(ids) for ids in self._answers])
        return self._tree.total(edges_BE) / (lengths_K if self.settings.normalize_length else 1)

    def _probabilities(self, edges_BE: Floats, examples: Sequence[Example]) -> Floats:
        scores_BK = self._scores(edges_BE)
        if not self.settings.calibrate:
            return names.softmax(scores_BK)
        # contextual calibration (Zhao et al. 2021, arXiv:2102.09690) with a diagonal matrix and no bias
        return names.softmax(scores_BK - np.log([self._bias(example.text_pair is not None) for example in examples]))

    def _read(self, examples: Sequence[Example]) -> list[Prediction]:
        """Mode `free`: match what is written to the labels' texts."""
        settings = Generate(max_new_tokens=max(map(len, self._answers)) + MORE, batch_size=ROWS)
        asked = [self.question.ask(example) for example in examples]
        written = self.generator.respond([example.id for example in examples], asked, settings, 0)
        predictions = [self._predicted(response.id, self._matched(response.text)) for response in written]
        if count := count_invalid(predictions):
            pairs = zip(written, predictions, strict=True)
            invalid = [repr(response.text[:40]) for response, prediction in pairs if prediction.label == NO_LABEL]
            say(f"note: {count:,} of {len(predictions):,} answers are no label: {', '.join(invalid[:3])}")
        return predictions

    def _matched(self, text: str) -> int | None:
        """The label whose text this is; capitals count only where texts differ in nothing else."""
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
    """Whether the generator saved in a folder is one that classifies."""
    return "question" in read_settings(folder)


def count_invalid(predictions: Sequence[Prediction]) -> int:
    """Return how many are no label."""
    return sum(prediction.label == NO_LABEL for prediction in predictions)


def _content_free(paired: bool = False) -> list[Example]:
    return [Example(text, text, text if paired else None) for text in CONTENT_FREE]
