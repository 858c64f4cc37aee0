"""What the commands share: arguments, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Args = argparse.Namespace
Command = tuple[Callable[[Args], None], str, Callable[[argparse.ArgumentParser], None]]
"""What it does, in words too, and what adds its arguments."""


def add_json(command: argparse.ArgumentParser) -> None:
    """The flag that asks for JSON."""
    command.add_argument("--json", action="store_true", help="print JSON")


def add_overrides(command: argparse.ArgumentParser) -> None:
    """Settings behind the other arguments."""
    command.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings on top of the recipe")


def is_override(word: str) -> bool:
    """Whether a word is a setting and no file."""
    return "=" in word and not Path(word).exists()


def show_comparison(comparison: Any) -> None:
    """Table, verdict, and where the page is."""
    from tunesmith.reporting import terminal

    print(terminal.table(comparison.report))
    print(f"\n{comparison.verdict}\n\nreport: {comparison.page}")


def show_run(run: Any) -> None:
    """Name, scores and place of a run."""
    manifest = run.manifest
    print(f"{manifest.name}: {manifest.description}")
    if (run.path / "scores.json").exists():
        print(show_scores(run.read("scores.json")))
    print(f"run: {run.path}")


def show_scores(scores: dict[str, Any]) -> str:
    """What `evaluate` gives, for people: one model's figures, or several models' side by side and the verdict."""
    from tunesmith import records
    from tunesmith.evaluation.response_pairs import ResponsePair
    from tunesmith.evaluation.responses import GenerationScores
    from tunesmith.pipeline.fitting.base_model import RunScores
    from tunesmith.reporting import terminal

    if "models" in scores:
        models = {name: records.load(GenerationScores, of_one, name) for name, of_one in scores["models"].items()}
        pairs = [records.load(ResponsePair, pair, "pairs") for pair in scores["pairs"]]
        return f"{terminal.figures(models, pairs)}\n\n{scores['verdict']}"
    if "flaws" in scores:
        run = records.load(RunScores, scores, "scores")
        if run.base is None:
            return terminal.figures({"score": run}, [])
        pair = run.base.pair
        return terminal.figures({pair.a: run, pair.b: run.base}, [pair])
    return headline(scores)


def headline(scores: dict[str, Any]) -> str:
    """Scores with their intervals, a line each."""
    invalid = f", {scores['invalid']:,} of them given no label" if scores.get("invalid") else ""
    lines = [f"on {scores['rows']:,} rows{invalid}, with {100 * scores['confidence']:g}% intervals:"]
    for name, value in scores["headline"].items():
        lines.append(f"  {name:18} {value['value']:.4f}  [{value['low']:.4f}, {value['high']:.4f}]")
    return "\n".join(lines)
