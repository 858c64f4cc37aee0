"""A folder for Ollama: a GGUF file, and a Modelfile whose TEMPLATE makes the prompts of training.

Ollama's templates are Go's text/template. They are not translated from Jinja, but assembled from what the chat template
writes between the messages of a few trial conversations. Where these pieces do not reproduce every trial conversation
character by character, the template is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunesmith.data.conversations import content_with_input
from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import ModelError
from tunesmith.exporting import gguf
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.protocols import ChatSpec
from tunesmith.recipe import Generate
from tunesmith.types import Example, Message

Role = Literal["system", "user", "assistant"]
MODELFILE = "Modelfile"
MARKS: dict[Role, str] = {"system": "<<system>>", "user": "<<user>>", "assistant": "<<assistant>>"}
TRIALS: list[tuple[Role, ...]] = [
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a chat template writes around messages."""

    head: str
    """Before the first question, where there is no system message."""
    system: tuple[str, str]
    """Before the system message, and between it and the first question."""
    last_question_end: str
    """After the last question, up to the answer."""
    question_end: str = ""
    """After an earlier question; often the same."""
    answer_end: str | None = None
    """After an answer, up to the next question; None where there is only one question."""


def ollama(source: ExportSource, folder: Path) -> Exported:
    """Write a GGUF file and a Modelfile with the template, stop texts and settings of the run.

    `ollama create NAME -f Modelfile` makes a model of them.
    """
    exported = gguf.file(source, folder)
    parts = source.parts
    assert parts.chat is not None  # otherwise `file` refuses it
    text = modelfile(parts.chat, source.generate, parts.max_length, gguf.adds_bos(parts.tokenizer))
    (folder / MODELFILE).write_text(text, encoding="utf-8")
    return exported


def modelfile(chat: ChatSpec, settings: Generate, max_length: int, adds_bos: bool) -> str:
    """Return the Modelfile. adds_bos: whether Ollama puts the bos token before every prompt by itself."""
    if chat.question:  # around the user's text, which is all that Ollama is given
        if chat.shots.similar:
            raise _unsupported("the shots depend on the text (prompt.shot_selection=nearest)")
        asked = chat.question.ask(Example("mark", MARKS["user"]), chat.shots.rows)
        text = chat.chat_encoder.rendered_prompt(asked)
        head, _, end = text.rpartition(MARKS["user"])
        pieces = Pieces(head, ("", ""), end)
    else:
        pieces = split_template(chat.chat_encoder)
    bos = chat.chat_encoder.tokenizer.bos_token if adds_bos else ""
    options: dict[str, float] = {
        "num_ctx": max_length,
        "num_predict": settings.max_new_tokens,
        "repeat_penalty": settings.repetition_penalty,
        "temperature": settings.temperature if settings.do_sample else 0,
    }
    if settings.do_sample:
        options |= {"top_p": settings.top_p, "top_k": settings.top_k, "min_p": 0}
    lines = [f"FROM ./{gguf.FILE}", f"TEMPLATE {_quoted(template(pieces, bos))}"]
    if chat.chat_encoder.system and not chat.question:
        lines.append(f"SYSTEM {_quoted(chat.chat_encoder.system)}")
    shown = [turn for shot in chat.chat_encoder.shots for turn in shot]
    lines += [f"MESSAGE {turn.role} {_quoted(content_with_input(turn))}" for turn in shown]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in chat.stops]
    lines += [f"PARAMETER {name} {value:g}" for name, value in options.items()]
    return "\n".join(lines) + "\n"


def template(pieces: Pieces, bos: str = "") -> str:
    """Return the pieces as a Go template. bos: a beginning that Ollama adds itself."""
    before_system, after_system = pieces.system
    head, before_system = (_literal(text.removeprefix(bos)) for text in (pieces.head, before_system))
    last_end, end = _literal(pieces.last_question_end), _literal(pieces.question_end)
    if pieces.answer_end is None:
        return f"{head}{{{{ .Prompt }}}}{last_end}"
    if end != last_end:
        end = f"{{{{ if eq (len (slice $.Messages $i)) 1 }}}}{last_end}{{{{ else }}}}{end}{{{{ end }}}}"
    return (
        f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{_literal(after_system)}{{{{ else }}}}{head}{{{{ end }}}}"
        f'{{{{ range $i, $_ := .Messages }}}}{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}{end}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{_literal(pieces.answer_end)}'
        "{{ end }}{{ end }}"
    )


def split_template(chat_encoder: ChatEncoder) -> Pieces:
    """Return the pieces of a chat template. Raises ModelError where it is not made of such pieces."""
    plain = ChatEncoder(chat_encoder.tokenizer)  # the recipe's system message goes into the Modelfile
    first = plain.rendered_prompt(_turns("user"))
    second = plain.rendered_prompt(_turns("user", "assistant", "user"))
    head, _, last_end = first.partition(MARKS["user"])
    end, _, after_answer = second.partition(MARKS["user"])[2].partition(MARKS["assistant"])
    try:
        with_system = plain.rendered_prompt(_turns("system", "user"))
    except Exception as error:  # a template may refuse system messages; Ollama would drop them silently
        raise _unsupported(f"it refuses system messages: {str(error).splitlines()[0]}") from error
    before_system, _, after_system = with_system.partition(MARKS["system"])
    system = before_system, after_system.partition(MARKS["user"])[0]
    pieces = Pieces(head, system, last_end, end, after_answer.partition(MARKS["user"])[0])
    for roles in TRIALS:
        turns = _turns(*roles)
        if expand(pieces, turns) != plain.rendered_prompt(turns):
            raise _unsupported(f"it writes a conversation of {', '.join(roles)} in another way")
    return pieces


def expand(pieces: Pieces, messages: Sequence[Message]) -> str:
    """Return the prompt that Ollama makes of a conversation with `template`."""
    system = [message.content for message in messages if message.role == "system"]
    text = pieces.system[0] + system[0] + pieces.system[1] if system else pieces.head
    turns = [message for message in messages if message.role != "system"]
    for number, message in enumerate(turns, 1):
        question_end = pieces.last_question_end if number == len(turns) else pieces.question_end
        text += message.content + (question_end if message.role == "user" else str(pieces.answer_end))
    return text


def _turns(*roles: Role) -> list[Message]:
    return [Message(role, MARKS[role]) for role in roles]


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    if '"""' in text:
        raise _unsupported('it contains """, which ends a text in a Modelfile')
    return f'"""{text}"""'


def _unsupported(found: str) -> ModelError:
    return ModelError(
        "this chat template cannot be written as an Ollama template",
        found=found,
        do="export --to gguf, which has the template itself, or train with another prompt.template",
    )
