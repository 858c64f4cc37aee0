"""Instructions: the target of a conversation is its last answer."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.types import Example, Message


def strata(examples: Sequence[Example]) -> list[None]:
    """One stratum: splits are cut at random."""
    return [None] * len(examples)


def prompt(example: Example) -> tuple[Message, ...]:
    """The turns that are to be answered; of a raw text the text itself, to go on from."""
    if example.messages and all(message.role == "assistant" for message in example.messages):
        return (Message("user", example.text),)
    return example.messages if reference(example) is None else example.messages[:-1]


def reference(example: Example) -> str | None:
    """The answer that the data gives, where it has one."""
    last = example.messages[-1] if len(example.messages) > 1 else None
    return last.content if last is not None and last.role == "assistant" else None


def columns(messages: Sequence[Message]) -> dict[str, object]:
    """Return a conversation up to its last question in Alpaca's columns."""
    system = [message.content for message in messages if message.role == "system"]
    turns = [message.content for message in messages if message.role != "system"][:-1]
    columns: dict[str, object] = {"instruction": messages[-1].content, "input": messages[-1].input}
    if system:
        columns["system"] = system[0]
    if turns:
        columns["history"] = [list(pair) for pair in zip(turns[::2], turns[1::2], strict=True)]
    return columns
