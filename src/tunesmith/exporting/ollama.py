"""A folder for Ollama: a GGUF file, and a Modelfile whose TEMPLATE makes the prompts of training.

Ollama has templates of its own kind (Go's text/template). They are not translated from Jinja but taken from what the
chat template writes: the pieces between the messages of a few trial conversations. Where these pieces, put together
again, do not give every trial conversation character by character, the template is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import ModelError
from tunesmith.exporting import gguf
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.protocols import ChatSpec
from tunesmith.recipe import Generate
from tunesmith.types import Example, Message

MODELFILE = "Modelfile"
MARKS = {"system": "<<system>>", "user": "<<user>>", "assistant": "<<assistant>>"}


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a chat template writes between messages."""

    head: str
    """Before the first question, where there is no system message."""
    system: tuple[str, str]
    """Before the system message, and between it and the first question."""
    opening: str
    """Behind the last question, where the answer begins."""
    asked: str = ""
    """Behind an earlier question: often the same."""
    answered: str | None = None
    """Behind an answer, where the next question begins; None where there is one question only."""


def ollama(trained: ExportSource, folder: Path) -> Exported:
    """`ollama create NAME -f Modelfile` makes a model of it that has the template, stops and settings of the run."""
    exported = gguf.gguf(trained, folder)
    parts = trained.parts
    assert parts.chat is not None  # or `gguf` has refused it
    text = modelfile(parts.chat, trained.generate, parts.max_length, gguf.begins(parts.tokenizer))
    (folder / MODELFILE).write_text(text, encoding="utf-8")
    return exported


def modelfile(chat: ChatSpec, settings: Generate, max_length: int, begins: bool) -> str:
    """Return the Modelfile. begins: whether the file's tokenizer puts its first token before every prompt by itself."""
    if chat.question:  # around the text of the user, which is all that Ollama gets
        text = chat.chat_encoder.rendered_prompt(chat.question.ask(Example("mark", MARKS["user"])))
        head, _, opening = text.partition(MARKS["user"])
        pieces = Pieces(head, ("", ""), opening)
    else:
        pieces = conversing(chat.chat_encoder)
    skipped = chat.chat_encoder.tokenizer.bos_token if begins else ""
    sampling: dict[str, Any] = {"temperature": 0}
    if settings.do_sample:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k, "min_p": 0}
    options = {
        "num_ctx": max_length,
        "num_predict": settings.max_new_tokens,
        "repeat_penalty": settings.repetition_penalty,
        **sampling,
    }
    lines = [f"FROM ./{gguf.FILE}", f"TEMPLATE {_quoted(template(pieces, skipped))}"]
    if chat.chat_encoder.system and not chat.question:
        lines.append(f"SYSTEM {_quoted(chat.chat_encoder.system)}")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in chat.stops]
    lines += [f"PARAMETER {name} {value:g}" for name, value in options.items()]
    return "\n".join(lines) + "\n"


def template(pieces: Pieces, skipped: str = "") -> str:
    """Pieces in Go's text/template. skipped: a beginning that Ollama writes itself."""
    before, between = pieces.system
    head, before = (_literal(text.removeprefix(skipped)) for text in (pieces.head, before))
    opened = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{_literal(between)}{{{{ else }}}}{head}{{{{ end }}}}"
    opening, asked = _literal(pieces.opening), _literal(pieces.asked)
    if pieces.answered is None:
        return f"{head}{{{{ .Prompt }}}}{opening}"
    last = "{{ if eq (len (slice $.Messages $i)) 1 }}"
    behind = opening if asked == opening else f"{last}{opening}{{{{ else }}}}{asked}{{{{ end }}}}"
    turns = (
        '{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ .Content }}'
        + behind
        + '{{ else if eq .Role "assistant" }}{{ .Content }}'
        + _literal(pieces.answered)
        + "{{ end }}{{ end }}"
    )
    return opened + turns


def conversing(chat_encoder: ChatEncoder) -> Pieces:
    """The pieces of a chat template. Raises ModelError where it is not made of such pieces."""
    bare = ChatEncoder(chat_encoder.tokenizer)  # a system message of the recipe goes into the Modelfile
    first = bare.rendered_prompt(_turns("user"))
    second = bare.rendered_prompt(_turns("user", "assistant", "user"))
    head, _, opening = first.partition(MARKS["user"])
    asked, _, rest = second.partition(MARKS["user"])[2].partition(MARKS["assistant"])
    answered = rest.partition(MARKS["user"])[0]
    try:
        opened = bare.rendered_prompt(_turns("system", "user"))
    except Exception as error:  # a template may refuse system messages; Ollama would drop them silently
        raise _unfit(f"it refuses system messages: {str(error).splitlines()[0]}") from error
    before, _, rest = opened.partition(MARKS["system"])
    pieces = Pieces(head, (before, rest.partition(MARKS["user"])[0]), opening, asked, answered)
    for trial in TRIALS:
        turns = _turns(*trial)
        if expand(pieces, turns) != bare.rendered_prompt(turns):
            raise _unfit(f"a conversation of {', '.join(trial)} is written in another way")
    return pieces


def expand(pieces: Pieces, messages: Sequence[Message]) -> str:
    """The prompt that Ollama makes of a conversation: what `template` says, in Python."""
    system = [message.content for message in messages if message.role == "system"]
    text = pieces.system[0] + system[0] + pieces.system[1] if system else pieces.head
    turns = [message for message in messages if message.role != "system"]
    for number, message in enumerate(turns, 1):
        question = pieces.opening if number == len(turns) else pieces.asked
        text += message.content + (question if message.role == "user" else str(pieces.answered))
    return text


TRIALS = [
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
]


def _turns(*roles: Any) -> list[Message]:
    return [Message(role, MARKS[role]) for role in roles]


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    if '"""' in text:
        raise _unfit('it has """ in it, which ends a text in a Modelfile')
    return f'"""{text}"""'


def _unfit(found: str) -> ModelError:
    return ModelError(
        "this chat template cannot be written as an Ollama template",
        found=found,
        do="export --to gguf, which has the template itself, or train with another prompt.template",
    )
