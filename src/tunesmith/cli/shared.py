"""What the commands share: arguments, and what they print."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tunesmith import records
from tunesmith.console import show
from tunesmith.errors import RecipeError
from tunesmith.types import COLUMNS

Args = argparse.Namespace


OPTION = re.compile(r"--[a-z_]+(\.\w+)+(?==|$)")
"""A setting that is written as an option."""


class Command:
    """One command: its help text, its arguments, and what it does."""

    help: ClassVar[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""
        raise NotImplementedError

    def run(self, args: Args) -> int | None:
        """Run the command; return its exit code, if that is not 0. Raises TunesmithError."""
        raise NotImplementedError


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag that asks for JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_no_verify(parser: argparse.ArgumentParser) -> None:
    """Add the flag of all commands that read runs; `cli.main` heeds it."""
    parser.add_argument(
        "--no-verify", action="store_true", help="use the files of runs as they are, even if they have changed"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the settings that follow the other arguments."""
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings on top of the recipe")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the columns of a data source, which are settings under a shorter name."""
    for name, setting in COLUMNS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="NAME", help=f"the same as {setting}=NAME")


def column_settings(args: Args) -> list[str]:
    """Return the settings that the options for columns stand for."""
    from tunesmith.recipe import overrides_of

    named = {name: getattr(args, name) for name in COLUMNS}
    return overrides_of({name: column for name, column in named.items() if column is not None})


def as_settings(words: Sequence[str]) -> list[str]:
    """Return arguments in which settings written as options, `--section.name value`, are `section.name=value`."""
    settings: list[str] = []
    name = ""
    for word in words:
        if name:
            settings.append(f"{name}={word}")
            name = ""
        elif OPTION.fullmatch(word):
            name = word.removeprefix("--")
        else:
            settings.append(word.removeprefix("--") if OPTION.match(word) else word)
    return [*settings, f"--{name}"] if name else settings


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sources and the `name=value` settings among the words; a file with `=` in its name is a source."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def source_of(args: Args) -> tuple[str | None, list[str]]:
    """Return the recipe or data source of a command, and its settings; a setting may stand in the source's place."""
    sources, overrides = split_overrides([word for word in (args.source, *args.overrides) if word])
    if len(sources) > 1:
        found = ", ".join(sources)
        raise RecipeError("several sources", expected="one recipe or data source, then section.name=value", found=found)
    return next(iter(sources), None), [*column_settings(args), *overrides]


def numbers_of(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of `--seeds`. Raises RecipeError for anything else."""
    try:
        return None if text is None else tuple(int(word) for word in text.split(","))
    except ValueError:
        raise RecipeError(f"--seeds {text}", expected="whole numbers, such as 1,2,3") from None


def names_of(text: str | None) -> tuple[str, ...] | None:
    """Return the names of `--methods`."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def add_learning_curve(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options of learning curves. default: that of the smallest part."""
    parser.add_argument("--learning-curve", action="store_true", help="train on growing parts of the data")
    rows = f"rows of the smallest part of the learning curve, for each label there is (default: {default})"
    parser.add_argument("--smallest", type=int, metavar="N", help=rows)


def show_json(content: object) -> None:
    """Print a record, a list or a mapping as JSON. Raises RunError where a number is not finite."""
    show(records.encode(content, "print this as JSON"))
