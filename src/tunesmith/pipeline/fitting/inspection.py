"""The data as a tokenizer sees it, for `check`: lengths, what is cut, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tunesmith.data import example_table, summary
from tunesmith.data.encode import IGNORE, EncodedText, Ending
from tunesmith.recipe import Recipe
from tunesmith.records import omitted_if_none
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataNote, Example, Splits

SHOWN = 3
"""Examples shown."""
MOST_ROWS = 5_000
"""Rows that are tokenized, evenly spread over the data: more would take minutes, and say nothing else."""
UNCUT = 10**9


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths of the rows of all splits, in tokens, before they are cut."""

    median: int
    p95: int
    max: int
    max_length: int
    cut: int
    """Rows that are longer than `max_length`."""
    rows: int
    learned: float | None = omitted_if_none()
    """Share of the tokens that are learned, if only some are."""
    drawn_from: int | None = omitted_if_none()
    """Rows of the data, if not all of them were tokenized."""


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as the model learns it."""

    id: str
    tokens: int
    learned: int
    pieces: list[tuple[str, bool]]
    """Text, and whether it is learned."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The data as a method's tokenizer sees it."""

    lengths: TokenLengths | None = None
    changes: tuple[DataNote, ...] = ()
    """The rows that are cut."""
    rendered: tuple[RenderedRow, ...] | None = None
    """The first rows with their learned tokens, for methods that learn only some tokens of a row."""
    prompt: str | None = None
    """What is asked about the first training row, for methods that learn nothing."""


def count_encoded(recipe: Recipe, splits: Splits) -> TokenCounts:
    """Count the tokens of every row as an encoder reads it."""
    from tunesmith.data.encode import encode
    from tunesmith.models import pretrained

    tokenizer = pretrained.tokenizer(recipe.model)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows, _ = encode(_drawn(splits), tokenizer, UNCUT)
    return TokenCounts(_lengths([len(row) for row in rows], limit, splits))


def render(recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
    """Count the tokens of every row as a generator learns it, and render the first ones."""
    from tunesmith.models import pretrained
    from tunesmith.pipeline.fitting import generators

    tokenizer = pretrained.tokenizer(recipe.model)
    question, shots = generators.question_of(target, splits, recipe), generators.shots_of(splits, recipe)
    chat_encoder = generators.make_chat_encoder(recipe, question, tokenizer, shots)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows = _drawn(splits)
    whole, _ = generators.encode(rows, recipe, question, chat_encoder, UNCUT, shots)
    cut, changes = generators.encode(rows, recipe, question, chat_encoder, limit, shots)

    def rendered(row: EncodedText) -> RenderedRow:
        pieces: list[tuple[str, bool]] = []
        for part in _parts(row):  # each answer to one prompt in a line of its own
            runs = groupby(zip(part.ids, part.labels, strict=True), lambda pair: pair[1] != IGNORE)
            pieces += [("\n", False)] if part is not row else []
            pieces += [
                (tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False), is_learned)
                for is_learned, run in runs
            ]
        return RenderedRow(row.id, *_sizes(row), pieces)

    sizes = [_sizes(row) for row in cut]
    learned = sum(learned for _, learned in sizes) / max(1, sum(tokens for tokens, _ in sizes))
    lengths = _lengths([len(row) for row in whole], limit, splits, learned)
    return TokenCounts(lengths, tuple(changes), tuple(rendered(row) for row in cut[:SHOWN]))


def _sizes(row: EncodedText) -> tuple[int, int]:
    """Return how many tokens a row has in memory, and how many of them are learned."""
    labels = [label for part in _parts(row) for label in part.labels]
    return len(labels), sum(label != IGNORE for label in labels)


def _parts(row: EncodedText) -> list[EncodedText | Ending]:
    return [row, *row.endings]


def _drawn(splits: Splits) -> list[Example]:
    """Return the rows of all splits, or MOST_ROWS: the first ones, which are shown, and others evenly spread."""
    rows = example_table.join([splits.train, splits.validation, splits.test])
    if len(rows) > MOST_ROWS:
        spread = np.linspace(SHOWN, len(rows) - 1, MOST_ROWS - SHOWN).astype(np.int64)
        rows = example_table.take(rows, [*range(SHOWN), *spread.tolist()])
    return list(rows)


def _lengths(lengths: Sequence[int], limit: int, splits: Splits, learned: float | None = None) -> TokenLengths:
    quantiles = summary.quantiles(lengths)
    cut = sum(length > limit for length in lengths)
    total = sum(map(len, (splits.train, splits.validation, splits.test)))
    drawn_from = total if total > MOST_ROWS else None
    return TokenLengths(quantiles.median, quantiles.p95, quantiles.max, limit, cut, len(lengths), learned, drawn_from)
