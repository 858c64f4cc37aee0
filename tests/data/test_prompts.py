"""The mask contract: which tokens a template makes, and which of them are learned. Exact, for every template."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny
from tunesmith.data.encode import IGNORE
from tunesmith.data.prompts import TEMPLATES, ChatEncoder
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.recipe import Prompt
from tunesmith.types import Message


def user(text: str, about: str = "") -> Message:
    return Message("user", text, about)


def assistant(text: str) -> Message:
    return Message("assistant", text)


TALK = [user("Add.", "2+2"), assistant("4"), user("And?"), assistant("5")]
ALPACA = "Below is an instruction that describes a task"
REQUEST = ". Write a response that appropriately completes the request.\n\n"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)


QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Of reasoning models: thoughts stand before the last answer alone."""


def prompter(
    template: str = "alpaca", default: str | None = None, chat: str | None = None, **settings: object
) -> ChatEncoder:
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = chat
    return ChatEncoder.of(Prompt(template=template, **settings), tokenizer, default)


def learned(made: ChatEncoder, messages: list[Message]) -> list[str]:
    """The text of every run of learned tokens, as decoded from the labels."""
    ((ids, labels),) = made.encode([messages])
    assert all(label in (token, IGNORE) for token, label in zip(ids, labels, strict=True))
    runs: list[list[int]] = [[]]
    for label in labels:
        runs = [*runs, []] if label == IGNORE and runs[-1] else runs
        if label != IGNORE:
            runs[-1].append(label)
    return [made.tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize(
    ("template", "text", "answers"),
    [
        (
            "alpaca",
            ALPACA
            + ", paired with an input that provides further context"
            + REQUEST
            + "### Instruction:\nAdd.\n\n### Input:\n2+2\n\n### Response:\n4<eos>\n\n### Instruction:\nAnd?\n\n"
            "### Response:\n5<eos>",
            ["4<eos>", "5<eos>"],
        ),
        (
            "alpaca-short",
            ALPACA + REQUEST + "### Instruction:\nAdd.\n\n### Input:\n2+2\n\n### Response:\n4<eos>\n\n"
            "### Instruction:\nAnd?\n\n### Response:\n5<eos>",
            ["4<eos>", "5<eos>"],
        ),
        (
            "classify",
            "### Instruction:\nAdd.\n\n### Input:\n2+2\n\n### Response:\n4<eos>\n\n### Instruction:\nAnd?\n\n"
            "### Response:\n5<eos>",
            ["4<eos>", "5<eos>"],
        ),
        (
            "human-assistant",
            "### Human: Add.\n\n2+2### Assistant: 4<eos>### Human: And?### Assistant: 5<eos>",
            [" 4<eos>", " 5<eos>"],
        ),
        ("plain", "Add.\n\n2+24<eos>And?5<eos>", ["4<eos>", "5<eos>"]),
        (
            "chat",
            "<|im_start|>user\nAdd.\n\n2+2<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nAnd?"
            "<|im_end|>\n<|im_start|>assistant\n5<|im_end|>",
            ["4<|im_end|>", "5<|im_end|>"],
        ),
    ],
)
def test_every_template_to_the_token(template: str, text: str, answers: list[str]) -> None:
    made = prompter(template, chat=CHATML)
    ((ids, _),) = made.encode([TALK])
    assert made.tokenizer.decode(ids) == text
    assert learned(made, TALK) == answers


def test_alpaca_without_input_has_the_other_preamble() -> None:
    ((ids, _),) = (made := prompter("alpaca")).encode([[user("Go."), assistant("Yes.")]])
    assert made.tokenizer.decode(ids) == ALPACA + REQUEST + "### Instruction:\nGo.\n\n### Response:\nYes.<eos>"


def test_system_messages() -> None:
    talk = [Message("system", "Be kind."), user("Go."), assistant("Yes.")]
    for template, start in (
        ("alpaca", "Be kind.\n\n### Instruction:"),
        ("classify", "Be kind.\n\n### Instruction:"),
        ("human-assistant", "Be kind.\n\n### Human:"),
        ("plain", "Be kind.Go."),
    ):
        assert prompter(template).rendered_prompt(talk[:-1]).startswith(start)
        assert prompter(template, system="Be kind.").rendered_prompt(talk[1:-1]) == prompter(template).rendered_prompt(
            talk[:-1]
        )
    assert prompter("alpaca", system="Other.").rendered_prompt(talk[:-1]).startswith("Be kind.")


@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
def test_an_answer_follows_exactly_the_tokens_it_was_trained_behind(template: str) -> None:
    made = prompter(template, chat=CHATML)
    for end in (1, 3):
        ((ids, labels),) = made.encode([TALK[: end + 1]])
        (opening,) = made.encode_prompts([TALK[:end]])
        assert ids[: len(opening)] == opening
        assert labels[len(opening) - 1] == IGNORE
        assert IGNORE not in labels[len(opening) :]
        (answer,) = made.encode_answers(TALK[:end], [TALK[end].content])
        assert opening + answer == ids
        assert answer[-1] in made.end_ids


@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
def test_the_saved_tokenizer_makes_the_same_prompt_for_everybody(template: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = prompter(template, chat=CHATML)
    made.tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    turns = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "On."},
    ]
    ids = other.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert ids == made.encode_prompts([[user("Go."), assistant("Yes."), user("On.")]])[0]


