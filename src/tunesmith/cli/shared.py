"""What the commands share: arguments, and what they print."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tunesmith import records
from tunesmith.console import show
from tunesmith.errors import RecipeError

Args = argparse.Namespace


OPTION = re.compile(r"--[a-z_]+(\.\w+)+(?==|$)")
"""A setting that is written as an option."""
COLUMNS = {"text-column": "data.text", "text-pair-column": "data.text_pair", "label-column": "data.label"}
"""Options that name a column, and the setting of each."""


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
    for option, setting in COLUMNS.items():
        parser.add_argument(f"--{option}", metavar="NAME", help=f"the same as {setting}=NAME")


def column_settings(args: Args) -> list[str]:
    """Return the settings that the options for columns stand for."""
    named = {setting: getattr(args, option.replace("-", "_")) for option, setting in COLUMNS.items()}
    return [f"{setting}={json.dumps(name)}" for setting, name in named.items() if name is not None]


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


def show_comparison(comparison: Any) -> None:
    """Print the table, the conclusions and the path of the report."""
    from tunesmith.reporting import terminal

    show(terminal.table(comparison.report))
    show(f"\n{comparison.verdict}\n\nreport: {comparison.page}")


def show_run(run: Any) -> None:
    """Print the name, the scores and the directory of a run."""
    from tunesmith.pipeline import leaked_rows
    from tunesmith.pipeline.task_table import scores_of
    from tunesmith.reporting import clean_report

    manifest = run.manifest
    show(f"{manifest.name}: {manifest.description}")
    if (scores := scores_of(run)) is not None:
        show(describe_scores(scores))
        if (clean := leaked_rows.scores_of(run)) is not None:
            show(clean_report.sentence(clean, scores.headline))
    status, reason = manifest.state()
    if status != "finished":
        show(f"{status}: {reason}".removesuffix(": "))
    if status in ("interrupted", "failed"):
        show(f"resume: tunesmith train --resume {run.path}")
    if (notes := getattr(manifest, "notes", None)) and notes.accepted:
        show(f"accepted: {notes.accepted}")
    show(f"run: {run.path}")


def describe_scores(scores: Any) -> str:
    """Return the result of `evaluate` as text: one model's scores, or several models' side by side and the verdict."""
    from tunesmith.evaluation.metrics import ClassificationScores
    from tunesmith.evaluation.multilabel_scores import MultilabelScores
    from tunesmith.evaluation.value_scores import RegressionScores
    from tunesmith.pipeline.commands.evaluate import ComparedScores
    from tunesmith.pipeline.fitting.base_model import RunScores
    from tunesmith.reporting import terminal

    if isinstance(scores, ComparedScores):
        tables = [terminal.figures(scores.models, scores.pairs), terminal.differing_settings(scores.differing or ())]
        return "\n\n".join([*filter(None, tables), scores.verdict])
    if isinstance(scores, RunScores) and scores.base is not None:
        pair = scores.base.pair
        return terminal.figures({pair.a: scores, pair.b: scores.base}, [pair])
    if not isinstance(scores, ClassificationScores | MultilabelScores | RegressionScores):
        return terminal.figures({"score": scores}, [])
    none = scores.invalid if isinstance(scores, ClassificationScores) else 0
    invalid = f", {none:,} of them given no label" if none else ""
    without = getattr(scores, "without_probabilities", None)
    invalid += f", {without:,} without probabilities" if without else ""
    lines = [f"on {scores.rows:,} rows{invalid}, with {100 * scores.confidence:g}% intervals:"]
    width = max(18, *map(len, scores.headline))
    for name, score in scores.headline.items():
        lines.append(f"  {name:{width}} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]")
    return "\n".join(lines)
