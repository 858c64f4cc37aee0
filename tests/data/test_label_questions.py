"""What a generator is asked about a text, and which tokens it learns for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests import tiny
from tunesmith.data import label_questions
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.data.label_questions import MOST_ASKED, LabelQuestion
from tunesmith.data.prompts import TEMPLATES, ChatEncoder
from tunesmith.data.shots import Shots
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Prompt
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example

MOODS = ("anger", "joy", "pride")
TEXTS = [Example("r:1", "fine", labels=("joy", "pride")), Example("r:2", "hm", labels=())]


def encoder(**settings: Any) -> ChatEncoder:
    return ChatEncoder.of(Prompt(template="classify", **settings), tiny.byte_tokenizer())


def encoded(question: LabelQuestion, examples: list[Example], limit: int = 10**6, **settings: Any) -> list[EncodedText]:
    chat, prompt = encoder(**settings), Prompt(**settings)
    return label_questions.encode(question, examples, prompt, 0, chat, limit)[0]


def shown(row: EncodedText) -> list[tuple[str, str]]:
    """Each sequence as text, and what of it is learned."""
    words = tiny.byte_tokenizer()
    return [
        (words.decode(s.ids), words.decode([label for label in s.labels if label != IGNORE])) for s in row.sequences()
    ]


def test_questions_about_labels() -> None:
    asked = LabelQuestion.of(Prompt(), ["neg", "pos"])
    row = Example("r:1", "fine", label="pos")
    (turn,) = asked.ask(row)
    assert (turn.content, turn.input) == ("Classify the following text as one of: neg, pos.", "fine")
    assert asked.right_answers(row) == ["pos"]
    mine = LabelQuestion.of(Prompt(instruction="Good? {labels}", label_texts={"pos": "yes"}), ["neg", "pos"])
    assert mine.ask(row)[0].content == "Good? neg, yes"
    assert mine.right_answers(row) == ["yes"]
    many = LabelQuestion.of(Prompt(), [f"label {i}" for i in range(30)])
    assert "label 3" not in many.instruction
    pair = LabelQuestion.of(Prompt(), ["a", "b"]).ask(Example("r:2", "one", "two"))
    assert pair[0].input == "Text 1: one\nText 2: two"


def test_label_texts_must_tell_labels_apart() -> None:
    with pytest.raises(RecipeError, match="text of its own"):
        LabelQuestion.of(Prompt(label_texts={"a": "x", "b": "x"}), ["a", "b"])
    with pytest.raises(RecipeError, match="names c"):
        LabelQuestion.of(Prompt(label_texts={"c": "x"}), ["a", "b"])
    for label in ("x, y", "None"):
        with pytest.raises(RecipeError, match="in a list of labels"):
            LabelQuestion.of(Prompt(), ["a", label], "list")
        LabelQuestion.of(Prompt(label_texts={label: "z"}), ["a", label], "list")


@pytest.mark.parametrize("form", ["label", "number", "list"])
def test_answers_are_learned_with_their_end(form: Any) -> None:
    rows = {
        "label": (MOODS, Example("r:1", "fine", label="joy"), "joy"),
        "number": (("0", "0.5", "1"), Example("r:1", "fine", value=0.5), "0.5"),
        "list": (MOODS, TEXTS[0], "joy, pride"),
    }
    labels, example, answer = rows[form]
    (row,) = encoded(LabelQuestion.of(Prompt(), labels, form), [example])
    ((text, learned),) = shown(row)
    assert text.endswith(f"fine\n\n### Response:\n{answer}<eos>")
    assert learned == f"{answer}<eos>"
    assert LabelQuestion.of(Prompt(), MOODS, "list").right_answers(TEXTS[1]) == ["none"]


def test_of_each_label_only_yes_or_no_is_learned() -> None:
    question = LabelQuestion.of(Prompt(label_texts={"joy": "great joy"}), MOODS, "each")
    first, second = encoded(question, TEXTS)
    prompt = shown(first)[0][0].removesuffix("great joy: yes")
    assert prompt.endswith("fine\n\n### Response:\n")
    # the longest answer comes first
    assert shown(first) == [
        (f"{prompt}great joy: yes", "yes"),
        (f"{prompt}anger: no", "no"),
        (f"{prompt}pride: yes", "yes"),
    ]
    assert [learned for _, learned in shown(second)] == ["no"] * 3
    assert len(first) == max(map(len, first.sequences()))
    assert [s.labels for s in first.unlearned().sequences()] == [[IGNORE] * len(first)]


def test_a_prompt_that_is_learned_too_is_learned_once() -> None:
    (row,) = encoded(LabelQuestion.of(Prompt(), MOODS, "each"), TEXTS[:1], train_on_prompt=True)
    (text, learned), *others = shown(row)
    assert learned == text.replace("pride: ", "")
    assert [learned for _, learned in others] == ["no", "yes"]


@pytest.mark.parametrize("form", ["label", "each"])
def test_long_texts_leave_room_for_the_longest_answer(form: Any) -> None:
    """Whatever is right: the prompt of a text is cut as it is in prediction."""
    labels = ("a", "a long label")
    question = LabelQuestion.of(Prompt(), labels, form)
    examples = [Example(f"r:{k}", "word " * 50, label=label, labels=None) for k, label in enumerate(labels)]
    if form == "each":
        examples = [Example(row.id, row.text, labels=(str(row.label),)) for row in examples]
    limit, rows = 200, encoded(question, examples, 200)
    longest = max(map(len, question.answer_ids(encoder(), examples[0])))
    prompts = {text.rpartition("### Response:\n")[0] for row in rows for text, _ in shown(row)}
    assert len(prompts) == 1
    assert len(encoder().tokens([prompts.pop() + "### Response:\n"])[0]) + longest <= limit


def test_of_many_labels_some_are_asked_about() -> None:
    labels = [f"label {k}" for k in range(MOST_ASKED + 1)]
    question = LabelQuestion.of(Prompt(), labels, "each")
    known = Example("r:1", "x", labels=("label 3", "label 7"))
    answers = question.right_answers(known)
    assert sum(answer.endswith(": no") for answer in answers) == 2
    assert {"label 3: yes", "label 7: yes"} < set(answers)
    assert answers == question.right_answers(known)
    assert answers != question.right_answers(known, seed=1)
    (none,) = question.right_answers(Example("r:2", "x", labels=()))
    assert none.endswith(": no")
    everything = Example("r:3", "x", labels=tuple(labels))
    assert question.right_answers(everything) == [f"{label}: yes" for label in labels]


def test_a_mode_must_suit_the_target() -> None:
    def about(target: Any, mode: str, train: Any = ()) -> LabelQuestion | None:
        return LabelQuestion.about(target, train, Prompt(), mode)

    assert about(SingleLabel(()), "score") is None  # of instructions
    for target, mode, expected in (
        (MultiLabel(MOODS), "constrained", "score or free"),
        (Number(), "free", "expected: score"),
    ):
        with pytest.raises(RecipeError, match=f"(?s)predict.mode={mode} is not for.*{expected}"):
            about(target, mode)
    stars = [Example(str(n), "x", value=value) for n, value in enumerate((5.0, 1.0, 2.5, 1.0, -0.0))]
    question = about(Number(), "score", stars)
    assert question is not None
    assert question.labels == ("0", "1", "2.5", "5")
    assert question.right_answers(Example("new", "x", value=4.0)) == ["5"]
    many = [Example(str(n), "x", value=n / 10) for n in range(51)]
    with pytest.raises(
        DataError, match=r"(?s)too many different numbers.*found: 51.*linear, probe, encoder or endpoint"
    ):
        about(Number(), "score", many)
    about(Number(), "score", many[1:])


SHOTS = [Example("s:1", "grr", label="neg"), Example("s:2", "yay", label="pos")]
FORMS: dict[str, tuple[tuple[str, ...], list[Example], list[str]]] = {
    "label": (("neg", "pos"), SHOTS, ["neg", "pos"]),
    "number": (("1", "5"), [Example("s:1", "grr", value=1.2), Example("s:2", "yay", value=5.0)], ["1", "5"]),
    "each": (
        MOODS,
        [Example("s:1", "grr", labels=("anger",)), Example("s:2", "hm", labels=())],
        ["anger: yes\njoy: no\npride: no", "anger: no\njoy: no\npride: no"],
    ),
    "list": (
        MOODS,
        [Example("s:1", "yay", labels=("joy", "pride")), Example("s:2", "hm", labels=())],
        ["joy, pride", "none"],
    ),
}
"""The labels, two shots and their answers, by form."""


@pytest.mark.parametrize("template", ["classify", "alpaca", "alpaca-short", "human-assistant", "plain", "chat"])
@pytest.mark.parametrize("form", ["label", "number", "each", "list"])
def test_shots_are_earlier_turns_that_are_not_learned(form: Any, template: str) -> None:
    """In every template: the question about a text stands as it does alone, and its own answer alone is learned."""
    labels, shots, answers = FORMS[form]
    question, example = LabelQuestion.of(Prompt(), labels, form), replace(shots[0], id="r:1", text="fine")
    turns = question.ask(example, shots)
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[-1:] == question.ask(example)
    assert turns[:1] == question.ask(shots[0])
    assert [turn.content for turn in turns[1::2]] == answers
    words = tiny.byte_tokenizer()
    words.chat_template = TEMPLATES["human-assistant"]
    chat = ChatEncoder.of(Prompt(template=template), words)
    (few,), (zero,) = (
        label_questions.encode(question, [example], Prompt(), 0, chat, 10**6, Shots(tuple(rows)))[0]
        for rows in (shots, [])
    )
    assert [learned for _, learned in shown(few)] == [learned for _, learned in shown(zero)]
    assert all(len(row) > len(zero) + 2 * len("grr") for row in few.sequences())


def test_a_shot_is_not_shown_before_itself() -> None:
    question = LabelQuestion.of(Prompt(), ["neg", "pos"])
    rows = label_questions.encode(question, SHOTS, Prompt(), 0, encoder(), 10**6, Shots(tuple(SHOTS)))[0]
    for row, own in zip(rows, ("grr", "yay"), strict=True):
        ((text, _),) = shown(row)
        assert (text.count("grr"), text.count("yay")) == (1, 1)
        assert text.rindex(own) == max(text.rindex("grr"), text.rindex("yay"))


def test_shots_make_way_for_a_long_text() -> None:
    """The first ones go first, the text is cut last, and rows with fewer shots are counted."""
    question, chat = LabelQuestion.of(Prompt(), ["neg", "pos"]), encoder()
    one, two = (len(chat.encode_prompts([question.ask(SHOTS[0], SHOTS[2 - n :])])[0]) for n in (1, 2))
    short = Example("r:1", "abc")
    for limit, expected in ((two, 2), (two - 1, 1), (one, 1), (one - 1, 0), (10, 0)):
        shots = Shots(tuple(SHOTS))
        asked, notes = label_questions.ask_within(question, [short, *SHOTS], shots, chat, limit)
        assert asked[0] == question.ask(short, SHOTS[2 - expected :])
        assert sum(note.count for note in notes) == (0 if expected == 2 else 1 if expected == 1 else 3)
        assert all(f"fit into {limit} tokens (model.max_length)" in note.what for note in notes)


def test_labels_are_described_once_in_a_prompt() -> None:
    asked = {"neg": "angry or sad", "pos": "glad"}
    question = LabelQuestion.of(Prompt(label_texts={"pos": "positive"}), ["neg", "pos"], descriptions=asked)
    first, _, second = question.ask(Example("r:1", "hm"), SHOTS[:1])
    assert first.content == "neg: angry or sad\npositive: glad\n\nClassify the following text as one of: neg, positive."
    assert second.content == "Classify the following text as one of: neg, positive."
    assert question.ask(Example("r:1", "hm"))[0].content == first.content
    with pytest.raises(RecipeError, match=r"(?s)data.label_descriptions names other.*expected: neg, pos"):
        LabelQuestion.of(Prompt(), ["neg", "pos"], descriptions={"other": "x"})
