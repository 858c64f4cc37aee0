"""How a causal language model is asked for the label, the labels or the number of a text, and what it should answer.

The text stands in the prompt, which all answers about it follow: its tokens are computed once for all of them. Shots,
training rows with their answers, are earlier turns that ask the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunesmith.data import truncation
from tunesmith.data.encode import IGNORE, EncodedText, Ending
from tunesmith.data.prompts import ChatEncoder, Ids
from tunesmith.data.rows import listed, note
from tunesmith.data.shots import Shots
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Prompt
from tunesmith.records import omitted_if_none
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataNote, Example, Message

Form = Literal["label", "number", "each", "list"]
"""What an answer is: a label; a number; for `each` label the label with yes or no; or the `list` of all that apply."""
FORMS: dict[tuple[type, str], Form] = {
    (SingleLabel, "score"): "label",
    (SingleLabel, "constrained"): "label",
    (SingleLabel, "free"): "label",
    (MultiLabel, "score"): "each",
    (MultiLabel, "free"): "list",
    (Number, "score"): "number",
}
"""By what is predicted, and `predict.mode`."""
INSTRUCTIONS: dict[Form, tuple[str, str]] = {
    "label": (
        "Classify the following text as one of: {labels}.",
        "Classify the following text. Answer with its class.",
    ),
    "number": (
        "Rate the following text with one of these numbers: {labels}.",
        "Rate the following text with a number.",
    ),
    "each": (
        "Say of each of these labels whether it applies to the following text, yes or no: {labels}.",
        "Say of a label whether it applies to the following text, yes or no.",
    ),
    "list": (
        "Name those of the following labels that apply to the text, separated by commas, or none: {labels}.",
        "Name all labels that apply to the following text, separated by commas, or none.",
    ),
}
"""What is asked where the recipe has no instruction: of few labels, which are named, and of many."""
NAMED_LABELS = 20
"""Up to this many labels, the question names them."""
MOST_ASKED = 50
"""Up to this many labels, training asks about each of them for every text."""
MOST_NUMBERS = 50
"""Different numbers that may be answered."""
YES, NO, NONE = "yes", "no", "none"


@dataclass(frozen=True)
class LabelQuestion:
    """How a generator is asked about a text."""

    labels: tuple[str, ...]
    """The names of the labels, or the numbers as text."""
    texts: tuple[str, ...]
    """What an answer calls each label."""
    instruction: str
    form: Form = "label"
    descriptions: str | None = omitted_if_none()
    """What the labels mean, a line for each: before the first instruction of a prompt."""

    @classmethod
    def of(
        cls,
        settings: Prompt,
        labels: Sequence[str],
        form: Form = "label",
        descriptions: Mapping[str, str] | None = None,
    ) -> LabelQuestion:
        """Return the question of a recipe. Raises RecipeError where answers would not tell the labels apart.

        descriptions: `data.label_descriptions`.
        """
        meanings = descriptions or {}
        for setting, by_label in (("prompt.label_texts", settings.label_texts), ("data.label_descriptions", meanings)):
            if unknown := sorted(set(by_label) - set(labels)):
                raise RecipeError(f"{setting} names {', '.join(unknown)}", expected=", ".join(labels))
        texts = tuple(settings.label_texts.get(label, label).strip() for label in labels)
        if len(set(texts)) < len(texts) or not all(texts):
            raise RecipeError("prompt.label_texts must give every label a text of its own", found=", ".join(texts))
        if form == "list" and (odd := [text for text in texts if "," in text or text.casefold() == NONE]):
            raise RecipeError(
                "cannot read these labels in a list of labels",
                expected=f"labels without a comma, none of them called {NONE}",
                found=listed([repr(text) for text in odd]),
                do="give them other texts (prompt.label_texts), or set predict.mode=score",
            )
        described = [f"{text}: {meanings[name]}" for name, text in zip(labels, texts, strict=True) if name in meanings]
        named, unnamed = INSTRUCTIONS[form]
        default = named if len(labels) <= NAMED_LABELS else unnamed
        instruction = default if settings.instruction is None else settings.instruction
        instruction = instruction.replace("{labels}", ", ".join(texts))
        return cls(tuple(labels), texts, instruction, form, "\n".join(described) or None)

    @classmethod
    def about(
        cls,
        target: Target,
        train: Sequence[Example],
        settings: Prompt,
        mode: str,
        descriptions: Mapping[str, str] | None = None,
    ) -> LabelQuestion | None:
        """Return the question for a target; None where it has no labels or numbers, as that of instructions.

        mode: `predict.mode`. descriptions: `data.label_descriptions`. Raises RecipeError for a mode that does not suit
        the target, and DataError for training rows with too many different numbers.
        """
        if not target.labels and not isinstance(target, Number):
            return None
        if (form := FORMS.get((type(target), mode))) is None:
            able = " or ".join(able for kind, able in FORMS if kind is type(target))
            raise RecipeError(
                f"predict.mode={mode} is not for a target of type {target.problem_type}",
                expected=able,
                do="set predict.mode",
            )
        return cls.of(settings, target.labels or _numbers(train), form, descriptions)

    def ask(self, example: Example, shots: Sequence[Example] = ()) -> list[Message]:
        """Return the question about one text or pair, after the same question about each shot, with its answer.

        All answers to a shot, such as yes or no of each label, are lines of one.
        """
        turns: list[Message] = []
        before = f"{self.descriptions}\n\n" if self.descriptions else ""
        for place, row in enumerate((*shots, example)):
            text = row.text if row.text_pair is None else f"Text 1: {row.text}\nText 2: {row.text_pair}"
            turns.append(Message("user", before + self.instruction, text))
            if place < len(shots):
                turns.append(Message("assistant", "\n".join(self.right_answers(row)), learned=False))
            before = ""
        return turns

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that are scored: the labels, or each with yes and with no; of lists the parts and the longest."""
        if self.form == "each":
            return tuple(f"{text}: {word}" for text in self.texts for word in (YES, NO))
        if self.form == "list":
            return tuple(dict.fromkeys([*self.texts, NONE, ", ".join(self.texts)]))
        return self.texts

    def place_of(self, text: str) -> int | None:
        """Return which answer a text is, from 0: case matters only if two answers differ in nothing else; else None."""
        text, folded = text.strip(), [answer.casefold() for answer in self.texts]
        if text in self.texts:
            return self.texts.index(text)
        return folded.index(text.casefold()) if folded.count(text.casefold()) == 1 else None

    def answer_ids(self, chat_encoder: ChatEncoder, example: Example) -> list[Ids]:
        """Return the ids of `answers`, with their end tokens; yes and no have none, since the same follows both."""
        answers = chat_encoder.encode_answers(self.ask(example), self.answers)
        return [ids[:-1] for ids in answers] if self.form == "each" else answers

    def right_answers(self, example: Example, seed: int = 0) -> list[str]:
        """Return the answers to learn: one, or one for each label that is asked about.

        Of more than MOST_ASKED labels, these are the ones that apply and as many others, at least one, drawn with the
        seed. A number that is not among the answers has the nearest one.
        """
        if example.value is not None:
            value = example.value
            return [min(zip(self.labels, self.texts, strict=True), key=lambda pair: abs(float(pair[0]) - value))[1]]
        known = [text for label, text in zip(self.labels, self.texts, strict=True) if label in example.all_labels]
        if self.form == "list":
            return [", ".join(known) or NONE]
        if self.form != "each":
            return known
        asked: Sequence[str] = self.texts
        if len(asked) > MOST_ASKED:
            others = [text for text in asked if text not in known]
            draw = random.Random(f"{seed} {example.id}")  # noqa: S311 - a sample, not a secret
            asked = [*known, *draw.sample(others, min(max(1, len(known)), len(others)))]
        return [f"{text}: {YES if text in known else NO}" for text in asked]


