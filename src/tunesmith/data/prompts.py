"""Conversations -> token ids, and which of them are learned. Every template is a Jinja chat template.

It is installed as the tokenizer's own template and saved with it, so that training, prediction, serving and other
people's software make the same prompt, token for token. An answer's tokens begin where the template's generation prompt
ends, and end with the template's end token: these are learned and nothing else. Prompt and answer are tokenized apart,
since when answering there is nothing behind the prompt that its last letters could merge with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.data.conversations import whole
from tunesmith.data.encode import IGNORE
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.recipe import Prompt
from tunesmith.types import Example, Message

Ids = list[int]
Conversation = Sequence[Message]

ALPACA = "Below is an instruction that describes a task"
CONTEXT = ", paired with an input that provides further context"
REQUEST = ". Write a response that appropriately completes the request."
TURNS = """\
{%- for message in messages if message.role != 'system' -%}
{%- if message.role == 'user' -%}
{{- '' if loop.first and not opened else '\\n\\n' -}}### Instruction:{{ '\\n' + message.content }}
{%- if message.input -%}{{ '\\n\\n### Input:\\n' + message.input }}{%- endif -%}
{%- else -%}{{ '\\n\\n### Response:\\n' + message.content + eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '\\n\\n### Response:\\n' }}{%- endif -%}
"""
SYSTEM = "{%- if messages[0].role == 'system' -%}{%- set opened = true -%}{{ messages[0].content }}{%- else -%}"
TEMPLATES = {
    "alpaca": SYSTEM
    + "{%- set opened = true -%}"
    + ALPACA
    + "{{ '"
    + CONTEXT
    + "' if messages[0].input else '' }}"
    + REQUEST
    + "{%- endif -%}"
    + TURNS,
    "alpaca-short": SYSTEM + "{%- set opened = true -%}" + ALPACA + REQUEST + "{%- endif -%}" + TURNS,
    "classify": SYSTEM + "{%- set opened = false -%}{%- endif -%}" + TURNS,
    "human-assistant": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{{ '### Assistant: ' + message.content + eos_token }}
{%- elif message.role == 'user' -%}{{ '### Human: ' + message.content }}
{%- else -%}{{ message.content + '\\n\\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### Assistant:' }}{%- endif -%}
""",
    "plain": """\
{%- for message in messages -%}
{{ message.content + (eos_token if message.role == 'assistant' else '') }}
{%- endfor -%}
""",
}
"""Jinja templates by name, in the form of Hugging Face chat templates."""
NAMED_LABELS = 20
"""With so many labels at most, the question names them."""


