"""The recipe explained: the commented file of `init`, and docs/reference/recipe.md, both made from the sections."""

from __future__ import annotations

import re
import textwrap
import typing
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel

from tunesmith.recipe import aliases
from tunesmith.recipe.names import OneOf
from tunesmith.recipe.sections import Recipe
from tunesmith.recipe.values import Tree

STARTS = {
    "classification": {
        "data.path": "pypi:bbc-news",
        "model.max_length": 128,
        "train.num_train_epochs": 1.0,
        "train.learning_rate": 2e-4,
    },
    "instruction": {
        "task": "instruction",
        "method": "generator",
        "data.path": "instructions.json",
        "model.name_or_path": "pypi:smollm2-135m-instruct",
        "model.max_length": 1024,
        "train.num_train_epochs": 1.0,
        "evaluate.metric_for_best_model": "loss",
    },
}
"""Settings of a new recipe, by task; the one for classification is ready to run."""


def init(task: str) -> str:
    """Return a commented recipe with every setting, ready to run."""
    start = "It runs as it is:" if task == "classification" else "With your data in data.path:"
    head = [
        f"# A tunesmith recipe for {task}. {start}  tunesmith train recipe.yaml",
        "# Point data.path at your own file and name its columns. Every other line may be left out:",
        "# values are defaults, unless marked [set]. On the command line: learning_rate=1e-4",
        "",
    ]
    return "\n".join([*head, *_commented(Recipe, "", STARTS[task])]) + "\n"


def reference() -> str:
    """Return docs/reference/recipe.md: every setting with its values, default and meaning."""
    parts = [
        "# Recipe reference",
        "",
        "Generated from `src/tunesmith/recipe/sections.py` by `make docs`. A recipe is a YAML file with these.",
        "On the command line each can follow as `section.name=value`, or `name=value` where only one section that the",
        "run uses has it.",
        "",
    ]
    top = {name: field for name, field in Recipe.model_fields.items() if not aliases.section(field)}
    parts += ["## Top level", "", *_table(top)]
    for name, field in Recipe.model_fields.items():
        if section := aliases.section(field):
            parts += _chapter(section, name)
    parts += [
        "",
        "## Names from other tools",
        "",
        "Accepted anywhere, with a note:",
        "",
        "| name | means |",
        "|---|---|",
    ]
    parts += [f"| `{alias}` | `{name}` |" for alias, name in aliases.ALIASES.items()]
    for name, known in aliases.CONVERSIONS.items():
        for value, settings in known.items():
            means = ", ".join(f"`{setting}: {_yaml(meant)}`" for setting, meant in settings.items())
            parts.append(f"| `{name}: {_yaml(value)}` | {means or 'what is done anyway'} |")
    parts += ["", f"Without effect: {', '.join(f'`{name}`' for name in aliases.NO_EFFECT)}."]
    return _linked("\n".join(parts)) + "\n"


def _linked(page: str) -> str:
    """Return a page of docs/reference with links in the place of the names of pages."""
    return re.sub(
        r"docs/(?:(reference)/)?(\w+)\.md", lambda name: f"[{name[2]}]({'' if name[1] else '../'}{name[2]}.md)", page
    )


def _chapter(section: type[BaseModel], name: str) -> list[str]:
    """Return the table of one section, and those of the sections in it."""
    own = {key: field for key, field in section.model_fields.items() if not aliases.section(field)}
    parts = ["", f"## {name}", "", _line(section.__doc__), "", *_table(own)]
    for key, field in section.model_fields.items():
        if inside := aliases.section(field):
            parts += _chapter(inside, f"{name}.{key}")
    return parts


def _commented(model: type[BaseModel], prefix: str, start: Tree) -> list[str]:
    lines: list[str] = []
    indent = "  " * prefix.count(".")
    for name, field in model.model_fields.items():
        if section := aliases.section(field):
            described = textwrap.wrap(_line(section.__doc__), 117)
            lines += ["", *(f"{indent}# {line}" for line in described), f"{indent}{name}:"]
            lines += _commented(section, f"{prefix}{name}.", start)
            continue
        key = prefix + name
        mark = "[set] " if key in start else ""
        text = f"{mark}{_line(field.description)} ({values(field.annotation, field.metadata)})"
        lines += [f"{indent}# {line}" for line in textwrap.wrap(text, 110)]
        lines.append(f"{indent}{name}: {_yaml(start.get(key, _default(field)))}")
    return lines


def _table(fields: Any) -> list[str]:
    rows = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        kinds = values(field.annotation, field.metadata).replace("|", "\\|")
        meaning = _line(field.description)
        rows.append(f"| `{name}` | {kinds} | `{_yaml(_default(field))}` | {meaning} |")
    return rows


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _yaml(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...").strip()


def values(kind: Any, bounds: Any = ()) -> str:
    """Return the values that a setting accepts, in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values(inside[0], inside[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (typing.Union, UnionType):
        return " or ".join(values(kind) for kind in inside)
    if origin is tuple:
        return f"list of {values(inside[0])}" if inside[-1] is ... else f"list of {len(inside)} {values(inside[0])}s"
    if origin is dict:
        kind, *limits = get_args(inside[1]) if get_origin(inside[1]) is Annotated else [inside[1]]
        number = "probability" if any("<= 1" in limit for limit in _limits(limits)) else "weight"
        return {float: f"`{{label: {number}}}`", str: "`{label: text}`"}.get(kind, "`{name: value}`")
    for bound in bounds:
        if isinstance(bound, AfterValidator) and isinstance(bound.func, OneOf):
            return ", ".join(f"`{name}`" for name in bound.func.names)
    word = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}.get(
        kind, "text"
    )
    return " ".join([word, *_limits(bounds)])


def _limits(bounds: Any) -> list[str]:
    flat = [limit for bound in bounds for limit in getattr(bound, "metadata", [bound])]
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    return [f"{sign} {getattr(limit, name)}" for limit in flat for name, sign in signs if hasattr(limit, name)]
