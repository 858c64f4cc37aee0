"""`tunesmith check`: look at the data before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith import data, recipe as recipes
from tunesmith.data import summary
from tunesmith.pipeline.train import Source, source_name
from tunesmith.recipe import Recipe
from tunesmith.types import Change, Splits


def check(source: Source, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read, split and (for models with a tokenizer) tokenize the data, and say what training would see.

    Gives the data summary of the report with, for `probe` and `encoder`, `tokens`: quantiles and rows that are cut.
    """
    recipe = recipes.load(source, overrides)
    splits = data.read(recipe.data, recipe.split, recipe.seed)
    found = summary.summarize(splits, source_name(recipe))
    found["examples"] = [{"id": row.id, "label": row.label, "text": row.text} for row in splits.train[:3]]
    if recipe.method != "linear":
        found["tokens"] = _tokens(recipe, splits)
    return found


def describe(found: dict[str, Any]) -> str:
    """What `check` found, for the terminal."""
    lines = [f"{found['source']}: {len(found['labels'])} labels, fingerprint {found['fingerprint'][:12]}"]
    for name, split in found["splits"].items():
        made = " (made here)" if name in found["made"] else ""
        size = split["characters"]
        lines.append(
            f"{name:10} {split['rows']:>8,} rows{made}; characters: median {size['median']:,}, longest {size['max']:,}"
        )
        shown = sorted(split["per_label"].items(), key=lambda item: -item[1])
        more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
        lines.append(" " * 11 + ", ".join(f"{label} {count:,}" for label, count in shown[:12]) + more)
    if tokens := found.get("tokens"):
        lines.append(
            f"tokens: median {tokens['median']:,}, 95% {tokens['p95']:,}, longest {tokens['max']:,}; "
            f"{tokens['cut']:,} of {tokens['rows']:,} rows are cut at model.max_length={tokens['max_length']}"
        )
    lines += [f"data: {line}" for line in summary.lines([Change(**change) for change in found["changes"]])]
    lines += [f"example {row['id']} [{row['label']}]: {row['text'][:200]!r}" for row in found["examples"]]
    return "\n".join(lines)


def _tokens(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    from tunesmith.data.encode import encode
    from tunesmith.models import load

    tokenizer = load.tokenizer(recipe.model)
    limit = load.longest_input(recipe.model, tokenizer)
    rows, _ = encode([*splits.train, *splits.validation, *splits.test], tokenizer, 10**9)
    lengths = [len(row) for row in rows]
    cut = sum(length > limit for length in lengths)
    return summary.quantiles(lengths) | {"max_length": limit, "cut": cut, "rows": len(rows)}
