"""From YAML and overrides to a checked, frozen Recipe: load -> check -> resolve -> dump."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError

from tunesmith import disk
from tunesmith.console import say
from tunesmith.errors import RecipeError, shorten, summary
from tunesmith.recipe import aliases
from tunesmith.recipe.sections import Recipe
from tunesmith.recipe.values import Tree

SECRET = ("judge.api_key", "judge.url", "endpoint.url")
"""Settings whose values appear in no message."""

SQLITE = "sqlite:///"
MAX_DEPTH = 20
"""Levels of nesting in a recipe; no setting needs more than five."""
MAX_BYTES = 2**20
"""Size of a recipe's file."""
MAX_PROBLEMS = 50
"""Problems of a recipe that its message lists."""

Source: TypeAlias = str | Path | Mapping[str, Any] | Recipe
"""What a recipe is made of: a YAML file, settings, or a Recipe; any other path or name is a data source."""


def load(source: Source, overrides: Sequence[str] = (), *, sections: Collection[str] = aliases.TRAINING) -> Recipe:
    """Return the recipe in `source` with `name=value` overrides on top.

    sections: those that overrides may set, with or without the section's name; by default those of training.
    Raises RecipeError with every problem at once: unknown keys (with the nearest name), wrong values, broken YAML.
    """
    tree, lines = _read(source)
    problems: list[str] = []
    tree = _sorted(tree, lines, problems)
    _override(tree, overrides, sections, problems)
    recipe = _check(tree, lines, problems)
    if problems or recipe is None:
        name = str(source) if isinstance(source, (str, Path)) else "the recipe"
        number = f"more than {MAX_PROBLEMS}" if len(problems) > MAX_PROBLEMS else str(len(problems))
        noun = "problem" if len(problems) == 1 else "problems"
        listed = [f"  {problem}" for problem in problems[:MAX_PROBLEMS]]
        raise RecipeError("\n".join([f"{name}: {number} {noun}", *listed]))
    return _resolve(recipe)


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with every setting; `load` returns the same recipe."""
    tree = recipe.model_dump(mode="json")
    text: str = yaml.dump(tree, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


# --- load


def _read(source: Source) -> tuple[Tree, dict[str, int]]:
    """Return the settings as they are written, and the line of each where they come from a file."""
    if isinstance(source, Recipe):
        tree = source.model_dump(mode="json", exclude_unset=True)
        secret = {"judge": tree.get("judge", {}) | {"api_key": source.judge.api_key}} if source.judge.api_key else {}
        return tree | secret, {}
    if isinstance(source, Mapping):
        return dict(source), {}
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        return {"data": {"path": str(source)}}, {}
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(
                f"{path}: not a recipe",
                expected=f"at most {MAX_BYTES // 2**20} MB of settings",
                do="give data with data.path, or on the command line",
            )
        node, tree = _parse(content.decode())
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 3, 0.5)
        do = f"did you mean {' or '.join(near)}?" if near else "write one with `tunesmith init classification`"
        raise RecipeError(f"no such recipe: {path}", do=do) from None
    except OSError as error:
        raise disk.refusal(error, "read", path) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"cannot read {path}", found=str(error), do="save it as UTF-8") from error
    except _Refused as error:
        raise RecipeError(f"{path}:{error.line}: {error}", do=error.do) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(
            f"{where}: not YAML", found=str(getattr(error, "problem", error)), do="fix the line"
        ) from error
    except ValueError as error:  # such as !!int 'x'
        what = "its name holds a zero byte" if "\0" in str(path) else "a value is not of the type that its tag says"
        raise RecipeError(f"{path}: {what}", found=str(error), do="correct it") from error
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: not a recipe", expected="settings such as `method: linear`", found=node.tag)
    return tree, dict(_lines(node, str(path)))


class _Refused(yaml.YAMLError):
    """YAML that no recipe needs, on a line."""

    def __init__(self, problem: str, line: int, do: str) -> None:
        super().__init__(problem)
        self.line, self.do = line, do


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML without anchors and aliases, which can stand for billions of values in a few lines, of limited depth.

    Numbers are those of YAML 1.2: `1e-4` is one; `0x1F`, `010`, `1:30`, `1_000` and `2026-01-31` are texts, which are
    labels or names where they stand. Types that no setting has, such as `!!set`, are unknown.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            problem = f"a recipe has no YAML anchors and aliases, such as {mark}{shorten(event.anchor, 50)}"
            raise _Refused(problem, line, f"write the value out; a text that begins with {mark} needs quotes")
        if self.depth == MAX_DEPTH:
            raise _Refused(
                f"more than {MAX_DEPTH} levels of nesting", line, "see docs/reference/recipe.md for the settings"
            )
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _RecipeDumper(yaml.SafeDumper):
    """Safe YAML, with quotes also around texts that only YAML 1.2 takes for numbers, such as `1e4`."""


INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
FLOAT = re.compile(r"[-+]?(?:(?:\.\d+|\d+\.\d*)(?:e[-+]?\d+)?|\d+e[-+]?\d+|\.inf)$|\.nan$", re.ASCII | re.IGNORECASE)
_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if (tag or "").rpartition(":")[2] not in ("set", "omap", "pairs", "binary", "timestamp")
}
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
for _class in (_RecipeLoader, _RecipeDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def _parse(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the root node of a YAML text and its value. Raises YAMLError, or ValueError for a wrong tag."""
    node, value = _parse_once(text)
    return node, copy.deepcopy(value)


