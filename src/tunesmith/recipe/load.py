"""From YAML and overrides to a checked, frozen Recipe: load -> check -> resolve -> dump."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tunesmith.console import say
from tunesmith.errors import RecipeError
from tunesmith.recipe.sections import Recipe

ALIASES = {
    "base_model": "model.name_or_path",
    "model_name_or_path": "model.name_or_path",
    "cutoff_len": "model.max_length",
    "max_seq_length": "model.max_length",
    "sequence_len": "model.max_length",
    "micro_batch_size": "train.per_device_train_batch_size",
    "batch_size": "train.per_device_train_batch_size",
    "num_epochs": "train.num_train_epochs",
    "epochs": "train.num_train_epochs",
    "lr": "train.learning_rate",
    "lr_scheduler": "train.lr_scheduler_type",
    "val_size": "split.validation_size",
    "val_set_size": "split.validation_size",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "lora_rank": "adapter.r",
    "lora_r": "adapter.r",
    "lora_target": "adapter.target_modules",
    "lora_target_modules": "adapter.target_modules",
    "bnb_4bit_quant_type": "adapter.quant_type",
    "bnb_4bit_use_double_quant": "adapter.double_quant",
    "bnb_4bit_compute_dtype": "adapter.compute_dtype",
    "drop_rate": "model.dropout",
    "torch_dtype": "model.dtype",
    "torch_compile": "engine.compile",
    "compile": "engine.compile",
    "train_on_inputs": "prompt.train_on_prompt",
    "allowed_max_length": "model.max_length",
}
"""Names that other tools use -> ours. They are accepted anywhere in a recipe or an override, with a note."""

SECRET = ("judge.api_key", "judge.url")
"""Settings whose values appear in no message."""

Tree = dict[str, Any]


def load(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in `source` (a file, a nested mapping, or a Recipe) with `key=value` overrides on top.

    Raises RecipeError with every problem at once: unknown keys (with the nearest name), wrong values, broken YAML.
    """
    tree, lines = _read(source)
    problems: list[str] = []
    tree = _renamed(tree, problems)
    for override in overrides:
        _apply(tree, override, problems)
    recipe = _check(tree, lines, problems)
    if problems or recipe is None:
        name = str(source) if isinstance(source, (str, Path)) else "the recipe"
        raise RecipeError("\n".join([f"{name}: {len(problems)} problem(s)", *(f"  {problem}" for problem in problems)]))
    return _resolve(recipe)


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with every setting; `load` returns the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting as (`section.name`, pydantic field), in the order of the file."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


# --- load


def _read(source: str | Path | Mapping[str, Any] | Recipe) -> tuple[Tree, dict[str, int]]:
    if isinstance(source, Recipe):
        tree = source.model_dump(mode="json", exclude_unset=True)
        secret = {"judge": tree.get("judge", {}) | {"api_key": source.judge.api_key}} if source.judge.api_key else {}
        return tree | secret, {}
    if isinstance(source, Mapping):
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in source.items()}, {}
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 3, 0.5)
        do = f"did you mean {' or '.join(near)}?" if near else "write one with `tunesmith init classification`"
        raise RecipeError(f"no such recipe: {path}", do=do) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path}", found=str(error), do="give a YAML file in UTF-8") from error
    return _parse(text, str(path))


