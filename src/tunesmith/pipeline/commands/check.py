"""`tunesmith check`: look at the data as training would see it, to the token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith import recipe as recipes, records
from tunesmith.console import printable
from tunesmith.data import summary
from tunesmith.pipeline import in_memory
from tunesmith.pipeline.fitting import inspection, methods
from tunesmith.pipeline.fitting.inspection import RenderedRow, TokenCounts, TokenLengths
from tunesmith.pipeline.run_names import source_name
from tunesmith.pipeline.task_table import TASKS, read_splits
from tunesmith.records import omitted_if_none
from tunesmith.tasks import classification
from tunesmith.types import DataSummary

LEARNED, COMMON = "\033[1;32m", "\033[0m"
"""Terminal colours of learned tokens, and the way back."""


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A training row."""

    id: str
    label: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck(DataSummary):
    """The data as training would see it."""

    examples: tuple[CheckedRow, ...]
    tokens: TokenLengths | None = omitted_if_none()
    """Of methods with a tokenizer."""
    rendered: tuple[RenderedRow, ...] | None = omitted_if_none()
    """The first rows as a generator learns them."""
    prompt: str | None = omitted_if_none()
    """What a model behind an endpoint is asked about the first row."""
    suggestion: str | None = omitted_if_none()
    """Another task that the labels suggest."""


def check(source: object = None, overrides: Sequence[str] = (), **settings: object) -> DataCheck:
    """Read, split and (for models with a tokenizer) tokenize the data, and say what training would see.

    source, overrides, settings: as in `train`.
    """
    overrides = [*overrides, *recipes.overrides_of(settings)]
    recipe = recipes.load(in_memory.recipe_source({} if source is None else source, overrides), overrides)
    splits = read_splits(recipe)
    data = summary.summarize(splits, source_name(recipe))
    counts = methods.find(recipe).inspect(recipe, splits, TASKS[recipe.task].target(splits)) or TokenCounts()
    return DataCheck(
        **records.fields_of(DataSummary, data) | {"changes": (*data.changes, *counts.changes)},
        examples=tuple(
            CheckedRow(row.id, None if row.gold is None else str(row.gold), row.text)
            for row in splits.train[: inspection.SHOWN]
        ),
        tokens=counts.lengths,
        rendered=counts.rendered,
        prompt=counts.prompt,
        suggestion=classification.suggestion(splits.labels) if splits.train[0].label is not None else None,
    )


def describe(checked: DataCheck, *, colours: bool = False) -> str:
    """Return the result of `check` as printable text. Without colours learned tokens stand in double brackets."""
    lines = summary.describe(checked)
    if (tokens := checked.tokens) is not None:
        drawn = f" ({tokens.rows:,} of {tokens.drawn_from:,} rows, evenly spread)" if tokens.drawn_from else ""
        learned = "" if tokens.learned is None else f"; {tokens.learned:.1%} of the tokens are learned"
        lines.append(
            f"tokens{drawn}: median {tokens.median:,}, 95% {tokens.p95:,}, longest {tokens.max:,}; "
            f"{tokens.cut:,} of {tokens.rows:,} rows are over model.max_length={tokens.max_length}{learned}"
        )
    lines += [f"data: {line}" for line in summary.lines(checked.changes)]
    if checked.suggestion:
        lines.append(f"note: {checked.suggestion}")
    if checked.prompt is not None:
        lines.append(f"--- what is asked about {checked.examples[0].id}:\n{checked.prompt}")
        return printable("\n".join(lines))
    if checked.rendered is None:
        lines += [f"example {row.id} [{row.label}]: {row.text[:200]!r}" for row in checked.examples]
        return printable("\n".join(lines))
    lines = [printable(line) for line in lines]
    before, after = (LEARNED, COMMON) if colours else ("[[", "]]")
    for row in checked.rendered:
        pieces = [(printable(piece), learned) for piece, learned in row.pieces]
        text = "".join(f"{before}{piece}{after}" if learned else piece for piece, learned in pieces)
        lines.append(f"--- example {printable(row.id)}, {row.tokens} tokens, {row.learned} of them learned:\n{text}")
    return "\n".join(lines)