@lru_cache(maxsize=4)
def _parse_once(text: str) -> tuple[yaml.Node | None, Any]:
    """Do so for a text that is read again and again, as the recipe of a run is."""
    loader = _RecipeLoader(text)
    node = loader.get_single_node()
    try:
        return node, None if node is None else loader.construct_document(node)
    except (AttributeError, LookupError, TypeError) as error:  # from `!!timestamp x` or `!!bool x`
        raise ValueError(summary(error)) from error


def _lines(node: yaml.MappingNode, name: str, prefix: str = "") -> Iterator[tuple[str, int]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise RecipeError(
                f"{name}:{line}: {prefix}{key.value} is set twice", found=f"first on line {seen[key.value]}"
            )
        seen[key.value] = line
        yield prefix + key.value, line
        if isinstance(value, yaml.MappingNode):
            yield from _lines(value, name, f"{prefix}{key.value}.")


def _sorted(written: Tree, lines: dict[str, int], problems: list[str]) -> Tree:
    """Return the settings in their sections: flat ones and names from other tools are moved, empty sections go."""
    tree: Tree = {}
    moved: list[tuple[str, str, Any]] = []
    for key, value in written.items():
        section = aliases.section(Recipe.model_fields.get(key))
        if section is not None and isinstance(value, Mapping):
            foreign = {name for name in value if name not in section.model_fields and aliases.is_foreign(name)}
            tree[key] = {name: inner for name, inner in value.items() if name not in foreign}
            moved += [(name, f"{key}.{name}", value[name]) for name in value if name in foreign]
        elif key in Recipe.model_fields and not (isinstance(value, str) and key in aliases.SECTION_SETTINGS):
            if section is None or value is not None:
                tree[key] = value
        else:
            moved.append((key, key, value))
    for name, place, value in moved:
        if len(problems) > MAX_PROBLEMS:
            break
        wrong: list[str] = []
        for setting, meant in aliases.settings(str(name), value, aliases.TRAINING, wrong).items():
            lines |= {setting: lines[place]} if place in lines else {}
            _set(tree, setting, meant, name, wrong)
        line = f"line {lines[place]}: " if place in lines else ""
        problems += [line + problem for problem in wrong]
    if not {"task", "method"} & tree.keys() and (names := [n for n in aliases.FOR_INSTRUCTIONS if n in written]):
        say(f"note: {names[0]} is for instruction tuning: task=instruction")
        tree["task"] = "instruction"
    return tree


def _override(tree: Tree, overrides: Sequence[str], sections: Collection[str], problems: list[str]) -> None:
    """Set in the tree what `name=value` overrides say, in order."""
    pairs: list[tuple[str, Any]] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            problems.append(f"{shorten(override)}: an override is written section.name=value")
            continue
        try:
            node, value = _parse(text)
        except (yaml.YAMLError, ValueError):
            value = text
        else:
            is_plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
            cut = is_plain and (node.value if node else "") != text.strip()  # `topic #1` is no comment
            if isinstance(node, yaml.MappingNode) and node.flow_style:
                dict(_lines(node, name))  # raises where a key is set twice
            if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):  # a bare bar opens a block in YAML
                cut = True
            if text.isspace() or cut or (isinstance(value, dict) and not text.lstrip().startswith("{")):
                value = text  # plain text with a colon in it only looks like a mapping, and a space may separate labels
        pairs.append((name.strip(), value))
    for name, value in pairs:
        for setting, meant in aliases.settings(name, value, sections, problems).items():
            _set(tree, setting, meant)


