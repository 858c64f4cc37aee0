"""`tunesmith check`: look at the data as training would see it, to the token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunesmith import data, recipe as recipes, records
from tunesmith.data import summary
from tunesmith.pipeline.commands.train import Source, source_name
from tunesmith.recipe import Recipe
from tunesmith.types import DataNote, Splits

SHOWN = 3
"""Examples shown."""
LEARNED, COMMON = "\033[1;32m", "\033[0m"
"""Terminal colours of learned tokens, and the way back."""


def check(source: Source, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read, split and (for models with a tokenizer) tokenize the data, and say what training would see.

    Gives the data summary of the report with, for `probe` and `encoder`, `tokens`: quantiles and rows that are cut; for
    `generator` also the share of learned tokens, and `rendered`: examples in pieces, each with whether it is learned.
    """
    recipe = recipes.load(source, overrides)
    splits = data.read(recipe.data, recipe.split, recipe.seed, recipe.task)
    found: dict[str, Any] = records.dump(summary.summarize(splits, source_name(recipe)))
    found["examples"] = [{"id": row.id, "label": row.label, "text": row.text} for row in splits.train[:SHOWN]]
    if recipe.method == "generator":
        found |= _rendered(recipe, splits)
        found["changes"] += found["tokens"].pop("changes")
    elif recipe.method != "linear":
        found["tokens"] = _tokens(recipe, splits)
    return found


def describe(found: dict[str, Any], *, colours: bool = False) -> str:
    """What `check` found, for the terminal. Without colours what is learned stands in double brackets."""
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


def _tokens(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    from tunesmith.data.encode import encode
    from tunesmith.models import pretrained

    tokenizer = pretrained.tokenizer(recipe.model)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows, _ = encode([*splits.train, *splits.validation, *splits.test], tokenizer, 10**9)
    return _lengths([len(row) for row in rows], limit)


def _lengths(lengths: Sequence[int], limit: int) -> dict[str, Any]:
    cut = sum(length > limit for length in lengths)
    return asdict(summary.quantiles(lengths)) | {"max_length": limit, "cut": cut, "rows": len(lengths)}


def _rendered(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Every row as a generator would learn it: lengths before cutting, what cutting does, and the first few rows."""
    from tunesmith.data.encode import IGNORE
    from tunesmith.data.prompts import ChatEncoder
    from tunesmith.models import pretrained
    from tunesmith.pipeline.fitting import generators

    tokenizer = pretrained.tokenizer(recipe.model)
    prompter = ChatEncoder.of(recipe.prompt, tokenizer, recipe.task)
    limit = pretrained.longest_input(recipe.model, tokenizer)
    rows = [*splits.train, *splits.validation, *splits.test]
    whole, _ = generators.encode(rows, recipe, splits.labels, prompter, 10**9)
    fitted, changes = generators.encode(rows, recipe, splits.labels, prompter, limit)
    learned = sum(label != IGNORE for row in fitted for label in row.labels) / max(1, sum(map(len, fitted)))
    shown = [_row(row.id, row.ids, row.labels, tokenizer) for row in fitted[:SHOWN]]
    said = [asdict(change) for change in changes]
    return {"tokens": _lengths(list(map(len, whole)), limit) | {"learned": learned, "changes": said}, "rendered": shown}


def _row(name: str, ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> dict[str, Any]:
    """The text of a row in runs of learned and other tokens, as decoded from the very ids."""
    from tunesmith.data.encode import IGNORE

    runs: list[tuple[list[int], bool]] = []
    for token, label in zip(ids, labels, strict=True):
        if not runs or runs[-1][1] != (label != IGNORE):
            runs.append(([], label != IGNORE))
        runs[-1][0].append(token)
    pieces = [(tokenizer.decode(run, clean_up_tokenization_spaces=False), learned) for run, learned in runs]
    return {"id": name, "tokens": len(ids), "learned": sum(label != IGNORE for label in labels), "pieces": pieces}