@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
def test_shots_stand_after_the_system_message_and_are_not_learned(template: str, system: str | None) -> None:
    """Also in the template for other software, which shows them once."""
    shots = ((user("One?"), Message("assistant", "Yes.", learned=False)), (user("Two?", "x"), assistant("No.")))
    shots = tuple((asked, replace(answer, learned=False)) for asked, answer in shots)
    plain = prompter(template, chat=CHATML, system=system)
    few, flat = replace(plain, shots=shots), [turn for shot in shots for turn in shot]
    for head in ([], [Message("system", "Other.")]):
        talk = [*head, user("Go."), assistant("So.")]
        assert few.rendered_prompt(talk[:-1]) == plain.rendered_prompt([*head, *flat, *talk[len(head) : -1]])
        assert learned(few, talk) == learned(plain, talk)
        turns = [{"role": turn.role, "content": turn.content} for turn in talk[:-1]]
        for asked in (turns, [*turns, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]):
            said = plain.tokenizer.apply_chat_template(
                asked, chat_template=few.portable_template, add_generation_prompt=True, tokenize=False
            )
            assert said == few.rendered_prompt([Message(**turn) for turn in asked])
    (own,) = (few.rendered_prompt([user("Two?", "x")]),)
    assert own.count("Two?") == 1
    assert own == plain.rendered_prompt([*flat[:2], user("Two?", "x")])
    everything = replace(few, train_on_prompt=True)
    ((ids, labels),) = everything.encode([[user("Go."), assistant("So.")]])
    assert labels == ids


@pytest.mark.parametrize("chat", [CHATML, LLAMA2])
def test_random_conversations_equal_the_tokenizers_own(chat: str) -> None:
    made, draw = prompter("chat", chat=chat), random.Random(1)
    for _ in range(50):
        turns = [Message(("user", "assistant")[i % 2], _words(draw)) for i in range(2 * draw.randint(1, 4))]  # type: ignore[arg-type]
        ((ids, labels),) = made.encode([turns])
        plain = [{"role": turn.role, "content": turn.content} for turn in turns]
        whole = made.tokenizer.apply_chat_template(plain)["input_ids"]
        assert whole[: len(ids)] == ids  # what follows the last end token is not learned, and not needed
        assert made.tokenizer.decode(whole[len(ids) :]).strip() == ""
        answers = [turn.content for turn in turns if turn.role == "assistant"]
        got = [text.removesuffix("<|im_end|>").removesuffix("<eos>").strip() for text in learned(made, turns)]
        assert got == [answer.strip() for answer in answers]
        assert labels.count(IGNORE) < len(labels)


def _words(draw: random.Random) -> str:
    return " ".join(draw.choices(["Hi", "ünïcode", "1 + 1", "line\nbreak", "###", "</s>", "🙂"], k=draw.randint(1, 5)))


def test_a_tokenizer_that_merges_across_the_border() -> None:
    tokenizer = tiny.byte_tokenizer(["### Response:\nyes " * 5, "abc"])
    made = ChatEncoder.of(Prompt(template="plain"), tokenizer)
    messages = [user("### Response:\n"), assistant("yes")]
    whole = tokenizer("### Response:\nyes", add_special_tokens=False)["input_ids"]
    ((ids, labels),) = made.encode([messages])
    assert ids[: len(whole)] != whole, "the test needs a tokenizer that merges here"
    (opening,) = made.encode_prompts([messages[:1]])
    assert ids[: len(opening)] == opening
    assert labels == [IGNORE] * len(opening) + ids[len(opening) :]


def test_pad_equal_to_eos_is_learned_all_the_same() -> None:
    tokenizer = tiny.byte_tokenizer(pad=None)
    tokenizer.pad_token = tokenizer.eos_token
    ((ids, labels),) = ChatEncoder.of(Prompt(template="alpaca"), tokenizer).encode([TALK])
    assert [label for token, label in zip(ids, labels, strict=True) if token == tokenizer.eos_token_id] == [
        tokenizer.eos_token_id
    ] * 2


def test_no_pad_token_is_needed() -> None:
    made = ChatEncoder.of(Prompt(template="alpaca"), tiny.byte_tokenizer(pad=None))
    assert learned(made, TALK) == ["4<eos>", "5<eos>"]