def _set(tree: Tree, setting: str, value: Any, name: str = "", problems: list[str] | None = None) -> None:
    """Set a value. With `problems` it may not be there already, under its own name or another than `name`."""
    *sections, last = setting.split(".")
    for section in sections:
        inside = tree.get(section)
        if aliases.section(Recipe.model_fields.get(section)) and inside is not None and not isinstance(inside, dict):
            return  # the section itself is wrong, and is named by the check
        tree[section] = dict(inside) if isinstance(inside, dict) else {}
        tree = tree[section]
    if problems is not None and last in tree and tree[last] != value:
        if {str(value), str(tree[last])} == {"lora", "qlora"}:
            value = "qlora"  # LoRA, on weights of 4 bits
        else:
            problems.append(f"{name} and {setting} are the same setting: keep one")
    tree[last] = value


# --- check


def _check(tree: Tree, lines: Mapping[str, int], problems: list[str]) -> Recipe | None:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        sections = {name.rpartition(".")[0] for name, _ in aliases.fields()} - {""}
        seen = set()
        for item in error.errors(include_url=False, include_context=False):
            if len(problems) > MAX_PROBLEMS:
                break
            parts = [str(part) for part in item["loc"]]  # may go on into a union or a list
            depth = 1
            while ".".join(parts[:depth]) in sections and depth < len(parts):
                depth += 1
            key = ".".join(parts[:depth])
            if key not in seen:
                seen.add(key)
                line = f"line {lines[key]}: " if key in lines else ""
                message = item["msg"].removeprefix("Value error, ")
                secret = isinstance(item["input"], (dict, BaseModel)) or key in SECRET
                value = "" if secret else f", not {shorten(repr(item['input']))}"
                if isinstance(item["input"], bool) and item["type"] == "string_type":
                    value += "; put quotes around yes, no, on, off, true and false"
                explained = f"{shorten(key)}: {message[0].lower() + message[1:]}{value}"
                problems.append(line + (aliases.unknown(key) if item["type"] == "extra_forbidden" else explained))
        return None


# --- resolve


def _resolve(recipe: Recipe) -> Recipe:
    """Make existing local paths absolute, so that a stored recipe works from any folder."""
    places = {"data": ("path", "train", "validation", "test"), "model": ("name_or_path", "generator", "state_dict")}
    places |= {"prompt": ("template", "shot_encoder"), "judge": ("rubric",), "serve": ("key_file",)}
    update = {}
    for name, keys in places.items():
        section = getattr(recipe, name)
        written = {key: value for key in keys if (value := getattr(section, key))}
        resolved = {key: _existing(value) for key, value in written.items()}
        changed = {key: path for key, path in resolved.items() if path and path != written[key]}
        if changed:
            update[name] = section.model_copy(update=changed)
    return recipe.model_copy(update=update)


def _existing(path: str) -> str | None:
    """Return a path as an absolute one; None where nothing is there, or cannot be.

    Of a pattern such as `data/*.csv`, and of `book.xlsx#Sheet`, what stands before the sign must be there. SQLite's
    addresses hold a path.
    """
    if path.startswith(SQLITE):
        file = _existing(path.removeprefix(SQLITE))
        return file and SQLITE + file
    try:
        local = Path(path).expanduser()
        before = re.split(r"[*?\[#]", str(local), maxsplit=1)[0]
        is_there = local.exists() or (
            before != str(local) and (Path(before).exists() or Path(f"{before}*").parent.is_dir())
        )
        return str(local.absolute()) if is_there and "://" not in path else None
    except (OSError, RuntimeError):  # names that are too long, and homes of users that there are not
        return None
