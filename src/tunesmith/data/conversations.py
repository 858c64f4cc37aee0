"""Conversations from rows: Alpaca, messages, ShareGPT, prompt/completion, `### Human:` texts, one row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from tunesmith.data import cells
from tunesmith.data.cells import InvalidRow, Values
from tunesmith.data.examples import check_columns
from tunesmith.data.rows import Columns, Row, Table, listed, no_rows
from tunesmith.errors import DataError
from tunesmith.types import DataNote, Example, Message

Turn = tuple[Any, Any, Any]
"""Role, content, and an instruction's input, as the row has them."""
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
TOOLS = ("tools", "functions")
TOOL_CALLS = ("tool_calls", "function_call")
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call", "function_response")
MARKER = re.compile(r"###\s*(Human|User|Assistant|System)\s*:", re.IGNORECASE)
ANSWER_COLUMNS = ("output", "response", "completion")
"""Columns with the last answer, which rows to predict may lack."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write conversations."""

    columns: tuple[tuple[str, ...], ...]
    """The columns that a table must have, each under one of several names."""
    optional: tuple[str, ...]
    """Further columns that are read."""
    turns: Callable[[Values], list[Turn]]
    """Return the turns of one row, unchecked."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Every column that is read."""
        return (*(name for names in self.columns for name in names), *self.optional)

    def fits(self, columns: Iterable[str], required: bool) -> bool:
        """Return whether a table's columns, or a row's keys, include all that are required."""
        needed = [names for names in self.columns if required or names[0] not in ANSWER_COLUMNS]
        return all(set(names) & set(columns) for names in needed)


@dataclass(frozen=True, slots=True)
class ConversationReader:
    """Reads the rows of task `instruction`. Without `required` a row may end with a question, as rows to predict do."""

    wanted: Columns
    format: str = "auto"
    required: bool = True

    def columns(self, table: Table) -> Columns:
        self._check(table)
        return self.wanted

    def example(self, row: Row, columns: Columns) -> Example:
        messages, _ = self._messages(row)
        answered = messages[-1].role == "assistant"
        text = "\n\n".join(map(content_with_input, messages[:-1] if answered else messages))
        return Example(row.id, text, group=cells.group(row.values, columns.group), messages=messages)

    def notes(self, row: Row, columns: Columns) -> Iterator[DataNote]:
        yield DataNote(f"conversations in format {self._format(row)}", 1)
        for what in self._messages(row)[1]:
            yield DataNote(what, 1, (row.id,))

    def unused(self, table: Table, columns: Columns) -> list[str]:
        if not self.required:
            return []
        used = {columns.group, columns.split}
        for name, form in FORMATS.items():  # a table may hold rows of several formats
            if name == self.format or (self.format == "auto" and form.fits(table.columns, self.required)):
                used.update(form.reads)
        return [column for column in table.columns if column not in used]

    def _format(self, row: Row) -> str:
        name = self.format if self.format != "auto" else detect(row.values, self.required)
        if name is None:
            raise InvalidRow("neither a question nor an answer")
        return name

    def _messages(self, row: Row) -> tuple[tuple[Message, ...], list[str]]:
        turns = FORMATS[self._format(row)].turns(row.values)
        while not self.required and turns and _role(turns[-1][0]) == "assistant" and cells.is_null(turns[-1][1]):
            turns.pop()
        return conversation(turns, self.required)

    def _check(self, table: Table) -> None:
        known = FORMATS if self.format == "auto" else {self.format: FORMATS[self.format]}
        if any(form.fits(table.columns, self.required) for form in known.values()):
            return
        if not table.columns:
            raise no_rows(table.name)
        ways = "; ".join(f"{', '.join(map('/'.join, form.columns))} ({name})" for name, form in known.items())
        raise DataError(
            f"{table.name}: the columns match no conversation format",
            expected=ways,
            found=listed(table.columns),
            do="rename them, or set data.format",
        )


@dataclass(frozen=True, slots=True)
class RawTextReader:
    """Reads raw texts, all of which is learned; as rows to predict they are prompts to go on from."""

    wanted: Columns
    required: bool = True

    def columns(self, table: Table) -> Columns:
        check_columns(table, {"data.text": self.wanted.text})
        return self.wanted

    def example(self, row: Row, columns: Columns) -> Example:
        text = cells.text(row.values.get(columns.text), "text")
        message = Message("assistant" if self.required else "user", text)
        return Example(row.id, text, group=cells.group(row.values, columns.group), messages=(message,))

    def notes(self, row: Row, columns: Columns) -> Iterator[DataNote]:
        yield DataNote("raw texts, all tokens of which are learned", 1)

    def unused(self, table: Table, columns: Columns) -> list[str]:
        used = (columns.text, columns.group, columns.split)
        return [column for column in table.columns if self.required and column not in used]


def detect(columns: Iterable[str], required: bool = True) -> str | None:
    """Return the first format whose columns are all among a table's columns, or a row's keys."""
    return next((name for name, form in FORMATS.items() if form.fits(columns, required)), None)