def _parse(text: str, name: str) -> tuple[Tree, dict[str, int]]:
    """Return the tree of a YAML text, and the line of every key in it."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(
            f"{where}: not YAML", found=str(getattr(error, "problem", error)), do="fix the line"
        ) from error
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{name}: not a recipe", expected="settings such as `method: linear`", found=node.tag)
    return tree, dict(_lines(node, name))


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


def _renamed(tree: Tree, problems: list[str]) -> Tree:
    """Return the tree with aliases, at top level or in a section, moved to their settings; empty sections go."""
    sections = {key: value for key, value in tree.items() if _is_section(key) and isinstance(value, dict)}
    result: Tree = {key: value for key, value in tree.items() if not (_is_section(key) and value is None)}
    result = {key: value for key, value in result.items() if key not in sections and not _is_alias(key, "")}
    result |= {key: {k: v for k, v in value.items() if not _is_alias(k, key)} for key, value in sections.items()}
    for key, value in tree.items():
        if _is_alias(key, ""):
            _place(result, key, value, problems)
        for inner in value if key in sections else ():
            if _is_alias(inner, key):
                _place(result, inner, value[inner], problems)
    return result


def _is_section(key: object) -> bool:
    field = Recipe.model_fields.get(str(key))
    return field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _is_alias(key: object, section: str) -> bool:
    known = Recipe.model_fields[section].annotation if section else None
    own = known.model_fields if isinstance(known, type) and issubclass(known, BaseModel) else Recipe.model_fields
    return key in ALIASES and key not in own


def _place(tree: Tree, alias: str, value: Any, problems: list[str]) -> None:
    section, name = ALIASES[alias].split(".")
    if not isinstance(tree.setdefault(section, {}), dict):
        return  # the section itself is wrong, and is named by the check
    if name in tree[section]:
        problems.append(f"{alias} and {section}.{name} are the same setting: keep one")
    say(f"note: {alias} means {section}.{name} here")
    tree[section][name] = value


def _apply(tree: Tree, override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        problems.append(f"{override}: an override is written section.name=value")
        return
    path = _path(key.strip(), problems)
    if path is None:
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        value = text  # plain text with a colon in it only looks like a mapping
    for section in path[:-1]:
        inside = tree.get(section)
        if _is_section(section) and inside is not None and not isinstance(inside, dict):
            return  # the section itself is wrong, and is named by the check
        tree[section] = dict(inside) if isinstance(inside, dict) else {}
        tree = tree[section]
    tree[path[-1]] = value


def _path(key: str, problems: list[str]) -> list[str] | None:
    """Return the path of a setting: `train.learning_rate`, an alias, or a bare name that only one section has."""
    names = [name for name, _ in fields()]
    if key in names or any(key.startswith(f"{name}.") for name in names):
        return key.split(".")
    if key in ALIASES:
        say(f"note: {key} means {ALIASES[key]} here")
        return ALIASES[key].split(".")
    homes = [name for name in names if name.split(".")[-1] == key]
    if len(homes) == 1:
        return homes[0].split(".")
    problems.append(f"{key}: ambiguous, choose {' or '.join(homes)}" if homes else _unknown(key))
    return None


# --- check


def _check(tree: Tree, lines: Mapping[str, int], problems: list[str]) -> Recipe | None:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        seen = set()
        for item in error.errors():
            key = _setting(item["loc"])
            if key not in seen:
                seen.add(key)
                line = f"line {lines[key]}: " if key in lines else ""
                message = item["msg"].removeprefix("Value error, ")
                secret = isinstance(item["input"], (dict, BaseModel)) or key in SECRET
                value = "" if secret else f", not {item['input']!r}"
                explained = f"{key}: {message[0].lower() + message[1:]}{value}"
                problems.append(line + (_unknown(key) if item["type"] == "extra_forbidden" else explained))
        return None


def _setting(loc: tuple[int | str, ...]) -> str:
    """Return the setting of a pydantic location, which may go on into a union or a list."""
    parts = [str(part) for part in loc]
    sections = {name.rpartition(".")[0] for name, _ in fields()} - {""}
    depth = 1
    while ".".join(parts[:depth]) in sections and depth < len(parts):
        depth += 1
    return ".".join(parts[:depth])


def _unknown(key: str) -> str:
    names = [name for name, _ in fields()] + list(Recipe.model_fields)
    near = difflib.get_close_matches(key, names, 1, 0.6)
    if not near:  # the right name in the wrong section, or without one
        by_last = {name.split(".")[-1]: name for name in names}
        near = [by_last[last] for last in difflib.get_close_matches(key.split(".")[-1], by_last, 1, 0.7)]
    return f"{key}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


# --- resolve


def _resolve(recipe: Recipe) -> Recipe:
    """Make existing local paths absolute, so that a stored recipe works from any folder."""
    places = {"data": ("path", "train", "validation", "test"), "model": ("name_or_path", "generator", "state_dict")}
    places |= {"prompt": ("template",), "judge": ("rubric",), "serve": ("key_file",)}
    update = {}
    for name, keys in places.items():
        section = getattr(recipe, name)
        paths = {key: Path(value).expanduser() for key in keys if (value := getattr(section, key))}
        changed = {key: str(path.resolve()) for key, path in paths.items() if path.exists()}
        changed = {key: path for key, path in changed.items() if path != getattr(section, key)}
        if changed:
            update[name] = section.model_copy(update=changed)
    return recipe.model_copy(update=update)
