"""A generator that predicts labels or numbers: by the probabilities of the answers, or by the answer that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tunesmith.console import say, silence, warn
from tunesmith.data import label_questions, shots as stored_shots
from tunesmith.data.label_questions import NONE, LabelQuestion
from tunesmith.data.prompts import Ids
from tunesmith.data.rows import listed
from tunesmith.data.shots import Shots
from tunesmith.errors import ModelError
from tunesmith.prediction import classify, scoring
from tunesmith.prediction.generate import Generator, read_settings, write_settings
from tunesmith.protocols import Logits, ModelParts, PromptWithAnswer
from tunesmith.recipe import Generate, Predict
from tunesmith.tasks import classification, text_targets
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import NO_LABEL, Example, Message, MultilabelPrediction, Prediction

Floats = npt.NDArray[np.float64]
CONTENT_FREE = ("N/A", "[MASK]", "...")
"""Texts without content, for calibration. Not the paper's empty text: templates omit the heading of an empty input."""
SLACK = 3
"""Tokens that mode `free` may write beyond the longest answer."""
BATCH_SIZE = 16
"""Prompts that mode `free` answers at once."""


@dataclass(frozen=True)
class LabelClassifier:
    """A causal language model that is asked for the label, the labels or the number of a text."""

    generator: Generator
    target: Target
    question: LabelQuestion
    settings: Predict
    max_tokens: int | str = "auto"
    """Tokens in memory at once."""
    shots: Shots = Shots()
    """Training rows that the prompts show with their answers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities; none of a number."""
        return self.target.labels

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example, of the target's own type, by the mode of the recipe.

        `score`: probabilities are a softmax over the answers' log-probabilities, end token included, those of labels
        each divided by its number of tokens if `normalize_length` is set; a number is the expected one. Of several
        labels, each has the probability of `yes` against `no`. `constrained`: the label is that of greedy generation
        restricted to labels, the probabilities those of sampling so. `free`: the labels are those that are generated,
        without probabilities; if an answer is not a label, the prediction is NO_LABEL; in a list, what is no label is
        left out.
        """
        if not examples:
            return []
        if self.settings.mode == "free":
            return self._read(examples)
        edges_BE = self._edges(examples, "predict")
        if self.settings.mode == "score":
            return self.target.predictions(examples, self._logits(edges_BE, examples))
        chosen = self._tree.greedy(edges_BE)
        predictions = self.target.predictions(examples, self._tree.total(self._tree.constrained(edges_BE)))
        return [replace(row, label=self.labels[k]) for row, k in zip(predictions, chosen, strict=True)]

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt, with room for the longest label."""
        return self.generator.context_length - self.max_answer_tokens

    def count_tokens(self, example: Example) -> int:
        """Number of tokens of the prompt before cutting, without shots, which make way for a long text."""
        return len(self.generator.tokenize(self.question.ask(example)))

    def rendered_prompt(self, example: Example) -> str:
        """The question about a text in the chat template, after its shots."""
        return self.generator.rendered_prompt(self._ask([example], self.max_answer_tokens)[0])

    def parts(self) -> ModelParts:
        parts = self.generator.parts()
        chat = parts.chat and replace(parts.chat, question=self.question, shots=self.shots)
        return replace(parts, chat=chat)

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[PromptWithAnswer]:
        asked = self._ask(examples, self.generator.max_answer_tokens(settings))
        return [self.generator.answer_greedily(conversation, settings) for conversation in asked]

    def logits(self, rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        """Return T x V for the T tokens of each answer."""
        return self.generator.logits(rows)

    def with_model(self, model: nn.Module) -> LabelClassifier:
        return replace(self, generator=self.generator.with_model(model))

    def save(self, folder: Path) -> None:
        """Write the generator's files, with target, question and settings in prompt.json; and the shots."""
        self.generator.save(folder)
        self.shots.save(folder)
        target = text_targets.to_settings(self.target)
        settings = replace(read_settings(folder), question=self.question, predict=self.settings, target=target)
        write_settings(folder, settings)

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> LabelClassifier:
        """Load what `save` wrote. Raises ModelError for the folder of a generator that answers instructions."""
        settings = read_settings(folder)
        if settings.question is None or settings.predict is None:
            raise ModelError(f"the generator in {folder} is no classifier", do="use it with task instruction")
        target: Target = SingleLabel(settings.question.labels)  # the only one of earlier versions
        if settings.target is not None:
            target = text_targets.of_settings(settings.target)
        generator, shots = Generator.load(folder, trust_remote_code), stored_shots.load(folder, classify.embedder)
        return cls(generator, target, settings.question, settings.predict, shots=shots)

    def check(self) -> None:
        """Raise ModelError if two answers are the same tokens, and DataError if no text fits beside the question."""
        chat_encoder, limit = self.generator.chat_encoder, self.generator.context_length
        label_questions.check_room(self.question, self.shots, chat_encoder, limit, self.max_answer_tokens)

    @property
    def max_answer_tokens(self) -> int:
        """Tokens reserved after a prompt for the longest answer."""
        return max(map(len, self._answers))

    @cached_property
    def _answers(self) -> list[Ids]:
        """The tokens of every answer, which do not depend on the text; this is checked with two texts."""
        first, second = (
            self.question.answer_ids(self.generator.chat_encoder, example) for example in _content_free()[:2]
        )
        if first != second:
            raise ModelError(
                "this chat template renders the same answer differently after different questions",
                do="choose another prompt.template",
            )
        texts: dict[tuple[int, ...], list[str]] = {}
        for text, ids in zip(self.question.answers, first, strict=True):
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
        with silence():
            prompts = self._prompts([*_content_free()[:2], long])
        tried = sorted(self._answers, key=len)
        answers = [tried[0], *tried[1:][-2:]]
        reason = scoring.disagrees(self.generator.model, prompts, answers, self._opening_ids)
        if reason:
            warn(f"labels are scored one by one, which is slow: {reason}")
        return reason is None

    @cached_property
    def _priors(self) -> dict[bool, Floats]:
        """Probabilities of the answers for texts without content, G x A: of pairs (True) and of single texts."""
        return {}

    def _prior(self, paired: bool) -> Floats:
        if paired not in self._priors:
            edges_BE = self._edges(_content_free(paired), "calibrate")
            self._priors[paired] = _softmax(self._scores(edges_BE)).mean(axis=0)
        return self._priors[paired]

    def _edges(self, examples: Sequence[Example], title: str) -> Floats:
        model, prompts = self.generator.model, self._prompts(examples)
        if self._reads_trees:
            return scoring.score(model, prompts, self._tree, self.max_tokens, title, self._opening)
        return scoring.score_padded(model, prompts, self._tree, self.max_tokens, title)

    @cached_property
    def _opening(self) -> scoring.Prefix:
        """The shots that are the same for every text: computed once, for all predictions."""
        return scoring.Prefix.of(self.generator.model, self._opening_ids)

    @property
    def _opening_ids(self) -> Ids:
        """What prompts begin with, up to the end of the last answer to a shot."""
        if self.shots.similar is not None or not self.shots.rows:
            return []
        asked = (self.question.ask(example, self.shots.rows) for example in _content_free())
        first, *others = self.generator.chat_encoder.encode_prompts([*asked])
        common = next((i for i, ids in enumerate(zip(first, *others, strict=False)) if len(set(ids)) > 1), 0)
        ends = [i for i, token in enumerate(first[:common], 1) if token in self.generator.chat_encoder.end_ids]
        return first[: ends[-1]] if ends else []

    def _prompts(self, examples: Sequence[Example]) -> list[Ids]:
        return self.generator.encode(self._ask(examples, self.max_answer_tokens), self.max_answer_tokens)

    def _ask(self, examples: Sequence[Example], answer_tokens: int) -> list[list[Message]]:
        """Return what is asked about each text, with the shots that fit beside it and an answer."""
        limit, chat_encoder = self.generator.context_length - answer_tokens, self.generator.chat_encoder
        asked, notes = label_questions.ask_within(self.question, examples, self.shots, chat_encoder, limit)
        for fewer in notes:
            warn(f"{fewer.count:,} of {len(examples):,} texts are {fewer.what}: {listed(fewer.where)}")
        return asked

    def _scores(self, edges_BE: Floats) -> Floats:
        """Return the log-probabilities of the A answers that exclude each other, for each of G questions, B x G x A.

        If length is normalised, that of a label is the mean over its tokens. Yes and no begin alike, with the label,
        whose probability does not count: it is the same for both.
        """
        scores_BK = self._tree.total(edges_BE)
        if self.question.form == "label" and self.settings.normalize_length:
            scores_BK = scores_BK / np.array([len(ids) for ids in self._answers])
        return scores_BK.reshape(len(scores_BK), -1, 2 if self.question.form == "each" else len(self._answers))

    def _logits(self, edges_BE: Floats, examples: Sequence[Example]) -> Floats:
        """Return the outputs that the target reads, B x K."""
        scores_BGA = self._scores(edges_BE)
        if self.settings.calibrate:
            # contextual calibration (Zhao et al. 2021, arXiv:2102.09690) with a diagonal matrix and no bias
            scores_BGA = scores_BGA - np.log([self._prior(example.text_pair is not None) for example in examples])
        if isinstance(self.target, MultiLabel):
            return np.asarray(scores_BGA[..., 0] - scores_BGA[..., 1])
        if isinstance(self.target, Number):
            values_A = np.array(self.question.labels, dtype=np.float64)
            return (_softmax(scores_BGA) @ values_A - self.target.mean) / self.target.scale
        return scores_BGA[:, 0]

    def _read(self, examples: Sequence[Example]) -> list[Any]:
        """Predict in mode `free`: generate answers, and match them to the labels' texts."""
        settings = Generate(max_new_tokens=self.max_answer_tokens + SLACK, batch_size=BATCH_SIZE)
        asked = self._ask(examples, self.generator.max_answer_tokens(settings))
        written = self.generator.respond([example.id for example in examples], asked, settings, 0)
        lists = self.question.form == "list"
        read = [(self._listed if lists else self._named)(response.id, response.text) for response in written]
        if invalid := [unknown for _, unknown in read if unknown]:
            what = "have something else than labels" if lists else "are no label"
            shown = [repr(text[:40]) for unknown in invalid for text in unknown]
            say(f"note: {len(invalid):,} of {len(read):,} answers {what}: {', '.join(shown[:3])}")
        return [prediction for prediction, _ in read]

    def _named(self, name: str, text: str) -> tuple[Prediction, list[str]]:
        """Return what an answer predicts, and the answer where it is no label."""
        label = self.question.place_of(text)
        if label is None:
            return Prediction(name, NO_LABEL, ()), [text]
        return Prediction(name, self.labels[label], ()), []

    def _listed(self, name: str, text: str) -> tuple[MultilabelPrediction, list[str]]:
        """Return what a list of labels predicts, and what in it is no label."""
        parts = [] if text.strip().casefold() == NONE else [part.strip() for part in text.split(",")]
        matched = {part: self.question.place_of(part) for part in parts}
        labels = tuple(label for k, label in enumerate(self.labels) if k in matched.values())
        return MultilabelPrediction(name, labels, ()), [part for part, k in matched.items() if k is None]


def asks_for_labels(folder: Path) -> bool:
    """Return whether the generator saved in a folder is a classifier."""
    return read_settings(folder).question is not None


def _softmax(scores_BGA: Floats) -> Floats:
    """Return the probabilities of the answers to each question."""
    return classification.softmax(scores_BGA.reshape(-1, scores_BGA.shape[-1])).reshape(scores_BGA.shape)


def _content_free(paired: bool = False) -> list[Example]:
    return [Example(text, text, text if paired else None) for text in CONTENT_FREE]