def test_no_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="no end token"):
        ChatEncoder.of(Prompt(template="alpaca"), tiny.byte_tokenizer(eos=None))


def test_a_template_that_ends_no_answer_is_refused() -> None:
    open_ended = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(ModelError, match="does not end an answer"):
        prompter("chat", chat=open_ended)


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    fickle = "{{ messages | length }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    with pytest.raises(ModelError, match="rewrites"):
        prompter("chat", chat=fickle)


def test_templates_of_reasoning_models_take_one_answer() -> None:
    """Earlier answers lose their thoughts, so that what is learned of them would never be seen again."""
    made = prompter("chat", chat=QWEN3)
    assert learned(made, TALK[:2]) == ["<think>\n\n</think>\n\n4<|im_end|>"]
    with pytest.raises(ModelError, match=r"(?s)rewrites.*4 turns.*\.jinja"):
        made.encode([TALK])
    with pytest.raises(ModelError, match="rewrites"):
        made.encode([[*TALK, user("Why?"), assistant("So.")]])


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_to_answer_they_are_asked_as_the_template_has_it(turns: int) -> None:
    made = prompter("chat", chat=QWEN3)
    talk = [*TALK, user("Why?"), assistant("So.")][:turns]
    plain = [{"role": turn.role, "content": turn.content + ("\n\n2+2" if turn.input else "")} for turn in talk]
    whole = made.tokenizer.apply_chat_template(plain, add_generation_prompt=True)["input_ids"]
    assert made.encode_prompts([talk]) == [whole]


@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
@pytest.mark.parametrize("about", ["", "2+2"])
def test_pieces_are_the_whole_text_once(template: str, about: str) -> None:
    """Also where only a later turn has an input."""
    made = prompter(template, chat=CHATML)
    talk = [user("Go.", about), assistant("Yes."), user("Add.", "1+1"), assistant("2")]
    assert "".join(text for text, _ in made.pieces(talk)[:-1]) == made.rendered_prompt(talk[:-1])


def test_a_template_that_refuses_a_conversation_is_named() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(DataError, match="no system"):
        prompter("chat", chat=strict).encode([[Message("system", "a"), user("b"), assistant("c")]])


@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
def test_bos_stands_once(template: str) -> None:
    tokenizer = tiny.byte_tokenizer(bos="<bos>")
    tokenizer.chat_template = LLAMA2
    made = ChatEncoder.of(Prompt(template=template), tokenizer)
    ((ids, labels),) = made.encode([TALK])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert labels[0] == IGNORE


def test_train_on_prompt_learns_everything() -> None:
    ((ids, labels),) = prompter("alpaca", train_on_prompt=True).encode([TALK])
    assert ids == labels


def test_a_jinja_file_is_sandboxed_and_keeps_input_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}|{{ m.input or '' }}{{ eos_token }}{% endfor %}")
    assert prompter(str(path)).rendered_prompt([user("a", "b")]) == "a|b<eos>"
    path.write_text("{{ messages.__class__.__mro__ }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    with pytest.raises(DataError, match="refuses"):
        prompter(str(path))
    with pytest.raises(RecipeError, match=r"alpaca.*\.jinja"):
        prompter("alpacca")


def test_auto_is_the_default_or_chosen_by_the_tokenizer() -> None:
    assert prompter("auto").tokenizer.chat_template == TEMPLATES["alpaca"]
    assert prompter("auto", chat=CHATML).tokenizer.chat_template == CHATML
    assert prompter("auto", "classify", CHATML).tokenizer.chat_template == TEMPLATES["classify"]
    with pytest.raises(RecipeError, match="no chat template"):
        prompter("chat")


def test_a_template_without_bounds_is_named_with_conversation_and_limit() -> None:
    with pytest.raises(
        DataError, match=r"template chat refuses the conversation 'question'[\s\S]*50,000,000 characters"
    ):
        prompter("chat", chat=CHATML + "{{ 'a' * 10**10 }}")


@pytest.mark.parametrize("chat", ["{{ '' }}", "{{ eos_token }}", "{{ messages[0].text }}", "{{ messages[0].content }}"])
def test_a_template_that_leaves_out_a_message_is_refused(chat: str) -> None:
    with pytest.raises(ModelError, match="leaves out the question or the answer"):
        prompter("chat", chat=chat)


def test_of_several_chat_templates_the_default_is_taken() -> None:
    several: object = {"default": CHATML, "tool_use": "{{ 'tools' }}"}
    assert prompter("chat", chat=several).tokenizer.chat_template == CHATML  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"several chat templates[\s\S]*tool_use"):
        prompter("chat", chat={"tool_use": CHATML})  # type: ignore[arg-type]