@dataclass(frozen=True)
class ChatEncoder:
    """Makes token ids of conversations by the tokenizer's template."""

    tokenizer: Any
    system: str | None = None
    train_on_prompt: bool = False
    template: str = "chat"
    """Which template is the tokenizer's: a name in TEMPLATES, a file, or `chat` for the one it came with."""

    @classmethod
    def of(cls, settings: Prompt, tokenizer: Any, default: str | None = None) -> ChatEncoder:
        """Return the chat encoder of a recipe; its template becomes the tokenizer's. Raises RecipeError, ModelError.

        default: the template that `auto` means; None for the tokenizer's own, else `alpaca`.
        """
        name = _resolved(settings.template, tokenizer, default)
        tokenizer.chat_template = _template(name, tokenizer)
        found = cls(tokenizer, settings.system, settings.train_on_prompt, name)
        found.check()
        return found

    def pieces(self, messages: Conversation) -> list[tuple[str, bool]]:
        """The text of a whole conversation in pieces, each learned or not.

        Raises ModelError where the template writes an earlier answer otherwise once more is said, as those of reasoning
        models do: what was learned of it is then never seen again.
        """
        found = self._pieces(self._opened(messages))
        if found is None:
            raise ModelError(
                "this chat template rewrites what stands before an answer",
                found=f"a conversation of {len(messages)} turns",
                do="keep one answer a row, or choose another prompt.template, such as a .jinja file that leaves "
                "earlier answers as they are",
            )
        return found

    def opening(self, messages: Conversation) -> str:
        """The text up to where the next answer begins."""
        return self._text(self._opened(messages), True)

    def encode(self, conversations: Sequence[Conversation]) -> list[tuple[Ids, Ids]]:
        """Per conversation its ids and its labels: the id where it is learned, else -100."""
        return self._encode([self.pieces(messages) for messages in conversations])

    def encode_openings(self, conversations: Sequence[Conversation]) -> list[Ids]:
        """Per conversation the ids that its answer follows. Earlier answers are tokenized as they were learned."""
        return [ids for ids, _ in self._encode([self._asked(messages) for messages in conversations])]

    def encode_answers(self, messages: Conversation, answers: Sequence[str]) -> list[Ids]:
        """The ids that each of several answers to one conversation would have, end token included."""
        pieces = [self.pieces([*messages, Message("assistant", answer)])[-1][0] for answer in answers]
        return self.tokens(pieces)

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of pieces of text; special tokens stand in the text and are not added."""
        if not texts:
            return []
        given = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in given["input_ids"]]

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens at which an answer ends: the template's end token and the tokenizer's."""
        last = self.encode_answers([Message("user", "a")], ["b"])[0][-1]
        return sorted({last, self.tokenizer.eos_token_id} - {None})

    def check(self) -> None:
        """Try the template: it must leave the prompt as it is, and end an answer with a special token."""
        if not self.tokenizer.eos_token:
            raise ModelError("the tokenizer has no end token", do="set eos_token in its tokenizer_config.json")
        text, _ = self.pieces([Message("user", "a"), Message("assistant", "b")])[-1]
        if not self._special_ids.intersection(self.tokens([text])[0][-1:]):
            raise ModelError(
                "this template does not end an answer with an end token",
                found=repr(text),
                do="write {{ eos_token }} behind the answer, or choose another prompt.template",
            )

    def _encode(self, pieces: Sequence[list[tuple[str, bool]]]) -> list[tuple[Ids, Ids]]:
        ids = iter(self.tokens([text for one in pieces for text, _ in one]))
        return [_joined([(next(ids), learned) for _, learned in one]) for one in pieces]

    def _pieces(self, messages: Conversation) -> list[tuple[str, bool]] | None:
        """None where what was written is written otherwise later."""
        pieces: list[tuple[str, bool]] = []
        text = ""
        for number, message in enumerate(messages):
            if message.role == "assistant":
                before, after = self._text(messages[:number], True), self._text(messages[: number + 1], False)
                if not after.startswith(before) or not before.startswith(text):
                    return None
                end = self._end(after, len(before), message.content)
                pieces += [(before[len(text) :], self.train_on_prompt), (after[len(before) : end], True)]
                text = after[:end]
        return pieces

    def _asked(self, messages: Conversation) -> list[tuple[str, bool]]:
        """What is before the next answer, cut where it was when it was learned; whole where it was never learned so."""
        opening = self.opening(messages)
        learned = self._pieces(self._opened(messages)) or []
        done = "".join(text for text, _ in learned)
        return [*learned, (opening[len(done) :], False)] if opening.startswith(done) else [(opening, False)]

    def _opened(self, messages: Conversation) -> list[Message]:
        """With the recipe's system message, where the conversation has none."""
        if self.system is None or (messages and messages[0].role == "system"):
            return list(messages)
        return [Message("system", self.system), *messages]

    def _text(self, messages: Conversation, answering: bool) -> str:
        turns = [self._turn(message) for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answering)
        except Exception as error:  # templates raise what they like, for instance on a system message
            raise DataError(
                "the chat template refuses a conversation",
                found=f"{type(error).__name__}: {str(error)[:200]}",
                do="look at the roles of the messages, or choose another prompt.template",
            ) from error
        return str(text)

    def _turn(self, message: Message) -> dict[str, str]:
        if self._keeps_input:
            return {"role": message.role, "content": message.content, "input": message.input}
        return {"role": message.role, "content": whole(message)}

    @cached_property
    def _keeps_input(self) -> bool:
        return ".input" in self.tokenizer.chat_template

    @cached_property
    def _special(self) -> list[str]:
        known = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return sorted({*known, *map(str, self.tokenizer.all_special_tokens)})

    @cached_property
    def _special_ids(self) -> set[int]:
        return set(self.tokenizer.convert_tokens_to_ids(self._special))

    def _end(self, text: str, start: int, content: str) -> int:
        """Where the first special token behind an answer ends; the end of the text where there is none."""
        where = text.find(content.strip(), start)
        behind = (where if where >= 0 else start) + len(content.strip())
        ends = [(at, at + len(token)) for token in self._special if (at := text.find(token, behind)) >= 0]
        return min(ends, default=(0, len(text)))[1]