def conversation(turns: Sequence[Turn], required: bool = True) -> tuple[tuple[Message, ...], list[str]]:
    """Return turns as messages, and what was left out: perhaps a system message, then questions and answers in turn.

    Raises InvalidRow where turns are empty, out of order, or nothing is answered.
    """
    notes: list[str] = []
    messages = []
    for name, content, context in turns:
        role = _role(name)
        if role is None:
            tools = ": tool calls are not supported" if str(name).lower() in TOOL_ROLES else ""
            raise InvalidRow("unknown role", repr(name)[:40] + tools)
        known = cast(Literal["system", "user", "assistant"], role)
        about = "" if cells.is_null(context) else cells.text(context, "input")
        messages.append(Message(known, cells.text(content, f"{role} turn"), about))
    start = 1 if messages and messages[0].role == "system" else 0
    if len(messages) > start and messages[start].role == "assistant":
        del messages[start]
        notes.append("left out: an answer before the first question")
    if required and messages and messages[-1].role == "user":
        messages.pop()
        notes.append("left out: a last question without an answer")
    roles = [message.role for message in messages[start:]]
    if not roles or (required and len(roles) < 2):
        raise InvalidRow("no question with an answer" if required else "no question")
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        raise InvalidRow("turns out of order", " ".join(roles[:8]))
    return tuple(messages), notes


def transcript(messages: Sequence[Message]) -> str:
    """Return what is to be answered, for people: the text of a single turn, or all turns, each after its role."""
    texts = [content_with_input(message) for message in messages]
    if len(messages) == 1:
        return texts[0]
    return "\n\n".join(f"{turn.role.capitalize()}: {text}" for turn, text in zip(messages, texts, strict=True))


def content_with_input(message: Message) -> str:
    """Return the content of a message followed by its input, for templates without inputs and for people."""
    return f"{message.content}\n\n{message.input}" if message.input else message.content


def _role(name: Any) -> str | None:
    return ROLES.get(str(name).strip().lower())


def _first(values: Values, *names: str) -> Any:
    return next((values[name] for name in names if not cells.is_null(values.get(name))), None)


def _alpaca(values: Values) -> list[Turn]:
    turns = _system_turn(values)
    history = _first(values, "history") or ()
    if not isinstance(history, list | tuple) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise InvalidRow("history that is not a list of pairs", type(history).__name__)
    for asked, answered in history:
        turns += [("user", asked, ""), ("assistant", answered, "")]
    turns.append(("user", values.get("instruction"), _first(values, "input", "context")))
    return _with_answer(turns, values, "output", "response")


def _prompt_completion(values: Values) -> list[Turn]:
    prompt, completion = values.get("prompt"), _first(values, "completion", "response")
    if isinstance(prompt, list):
        return [*_turn_list(prompt), *(_turn_list(completion) if isinstance(completion, list) else ())]
    return _with_answer([*_system_turn(values), ("user", prompt, "")], values, "completion", "response")


def _with_answer(turns: list[Turn], values: Values, *names: str) -> list[Turn]:
    """Add the answer, unless the row has no column for one."""
    return [*turns, ("assistant", _first(values, *names), "")] if set(names) & set(values) else turns


def _system_turn(values: Values) -> list[Turn]:
    system = _first(values, "system")
    return [] if system is None else [("system", system, "")]


def _turns_in(values: Values, column: str) -> list[Turn]:
    for name in TOOLS:
        if str(values.get(name) or "[]").strip() not in ("[]", "null"):
            raise InvalidRow("tools that the model may call, which are not supported", f"column {name}")
    return [*_system_turn(values), *_turn_list(values.get(column))]


def _turn_list(turns: Any) -> list[Turn]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise InvalidRow("turns that are not a list of objects", type(turns).__name__)
    if called := next((name for turn in turns for name in TOOL_CALLS if turn.get(name)), None):
        raise InvalidRow("tool calls, which are not supported", f"{called} in a turn")
    return [(_first(turn, "role", "from"), _first(turn, "content", "value"), turn.get("input")) for turn in turns]


def _human_assistant(values: Values) -> list[Turn]:
    text = cells.text(values.get("text"), "text")
    before, *parts = MARKER.split(text)
    if not parts:
        raise InvalidRow("text without `### Human:` and `### Assistant:` (of raw text, data.format is text)")
    turns = [(role, content.strip(), "") for role, content in zip(parts[::2], parts[1::2], strict=True)]
    return [("system", before.strip(), ""), *turns] if before.strip() else turns


FORMATS = {
    "messages": Format((("messages",),), ("system", *TOOLS), partial(_turns_in, column="messages")),
    "sharegpt": Format((("conversations",),), ("system", *TOOLS), partial(_turns_in, column="conversations")),
    "alpaca": Format((("instruction",), ("output", "response")), ("input", "context", "system", "history"), _alpaca),
    "prompt-completion": Format((("prompt",), ("completion", "response")), ("system",), _prompt_completion),
    "human-assistant": Format((("text",),), (), _human_assistant),
}
"""In the order in which they are tried: data sets with `messages` often repeat the first prompt in `prompt`."""
COLUMNS = tuple(dict.fromkeys(column for form in FORMATS.values() for column in form.reads))
"""Every column that some format reads."""
