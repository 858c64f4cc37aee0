"""`tunesmith check`: look at the data as training would see it, to the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith import data, recipe as recipes, records
from tunesmith.data import summary
from tunesmith.pipeline.commands.train import source_name
from tunesmith.pipeline.fitting import inspection, methods
from tunesmith.recipe import Source
from tunesmith.types import DataNote

LEARNED, COMMON = "\033[1;32m", "\033[0m"
"""Terminal colours of learned tokens, and the way back."""


def check(source: Source | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read, split and (for models with a tokenizer) tokenize the data, and say what training would see.

    Return the data summary of the report with, for methods with a tokenizer, `tokens`: quantiles and rows that are cut;
    for generators also the share of learned tokens, and `rendered`: examples in pieces, each learned or not.
    """
    recipe = recipes.load({} if source is None else source, overrides)
    splits = data.read(recipe.data, recipe.split, recipe.seed, recipe.task)
    found: dict[str, Any] = records.dump(summary.summarize(splits, source_name(recipe)))
    found["examples"] = [
        {"id": row.id, "label": row.label, "text": row.text} for row in splits.train[: inspection.SHOWN]
    ]
    inspect = methods.find(recipe).inspect
    if inspect is not None:
        counts = inspect(recipe, splits)
        found["tokens"] = records.dump(counts.lengths)
        found["changes"] += records.dump(counts.changes)
        if counts.rendered is not None:
            found["rendered"] = records.dump(counts.rendered)
    return found


def describe(found: dict[str, Any], *, colours: bool = False) -> str:
    """Return the result of `check` as text. Without colours learned tokens stand in double brackets."""
    labels = f"{len(found['labels'])} labels, " if found["labels"] else ""
    lines = [f"{found['source']}: {labels}fingerprint {found['fingerprint'][:12]}"]
    for name, split in found["splits"].items():
        made = " (made here)" if name in found["made"] else ""
        size = split["characters"]
        lines.append(
            f"{name:10} {split['rows']:>8,} rows{made}; characters: median {size['median']:,}, longest {size['max']:,}"
        )
        shown = sorted(split["per_label"].items(), key=lambda item: -item[1])
        more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
        if shown:
            lines.append(" " * 11 + ", ".join(f"{label} {count:,}" for label, count in shown[:12]) + more)
    if tokens := found.get("tokens"):
        lines.append(_token_line(tokens))
    lines += [f"data: {line}" for line in summary.lines([DataNote(**change) for change in found["changes"]])]
    if "rendered" in found:
        return "\n".join([*lines, *(_picture(row, colours) for row in found["rendered"])])
    return "\n".join([*lines, *(f"example {r['id']} [{r['label']}]: {r['text'][:200]!r}" for r in found["examples"])])


def _token_line(tokens: dict[str, Any]) -> str:
    learned = f"; {tokens['learned']:.1%} of the tokens are learned" if "learned" in tokens else ""
    return (
        f"tokens: median {tokens['median']:,}, 95% {tokens['p95']:,}, longest {tokens['max']:,}; "
        f"{tokens['cut']:,} of {tokens['rows']:,} rows are over model.max_length={tokens['max_length']}{learned}"
    )


def _picture(row: dict[str, Any], colours: bool) -> str:
    before, after = (LEARNED, COMMON) if colours else ("[[", "]]")
    text = "".join(f"{before}{piece}{after}" if learned else piece for piece, learned in row["pieces"])
    return f"--- example {row['id']}, {row['tokens']} tokens, {row['learned']} of them learned:\n{text}"
