"""Instructions: the target of a conversation is its last answer."""

from __future__ import annotations

from tunesmith.types import Example, Message


def prompt(example: Example) -> tuple[Message, ...]:
    """The turns that are to be answered."""
    return example.messages if reference(example) is None else example.messages[:-1]


def reference(example: Example) -> str | None:
    """The answer that the data gives, where it has one."""
    last = example.messages[-1] if example.messages else None
    return last.content if last is not None and last.role == "assistant" else None
