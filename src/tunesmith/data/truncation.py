"""Conversations -> token ids within a limit. What is cut is the prompt, never the end of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.data.prompts import ChatEncoder, Conversation, Ids, shorten
from tunesmith.data.rows import note
from tunesmith.errors import DataError
from tunesmith.types import DataNote

CHUNK = 1000
"""Conversations tokenized at once."""
Sized = TypeVar("Sized")


def encode(
    names: Sequence[str],
    conversations: Sequence[Conversation],
    chat_encoder: ChatEncoder,
    limits: Sequence[int],
    policy: str,
) -> tuple[list[EncodedText], list[DataNote]]:
    """Encode whole conversations, to learn from. names: their ids. limits: maximum tokens of each, answer included.

    policy: `truncate` shortens the prompt, `drop` leaves the row out, `error` raises DataError. A row that is too long
    even without its prompt is left out by either of the first two. A raw text, which has no prompt, is split by
    `truncate` into several rows of its name.
    """
    kept: list[EncodedText] = []
    cut: list[str] = []
    left_out: list[str] = []
    divided: list[str] = []
    for start in range(0, len(names), CHUNK):
        part = slice(start, start + CHUNK)
        rows = zip(
            names[part], conversations[part], chat_encoder.encode(conversations[part]), limits[part], strict=True
        )
        for name, messages, row, limit in rows:
            fits = len(row[0]) <= limit
            if not fits and policy == "error":
                raise DataError(
                    f"{name}: too long",
                    expected=f"at most {limit} tokens (model.max_length)",
                    found=f"{len(row[0])} tokens",
                    do="raise model.max_length, or set prompt.truncation to truncate or drop",
                )
            if not fits and policy == "truncate" and all(message.role == "assistant" for message in messages):
                kept += _windows(name, *row, limit)
                divided.append(name)
                continue
            encoded = row if fits else None
            if not fits and policy == "truncate":
                encoded = _truncated(
                    messages,
                    limit,
                    chat_encoder,
                    lambda short: chat_encoder.encode([short])[0],
                    lambda pair: len(pair[0]),
                )
                cut += [name] if encoded else []
            if encoded:
                kept.append(EncodedText(name, *encoded))
            else:
                left_out.append(name)
    what = "longer than model.max_length" + (" even with its prompt cut" if policy == "truncate" else "")
    reasons = {"cut: the prompt, to fit model.max_length": cut, f"left out: {what}": left_out}
    reasons["split into windows of model.max_length"] = divided
    return kept, [note(reason, ids) for reason, ids in reasons.items() if ids]


def _windows(name: str, ids: Ids, labels: Ids, limit: int) -> Iterator[EncodedText]:
    """Yield a text in windows of at most `limit` tokens that overlap by one, so that every token is learned once."""
    for start in range(0, len(ids) - 1, limit - 1):
        first = labels[0] if start == 0 else IGNORE
        yield EncodedText(name, ids[start : start + limit], [first, *labels[start + 1 : start + limit]])


def encode_prompts(
    conversations: Sequence[Conversation], chat_encoder: ChatEncoder, limit: int
) -> tuple[list[Ids | None], list[int]]:
    """Encode prompts of at most `limit` tokens; None for those that are too long even when cut.

    Also returns the positions of those that were cut.
    """
    encoded: list[Ids | None] = []
    cut: list[int] = []
    for start in range(0, len(conversations), CHUNK):
        chunk = conversations[start : start + CHUNK]
        for messages, ids in zip(chunk, chat_encoder.encode_prompts(chunk), strict=True):
            if len(ids) > limit:
                cut.append(len(encoded))
                encoded.append(
                    _truncated(
                        messages, limit, chat_encoder, lambda short: chat_encoder.encode_prompts([short])[0], len
                    )
                )
            else:
                encoded.append(ids)
    return encoded, cut


def _truncated(
    messages: Conversation,
    limit: int,
    chat_encoder: ChatEncoder,
    encode: Callable[[Conversation], Sized],
    length: Callable[[Sized], int],
) -> Sized | None:
    """Shorten a conversation until it fits; cutting may change how the rest is tokenized, so count again each time."""
    current: Conversation | None = messages
    while current is not None:
        ids = encode(current)
        if length(ids) <= limit:
            return ids
        current = shorten(current, length(ids) - limit, chat_encoder)
    return None
