"""Conversations -> token ids of at most so many tokens. What is cut is the prompt, never the end of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tunesmith.data.encode import EncodedText
from tunesmith.data.prompts import ChatEncoder, Conversation, Ids, shortened
from tunesmith.data.rows import FIRST
from tunesmith.errors import DataError
from tunesmith.types import DataNote

CHUNK = 1000
"""Conversations tokenized at once."""
Sized = TypeVar("Sized")


def encode(
    names: Sequence[str],
    conversations: Sequence[Conversation],
    prompter: ChatEncoder,
    limits: Sequence[int],
    policy: str,
) -> tuple[list[EncodedText], list[DataNote]]:
    """Whole conversations, to learn from. names: their ids. limits: most tokens of each, the answer included.

    policy: `truncate` shortens the prompt, `drop` leaves the row out, `error` raises DataError. A row that no shorter
    question makes fit is left out by either of the first two.
    """
    kept: list[EncodedText] = []
    cut: list[str] = []
    out: list[str] = []
    for start in range(0, len(names), CHUNK):
        part = slice(start, start + CHUNK)
        rows = zip(names[part], conversations[part], prompter.encode(conversations[part]), limits[part], strict=True)
        for name, messages, row, limit in rows:
            fits = len(row[0]) <= limit
            if not fits and policy == "error":
                raise DataError(
                    f"{name} has {len(row[0])} tokens",
                    expected=f"at most {limit} (model.max_length)",
                    do="raise model.max_length, or set prompt.truncation to truncate or drop",
                )
            found = row if fits else None
            if not fits and policy == "truncate":
                found = _fitted(
                    messages, limit, prompter, lambda one: prompter.encode([one])[0], lambda pair: len(pair[0])
                )
                cut += [name] if found else []
            if found:
                kept.append(EncodedText(name, *found))
            else:
                out.append(name)
    what = "longer than model.max_length" + (" even with its prompt cut" if policy == "truncate" else "")
    return kept, [*_change("cut: the prompt, to fit model.max_length", cut), *_change(f"left out: {what}", out)]


def encode_openings(
    conversations: Sequence[Conversation], prompter: ChatEncoder, limit: int
) -> tuple[list[Ids | None], list[int]]:
    """Prompts, to be answered, of at most `limit` tokens, None where that cannot be; and the positions of those that
    were shortened for it.
    """
    found: list[Ids | None] = []
    cut: list[int] = []
    for start in range(0, len(conversations), CHUNK):
        part = conversations[start : start + CHUNK]
        for messages, ids in zip(part, prompter.encode_openings(part), strict=True):
            if len(ids) > limit:
                cut.append(len(found))
                found.append(_fitted(messages, limit, prompter, lambda one: prompter.encode_openings([one])[0], len))
            else:
                found.append(ids)
    return found, cut


def _fitted(
    messages: Conversation,
    limit: int,
    prompter: ChatEncoder,
    encode: Callable[[Conversation], Sized],
    length: Callable[[Sized], int],
) -> Sized | None:
    """Shortened until it fits; cutting may change how the rest is tokenized, so it is counted again."""
    current: Conversation | None = messages
    while current is not None:
        ids = encode(current)
        if length(ids) <= limit:
            return ids
        current = shortened(current, length(ids) - limit, prompter)
    return None


def _change(what: str, names: Sequence[str]) -> list[DataNote]:
    return [DataNote(what, len(names), tuple(names[:FIRST]))] if names else []
