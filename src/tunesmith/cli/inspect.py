"""The commands that show runs and the machine."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tunesmith import records
from tunesmith.cli.shared import Args, Command, add_json, add_no_verify
from tunesmith.console import show
from tunesmith.errors import RunError

if TYPE_CHECKING:
    from tunesmith.runs import Run


class _Runs(Command):
    help = "list runs, show one, or accept what was changed in one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = (
            "list the runs in a folder (the default), show one, or take its files as they are after a change on purpose"
        )
        parser.add_argument("action", nargs="?", choices=["list", "show", "accept"], default="list", help=actions)
        parser.add_argument("path", nargs="?", help="folder with runs (list; default: runs), or run directory")
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith import runs

        if args.action == "show":
            from tunesmith.pipeline.trained_run import load_run

            show(load_run(args.path or ".").summary())
        elif args.action == "accept":
            from tunesmith.pipeline.commands.accept import accept

            changed = accept(args.path or ".")
            for name, how in changed.items():
                show(f"{name} {how}")
            show("accepted" if changed else "nothing has changed")
        else:
            listed = runs.listing(args.path or "runs")
            for run in listed:
                show(_line(run))
            if not listed:
                show("no runs")


def _line(run: Run) -> str:
    """Return a run as a line of a list."""
    from tunesmith.pipeline.fitting.methods import METHODS
    from tunesmith.pipeline.task_table import scores_of

    try:
        manifest, scores, recipe = run.manifest, scores_of(run), run.recipe
    except RunError as error:  # the others are listed all the same
        return str(error).partition("\n")[0]
    headline = {} if scores is None else scores.headline
    first = next((f"{name} {score.value:.4f}" for name, score in headline.items()), "no scores")
    status, reason = manifest.state()
    model = METHODS[manifest.method].model(recipe) or "-"
    result = first if status == "finished" else f"{status}: {reason}".removesuffix(": ")
    return f"{run.path}  {manifest.name:8} {model}  {result}  {manifest.data.source}"


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
        show(text, end="")


COMMANDS: dict[str, Command] = {
    "runs": _Runs(),
    "doctor": _Doctor(),
}
