"""The commands that show runs and the machine."""

from __future__ import annotations

import argparse
import json

from tunesmith import records
from tunesmith.cli.shared import Args, Command, add_json, show_run


class _Runs(Command):
    help = "list runs, or show one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "show"], help="list the runs in a folder, or show one")
        parser.add_argument("path", nargs="?", help="folder with runs (list; default: runs), or run directory (show)")

    def run(self, args: Args) -> None:
        from tunesmith import runs
        from tunesmith.pipeline.fitting.methods import METHODS
        from tunesmith.pipeline.task_table import scores_of

        if args.action == "show":
            show_run(runs.find(args.path or "."))
            return
        listed = runs.listing(args.path or "runs")
        for run in listed:
            manifest, scores = run.manifest, scores_of(run)
            headline = {} if scores is None else scores.headline
            first = next((f"{name} {score.value:.4f}" for name, score in headline.items()), "no scores")
            status, reason = manifest.state()
            model = METHODS[manifest.method].model(run.recipe) or "-"
            result = first if status == "finished" else f"{status}: {reason}".removesuffix(": ")
            print(f"{run.path}  {manifest.name:8} {model}  {result}  {manifest.data.source}")
        if not listed:
            print("no runs")


class _Doctor(Command):
    help = "show hardware, versions, extras, and the fastest number format and matmul backend"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--remeasure", action="store_true", help="measure again what is fastest on this machine")
        add_json(parser)

    def run(self, args: Args) -> None:
        import yaml

        from tunesmith.pipeline.commands.doctor import doctor

        facts = records.dump(doctor(args.remeasure))
        text = json.dumps(facts, indent=2) if args.json else yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
        print(text, end="")


COMMANDS: dict[str, Command] = {
    "runs": _Runs(),
    "doctor": _Doctor(),
}