@dataclass(frozen=True)
class LabelQuestion:
    """How a text is put to a generator that is to name its label."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    """What is answered for each label."""
    instruction: str

    @classmethod
    def of(cls, settings: Prompt, labels: Sequence[str]) -> LabelQuestion:
        """The question of a recipe. Raises RecipeError where two labels have one text, or a text has no label."""
        if unknown := sorted(set(settings.label_texts) - set(labels)):
            raise RecipeError(f"prompt.label_texts names {', '.join(unknown)}", expected=", ".join(labels))
        texts = tuple(settings.label_texts.get(label, label).strip() for label in labels)
        if len(set(texts)) < len(texts) or not all(texts):
            raise RecipeError("prompt.label_texts must give every label a text of its own", found=", ".join(texts))
        few = len(labels) <= NAMED_LABELS
        asked = "Classify the following text" + (" as one of: {labels}." if few else ". Answer with its class.")
        instruction = asked if settings.instruction is None else settings.instruction
        return cls(tuple(labels), texts, instruction.replace("{labels}", ", ".join(texts)))

    def ask(self, example: Example) -> list[Message]:
        """The question about one text or pair."""
        pair = example.text_pair
        return [
            Message(
                "user", self.instruction, example.text if pair is None else f"Text 1: {example.text}\nText 2: {pair}"
            )
        ]

    def answered(self, example: Example) -> list[Message]:
        """The question with its right answer."""
        return [*self.ask(example), Message("assistant", self.texts[self.labels.index(str(example.label))])]


def shortened(messages: Conversation, over: int, prompter: ChatEncoder) -> list[Message] | None:
    """A conversation with about `over` tokens less before its last answer; None where nothing is left to cut.

    Of several questions the earliest goes, with its answer; a single one loses the end of its input, and when there is
    none (left) that of its content.
    """
    questions = [number for number, message in enumerate(messages) if message.role == "user"]
    if len(questions) > 1:
        return [*messages[: questions[0]], *messages[questions[1] :]]
    place = questions[0]
    asked = messages[place]
    if asked.input:
        cut = replace(asked, input=_without_end(asked.input, over, prompter))
    elif content := _without_end(asked.content, over, prompter):
        cut = replace(asked, content=content)
    else:
        return None
    return [*messages[:place], cut, *messages[place + 1 :]]


def _without_end(text: str, over: int, prompter: ChatEncoder) -> str:
    """A text with so many tokens less; nothing where it has no more than these."""
    given = prompter.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in given["offset_mapping"][:-over] if end < len(text)]  # tokens can share a character
    return text[: ends[-1]] if ends else ""


def _joined(parts: Sequence[tuple[Ids, bool]]) -> tuple[Ids, Ids]:
    ids = [token for piece, _ in parts for token in piece]
    labels = [token if learned else IGNORE for piece, learned in parts for token in piece]
    return ids, labels


def _resolved(name: str, tokenizer: Any, default: str | None) -> str:
    if name != "auto":
        return name
    return default or ("chat" if tokenizer.chat_template else "alpaca")


def _template(name: str, tokenizer: Any) -> str:
    if name == "chat":
        if not tokenizer.chat_template:
            raise RecipeError(
                "prompt.template is chat, but this tokenizer has no chat template", do="name another template"
            )
        return str(tokenizer.chat_template)
    if name in TEMPLATES:
        return _beginning(tokenizer) + TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".jinja", ".j2") or not path.is_file():
        raise RecipeError(f"prompt.template={name}", expected=f"{', '.join(TEMPLATES)}, chat, auto, or a .jinja file")
    return path.read_text(encoding="utf-8")


def _beginning(tokenizer: Any) -> str:
    """What the tokenizer itself puts before a text (Llama's and OPT's BOS), for the template to have it too."""
    plain = tokenizer("a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
    full = tokenizer("a", return_attention_mask=False)["input_ids"]
    count = next(iter(_occurrences(full, plain)), 0)
    return "".join(tokenizer.convert_ids_to_tokens(full[:count]))


def _occurrences(whole: Ids, part: Ids) -> Iterator[int]:
    return (i for i in range(len(whole) - len(part) + 1) if whole[i : i + len(part)] == part)
