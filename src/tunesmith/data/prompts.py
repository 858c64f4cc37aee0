"""Conversations -> token ids, and which of them are learned. Every template is a Jinja chat template.

It is installed as the tokenizer's own template and saved with it, so that training, prediction, serving and other
software make the same prompt, token for token. An answer's tokens begin where the template's generation prompt
ends, and end with the template's end token: these are learned and nothing else. Prompt and answer are tokenized
separately, since in generation nothing follows the prompt that its last characters could merge with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.data.conversations import content_with_input
from tunesmith.data.encode import IGNORE
from tunesmith.errors import DataError, ModelError, RecipeError, summary
from tunesmith.recipe import Prompt
from tunesmith.types import Message

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


@dataclass(frozen=True)
class ChatEncoder:
    """Turns conversations into token ids by the tokenizer's template."""

    tokenizer: Any
    system: str | None = None
    train_on_prompt: bool = False
    template: str = "chat"
    """Which template is the tokenizer's: a name in TEMPLATES, a file, or `chat` for the one it came with."""
    shots: tuple[tuple[Message, ...], ...] = ()
    """Conversations that every other one is shown after; they are not learned, and never shortened."""

    @classmethod
    def of(cls, settings: Prompt, tokenizer: Any, default: str | None = None) -> ChatEncoder:
        """Return the encoder of a recipe; its template becomes the tokenizer's. Raises RecipeError, ModelError.

        default: the template that `auto` means; None for the tokenizer's own, else `alpaca`.
        """
        name = settings.template
        if name == "auto":
            name = default or ("chat" if tokenizer.chat_template else "alpaca")
        tokenizer.chat_template = _template(name, tokenizer)
        encoder = cls(tokenizer, settings.system, settings.train_on_prompt, name)
        encoder.check()
        return encoder

    def pieces(self, messages: Conversation) -> list[tuple[str, bool]]:
        """Return the text of a whole conversation in pieces, each with whether it is learned.

        Raises ModelError where the template rewrites earlier answers in later turns, as those of reasoning models do:
        the model would never see again what it learned.
        """
        pieces = self._pieces(self._whole(messages))
        if pieces is None:
            raise ModelError(
                "this chat template rewrites earlier turns",
                found=f"a conversation of {len(messages)} turns",
                do="keep one answer per row, without prompt.shots, or choose another prompt.template, such as a .jinja "
                "file that leaves earlier answers as they are",
            )
        return pieces

    def rendered_prompt(self, messages: Conversation) -> str:
        """Return the text up to where the next answer begins."""
        return self._text(self._whole(messages), True)

    def encode(self, conversations: Sequence[Conversation]) -> list[tuple[Ids, Ids]]:
        """Return the ids of each conversation and its labels: the id where it is learned, else -100."""
        return self._encode([self.pieces(messages) for messages in conversations])

    def encode_prompts(self, conversations: Sequence[Conversation]) -> list[Ids]:
        """Return the ids of each conversation up to its next answer; earlier answers are tokenized as in training."""
        return [ids for ids, _ in self._encode([self._prompt_pieces(messages) for messages in conversations])]

    def encode_answers(self, messages: Conversation, answers: Sequence[str]) -> list[Ids]:
        """Return the ids of each of several answers to one conversation, end token included."""
        pieces = [self.pieces([*messages, Message("assistant", answer)])[-1][0] for answer in answers]
        return self.tokens(pieces)

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of pieces of text; special tokens are read from the text and none are added."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer: the template's end token and the tokenizer's."""
        last = self.encode_answers([Message("user", "a")], ["b"])[0][-1]
        return sorted({last, self.tokenizer.eos_token_id} - {None})

    @property
    def portable_template(self) -> str:
        """The template for other software: it adds the recipe's system message where there is none, and the shots.

        A conversation that begins as the shots do has them already.
        """
        added = ""
        if self.system is not None:
            turns = self._json([Message("system", self.system)])
            added += "{% if not messages or messages[0].role != 'system' %}"
            added += f"{{% set messages = {turns} + messages %}}{{% endif %}}\n"  # Jinja drops this line's end
        if self.shots:
            turns = self._json([turn for shot in self.shots for turn in shot])
            added += "{% set start = 1 if messages and messages[0].role == 'system' else 0 %}"
            added += f"{{% if messages[start].content != ({turns})[0].content %}}"
            added += f"{{% set messages = messages[:start] + {turns} + messages[start:] %}}{{% endif %}}\n"
        return f"{added}{self.tokenizer.chat_template}"

    def _json(self, messages: Conversation) -> str:
        return json.dumps([self._turn(message) for message in messages], ensure_ascii=False)

    def check(self) -> None:
        """Try the template: it must leave the prompt unchanged, and end an answer with a special token."""
        if not self.tokenizer.eos_token:
            raise ModelError("the tokenizer has no end token", do="set eos_token in its tokenizer_config.json")
        pieces = self.pieces([Message("user", "question"), Message("assistant", "answer")])
        prompt, text = "".join(text for text, _ in pieces[:-1]), pieces[-1][0]
        if "question" not in prompt or "answer" not in text:
            raise ModelError(
                "this template leaves out the question or the answer",
                found=repr((prompt + text)[:200]),
                do="write {{ message.content }} for each of the messages, or choose another prompt.template",
            )
        if not self._special_ids.intersection(self.tokens([text])[0][-1:]):
            raise ModelError(
                "this template does not end an answer with an end token",
                found=repr(text[:200]),
                do="write {{ eos_token }} after the answer, or choose another prompt.template",
            )

    def _encode(self, pieces: Sequence[list[tuple[str, bool]]]) -> list[tuple[Ids, Ids]]:
        ids = iter(self.tokens([text for conversation in pieces for text, _ in conversation]))
        encoded = []
        for conversation in pieces:
            parts = [(next(ids), learned) for _, learned in conversation]
            tokens = [token for part, _ in parts for token in part]
            encoded.append((tokens, [token if learned else IGNORE for part, learned in parts for token in part]))
        return encoded

    def _pieces(self, messages: Conversation) -> list[tuple[str, bool]] | None:
        """Return None where the template rewrites earlier turns."""
        pieces: list[tuple[str, bool]] = []
        text = ""
        for number, message in enumerate(messages):
            if message.role == "assistant":
                before = self._text(messages[:number], True) if number else ""  # a raw text follows nothing
                after = self._text(messages[: number + 1], False)
                if not after.startswith(before) or not before.startswith(text):
                    return None
                end = self._end(after, len(before), message.content)
                learned = message.learned or self.train_on_prompt
                pieces += [(before[len(text) :], self.train_on_prompt), (after[len(before) : end], learned)]
                text = after[:end]
        return pieces

    def _prompt_pieces(self, messages: Conversation) -> list[tuple[str, bool]]:
        """Return the prompt in the pieces of training; in one piece where the template rewrites earlier turns."""
        prompt = self.rendered_prompt(messages)
        learned = self._pieces(self._whole(messages)) or []
        earlier = "".join(text for text, _ in learned)
        return [*learned, (prompt[len(earlier) :], False)] if prompt.startswith(earlier) else [(prompt, False)]

    def _whole(self, messages: Conversation) -> list[Message]:
        """Add the recipe's system message where the conversation has none, and the shots.

        A shot that asks what the conversation begins with is left out: it has the answer.
        """
        start = 1 if messages and messages[0].role == "system" else 0
        system, turns = list(messages[:start]), list(messages[start:])
        if self.system is not None and not system:
            system = [Message("system", self.system)]
        shown = [turn for shot in self.shots if list(shot[:-1]) != turns[: len(shot) - 1] for turn in shot]
        return [*system, *shown, *turns]

    def _text(self, messages: Conversation, answering: bool) -> str:
        """Render a conversation as the tokenizer's `apply_chat_template` does, but within bounds."""
        from tunesmith.data import template_sandbox

        values = {"messages": [self._turn(message) for message in messages], "tools": None, "documents": None}
        try:
            template = template_sandbox.chat_template(self.tokenizer.chat_template)
            return template_sandbox.render(
                template, **self.tokenizer.special_tokens_map, **values, add_generation_prompt=answering
            )
        except Exception as error:  # templates raise anything, for instance on a system message
            start = next((message.content[:60] for message in messages if message.role == "user"), "")
            raise DataError(
                f"the chat template {self.template} refuses the conversation {start!r}",
                expected=f"roles that it knows, in its order; up to {template_sandbox.SIZE:,} characters and "
                f"{template_sandbox.SECONDS} seconds of processor time",
                found=f"{', '.join(message.role for message in messages[:8])}: {summary(error)}",
                do="check the roles of the messages, or choose another prompt.template",
            ) from error

    def _turn(self, message: Message) -> dict[str, str]:
        if self._keeps_input:
            return {"role": message.role, "content": message.content, "input": message.input}
        return {"role": message.role, "content": content_with_input(message)}

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
        """Return where the first special token after an answer ends; the end of the text where there is none."""
        answer = text.find(content.strip(), start)
        after = (answer if answer >= 0 else start) + len(content.strip())
        ends = [(at, at + len(token)) for token in self._special if (at := text.find(token, after)) >= 0]
        return min(ends, default=(0, len(text)))[1]