def ask_within(
    question: LabelQuestion, examples: Sequence[Example], shots: Shots, chat_encoder: ChatEncoder, limit: int
) -> tuple[list[list[Message]], list[DataNote]]:
    """Return what is asked about each text, after those of its shots that fit into `limit` tokens beside it.

    The first ones are left out first; a text that is too long by itself stays whole. Also returns how often that was.
    """
    chosen = [shots.of(example) for example in examples]
    least, tried, most = [0] * len(chosen), [*map(len, chosen)], [*map(len, chosen)]

    def ask(i: int) -> list[Message]:
        return question.ask(examples[i], chosen[i][len(chosen[i]) - tried[i] :])

    left = [i for i, count in enumerate(most) if count]
    while left:  # all of them are tried first, then halves
        for i, ids in zip(left, chat_encoder.encode_prompts([ask(i) for i in left]), strict=True):
            fits = len(ids) <= limit
            least[i], most[i] = (tried[i], most[i]) if fits else (least[i], tried[i] - 1)
            tried[i] = (least[i] + most[i] + 1) // 2
        left = [i for i in left if least[i] < most[i]]
    fewer = [example.id for example, rows, count in zip(examples, chosen, tried, strict=True) if count < len(rows)]
    reason = f"shown after fewer shots than prompt.shots, to fit into {limit} tokens (model.max_length)"
    return [ask(i) for i in range(len(chosen))], [note(reason, fewer)] if fewer else []


