"""The data as a tokenizer sees it, for `check`: lengths, what is cut, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tunesmith.data import summary
from tunesmith.recipe import Recipe
from tunesmith.records import omitted_if_none
from tunesmith.types import DataNote, Splits

SHOWN = 3
"""Examples shown."""
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


def count_encoded(recipe: Recipe, splits: Splits) -> TokenCounts:
    """Count the tokens of every row as an encoder reads it."""
    from tunesmith.data.encode import encode
    from tunesmith.models import pretrained

    tokenizer = pretrained.tokenizer(recipe.model)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows, _ = encode([*splits.train, *splits.validation, *splits.test], tokenizer, UNCUT)
    return TokenCounts(_lengths([len(row) for row in rows], limit))


def render(recipe: Recipe, splits: Splits) -> TokenCounts:
    """Count the tokens of every row as a generator learns it, and render the first ones."""
    from tunesmith.data.encode import IGNORE
    from tunesmith.models import pretrained
    from tunesmith.pipeline.fitting import generators

    tokenizer = pretrained.tokenizer(recipe.model)
    chat_encoder = generators.make_chat_encoder(recipe, splits.labels, tokenizer)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows = [*splits.train, *splits.validation, *splits.test]
    whole, _ = generators.encode(rows, recipe, splits.labels, chat_encoder, UNCUT)
    cut, changes = generators.encode(rows, recipe, splits.labels, chat_encoder, limit)
    learned = sum(label != IGNORE for row in cut for label in row.labels) / max(1, sum(map(len, cut)))
    shown = []
    for row in cut[:SHOWN]:
        runs = groupby(zip(row.ids, row.labels, strict=True), lambda pair: pair[1] != IGNORE)
        pieces = [
            (tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False), is_learned)
            for is_learned, run in runs
        ]
        shown.append(RenderedRow(row.id, len(row), sum(label != IGNORE for label in row.labels), pieces))
    return TokenCounts(_lengths([len(row) for row in whole], limit, learned), tuple(changes), tuple(shown))


def _lengths(lengths: Sequence[int], limit: int, learned: float | None = None) -> TokenLengths:
    quantiles = summary.quantiles(lengths)
    cut = sum(length > limit for length in lengths)
    return TokenLengths(quantiles.median, quantiles.p95, quantiles.max, limit, cut, len(lengths), learned)