def shorten(messages: Conversation, over: int, chat_encoder: ChatEncoder) -> list[Message] | None:
    """Return a conversation with about `over` fewer tokens before its last answer; None where nothing is left to cut.

    Of several questions the earliest is removed, with its answer; a single one loses the end of its input, or, where no
    input is left, of its content.
    """
    questions = [number for number, message in enumerate(messages) if message.role == "user"]
    if len(questions) > 1:
        return [*messages[: questions[0]], *messages[questions[1] :]]
    place = questions[0]
    question = messages[place]
    if question.input:
        cut = replace(question, input=_without_end(question.input, over, chat_encoder))
    elif content := _without_end(question.content, over, chat_encoder):
        cut = replace(question, content=content)
    else:
        return None
    return [*messages[:place], cut, *messages[place + 1 :]]


def _without_end(text: str, over: int, chat_encoder: ChatEncoder) -> str:
    """Return a text without its last `over` tokens; empty where it has no more than these."""
    encoded = chat_encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"][:-over] if end < len(text)]  # tokens can share a character
    return text[: ends[-1]] if ends else ""


def _template(name: str, tokenizer: Any) -> str:
    if name == "chat":
        if not tokenizer.chat_template:
            raise RecipeError(
                "prompt.template is chat, but this tokenizer has no chat template", do="name another template"
            )
        template = tokenizer.chat_template
        if isinstance(template, Mapping):  # some tokenizers have several, such as one for tools
            if "default" not in template:
                found = ", ".join(map(str, template))
                raise RecipeError("the tokenizer has several chat templates, none of them default", found=found)
            template = template["default"]
        return str(template)
    if name in TEMPLATES:
        # the tokenizer itself puts something before a text (the BOS of Llama and OPT): so does the template
        plain = tokenizer("a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
        full = tokenizer("a", return_attention_mask=False)["input_ids"]
        count = next((i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain), 0)
        return "".join(tokenizer.convert_ids_to_tokens(full[:count])) + TEMPLATES[name]
    path = Path(name)
    if path.suffix not in (".jinja", ".j2") or not path.is_file():
        raise RecipeError(f"prompt.template={name}", expected=f"{', '.join(TEMPLATES)}, chat, auto, or a .jinja file")
    return path.read_text(encoding="utf-8")