def check_room(
    question: LabelQuestion, shots: Shots, chat_encoder: ChatEncoder, limit: int, answer_tokens: int
) -> None:
    """Raise DataError if no text fits beside the question, with the shots that are the same for every text.

    limit: tokens of question and answer. answer_tokens: of the longest answer.
    """
    rows = shots.rows if shots.similar is None else ()
    length = len(chat_encoder.encode_prompts([question.ask(Example("shortest", "a"), rows)])[0])
    if length > limit - answer_tokens:
        raise DataError(
            f"the question{f' with {len(rows)} shots' if rows else ''} leaves no room for a text",
            expected=f"at most {limit} tokens for question and answer (model.max_length)",
            found=f"{length} tokens without a text, {answer_tokens} of the longest answer",
            do=f"raise model.max_length, or {'lower prompt.shots' if rows else 'shorten prompt.instruction'}",
        )


def encode(
    question: LabelQuestion,
    examples: Sequence[Example],
    settings: Prompt,
    seed: int,
    chat_encoder: ChatEncoder,
    limit: int,
    shots: Shots = Shots(),
) -> tuple[list[EncodedText], list[DataNote]]:
    """Return texts with their right answers, to learn from; the longest answer must fit in `limit` after every text.

    Of an answer about one label only `yes` or `no` is learned; such answers to one prompt are one row.
    """
    answer_ids = question.answer_ids(chat_encoder, examples[0])
    ids = dict(zip(question.answers, answer_ids, strict=True))
    right = {example.id: question.right_answers(example, seed) for example in examples}
    # the longest comes first, so that no ending is longer than its row
    firsts = {name: max(answers, key=lambda text: len(ids.get(text, ()))) for name, answers in right.items()}
    distinct = sorted(set(firsts.values()))
    whole = dict(zip(distinct, chat_encoder.encode_answers(question.ask(examples[0]), distinct), strict=True))
    longest = max(map(len, answer_ids))
    check_room(question, shots, chat_encoder, limit, longest)
    room = limit - longest
    asked, notes = ask_within(question, examples, shots, chat_encoder, room)
    rows, changes = truncation.encode(
        [example.id for example in examples],
        [[*turns, Message("assistant", firsts[example.id])] for example, turns in zip(examples, asked, strict=True)],
        chat_encoder,
        [room + len(whole[firsts[example.id]]) for example in examples],
        settings.truncation,
    )
    changes = [*notes, *changes]
    if question.form != "each":
        return rows, changes
    learned = _learned(question.answers, answer_ids)
    branched = []
    for row in rows:
        first, start = firsts[row.id], len(row) - len(whole[firsts[row.id]])
        endings = [Ending(start, ids[text], learned[text]) for text in right[row.id] if text != first]
        labels = row.labels[:start] + learned[first]
        branched.append(EncodedText(row.id, row.ids[:start] + ids[first], labels, tuple(endings)))
    return branched, changes


def _learned(answers: Sequence[str], answer_ids: Sequence[Ids]) -> dict[str, Ids]:
    """Return the labels of the tokens of each yes and no: those from where the two differ."""
    learned = {}
    for place in range(0, len(answers), 2):
        pair = answer_ids[place : place + 2]
        same = next(i for i, (yes, no) in enumerate(zip(*pair, strict=False)) if yes != no)
        for text, ids in zip(answers[place : place + 2], pair, strict=True):
            learned[text] = [IGNORE] * same + ids[same:]
    return learned


def distinct_numbers(examples: Sequence[Example]) -> list[str]:
    """Return the different numbers of examples as text, in rising order."""
    return [number_text(value) for value in sorted({float(example.value or 0) for example in examples})]


def number_text(value: float) -> str:
    """Return a number as an answer writes it: `4`, `3.5`."""
    return np.format_float_positional(value, trim="-")


def _numbers(train: Sequence[Example]) -> list[str]:
    """Return the different numbers of the training rows as text, in rising order."""
    numbers = distinct_numbers(train)
    if len(numbers) > MOST_NUMBERS:
        raise DataError(
            "cannot answer with a number: train has too many different numbers",
            expected=f"at most {MOST_NUMBERS}, such as 1 to 5 stars",
            found=f"{len(numbers):,}",
            do="round the numbers in the data, or set method to linear, probe, encoder or endpoint",
        )
    return numbers
