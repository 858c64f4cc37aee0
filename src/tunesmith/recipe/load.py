"""From YAML and overrides to a checked, frozen Recipe: load -> check -> resolve -> dump."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError

from tunesmith.console import say
from tunesmith.errors import RecipeError
from tunesmith.recipe import aliases
from tunesmith.recipe.sections import Recipe
from tunesmith.recipe.values import Tree

SECRET = ("judge.api_key", "judge.url")
"""Settings whose values appear in no message."""

MAX_DEPTH = 20
"""Levels of nesting in a recipe; no setting needs more than five."""

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
        raise RecipeError("\n".join([f"{name}: {len(problems)} problem(s)", *(f"  {problem}" for problem in problems)]))
    return _resolve(recipe)


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with every setting; `load` returns the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


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
        text = path.read_text(encoding="utf-8")
        node, tree = _parse(text)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 3, 0.5)
        do = f"did you mean {' or '.join(near)}?" if near else "write one with `tunesmith init classification`"
        raise RecipeError(f"no such recipe: {path}", do=do) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path}", found=str(error), do="give a YAML file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(
            f"{where}: not YAML", found=str(getattr(error, "problem", error)), do="fix the line"
        ) from error
    except ValueError as error:  # such as !!int 'x'
        raise RecipeError(f"{path}: a value is not of the type that its tag says", found=str(error)) from error
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: not a recipe", expected="settings such as `method: linear`", found=node.tag)
    return tree, dict(_lines(node, str(path)))


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML without aliases, which can stand for billions of values in a few lines, and of limited depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name): write the value out", problem_mark=mark)
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels of nesting", problem_mark=mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _parse(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the root node of a YAML text and its value. Raises YAMLError, or ValueError for a wrong tag."""
    loader = _RecipeLoader(text)
    node = loader.get_single_node()
    return node, None if node is None else loader.construct_document(node)


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
            problems.append(f"{override}: an override is written section.name=value")
            continue
        try:
            value = _parse(text)[1]
        except (yaml.YAMLError, ValueError):
            value = text
        if isinstance(value, dict) and not text.lstrip().startswith("{"):
            value = text  # plain text with a colon in it only looks like a mapping
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
        for item in error.errors():
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
                value = "" if secret else f", not {item['input']!r}"
                explained = f"{key}: {message[0].lower() + message[1:]}{value}"
                problems.append(line + (aliases.unknown(key) if item["type"] == "extra_forbidden" else explained))
        return None


# --- resolve


def _resolve(recipe: Recipe) -> Recipe:
    """Make existing local paths absolute, so that a stored recipe works from any folder; links keep their suffix."""
    places = {"data": ("path", "train", "validation", "test"), "model": ("name_or_path", "generator", "state_dict")}
    places |= {"prompt": ("template",), "judge": ("rubric",), "serve": ("key_file",)}
    update = {}
    for name, keys in places.items():
        section = getattr(recipe, name)
        paths = {key: Path(value).expanduser() for key in keys if (value := getattr(section, key))}
        changed = {key: str(path.absolute()) for key, path in paths.items() if path.exists()}
        changed = {key: path for key, path in changed.items() if path != getattr(section, key)}
        if changed:
            update[name] = section.model_copy(update=changed)
    return recipe.model_copy(update=update)
