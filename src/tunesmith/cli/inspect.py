"""The commands that show runs and the machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tunesmith.cli.shared import Args, Command, add_json, show_run


class _Runs(Command):
    help = "list runs, or show one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "show"], help="list the runs in a folder, or show one")
        parser.add_argument("path", nargs="?", help="folder with runs (list; default: runs), or run directory (show)")

    def run(self, args: Args) -> None:
        from tunesmith import runs

        if args.action == "list":
            print("\n".join(map(_run_line, runs.listing(args.path or "runs"))) or "no runs")
        else:
            show_run(runs.find(args.path or "."))


class _Doctor(Command):
    help = "show hardware, versions, extras and which number format pays"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_json(parser)

    def run(self, args: Args) -> None:
        import yaml

        from tunesmith.pipeline.commands.doctor import doctor

        facts = doctor()
        text = json.dumps(facts, indent=2) if args.json else yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
        print(text, end="")


def _run_line(run: Any) -> str:
    manifest = run.manifest
    scores = run.path / "scores.json"
    headline = run.read("scores.json")["headline"] if scores.exists() else {}
    first = next((f"{name} {score['value']:.4f}" for name, score in headline.items()), "no scores")
    return f"{run.path}  {manifest.name:8} {first}  {manifest.data.source}"


COMMANDS: dict[str, Command] = {
    "runs": _Runs(),
    "doctor": _Doctor(),
}
