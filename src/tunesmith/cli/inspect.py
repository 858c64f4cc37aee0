"""The commands that look: at runs, and at the machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tunesmith.cli.shared import Args, Command, add_json, show_run


def _runs(args: Args) -> None:
    from tunesmith import runs

    if args.action == "list":
        print("\n".join(_run_line(run) for run in runs.listing(args.path or "runs")) or "no runs")
    else:
        show_run(runs.find(args.path or "."))


def _doctor(args: Args) -> None:
    import yaml

    from tunesmith.pipeline.commands.doctor import doctor

    found = doctor()
    print(
        json.dumps(found, indent=2) if args.json else yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end=""
    )


def _run_line(run: Any) -> str:
    manifest = run.manifest
    scores = run.path / "scores.json"
    headline = run.read("scores.json")["headline"] if scores.exists() else {}
    first = next((f"{name} {found['value']:.4f}" for name, found in headline.items()), "no scores")
    return f"{run.path}  {manifest.name:8} {first}  {manifest.data.source}"


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=["list", "show"], help="list the runs in a folder, or show one")
    command.add_argument("path", nargs="?", help="folder with runs (list; default: runs), or run directory (show)")


COMMANDS: dict[str, Command] = {
    "runs": (_runs, "list runs, or show one", _add_runs),
    "doctor": (_doctor, "show hardware, versions, extras and which number format pays", add_json),
}
