"""Damaged runs: six commands on each have to refuse it, or to do what they do with the whole run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.campaigns import damages
from tests.campaigns.campaign import Campaign, Kind, Outcome, execute, prepare

RUNS = ("linear", "encoder", "instruction_full", "probe", "generator_full", "instruction_lora")
"""As the golden tests train them."""
MODES = ("verified", "verified", "verified", "verified", "older", "unverified")
"""The manifest of an older run has no hashes; `--no-verify` uses files as they are. Both may answer otherwise."""
TIMES = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
WORST_FIRST: tuple[Kind, ...] = ("traceback", "silent", "unclear", "refused", "works")
PROOFS = {"parity.json", "hashes.json", "README.md"}
"""Files of an export that are not the model."""


class DamagedRuns(Campaign):
    """One file of a run is damaged; a process gives six commands."""

    name = "damaged-runs"
    size = 204
    sample = 2

    def prepare(self, folder: Path) -> None:
        from tests.golden import workspace

        self.workspace, self.lock = workspace.build(folder).folder, threading.Lock()
        self.whole: dict[str, list[dict[str, Any]]] = {}

    def attempt(self, number: int, folder: Path) -> Outcome:
        name, mode = RUNS[number % len(RUNS)], MODES[number // len(RUNS) % len(MODES)]
        with self.lock:
            if name not in self.whole:
                self.whole[name] = self._trained(name, folder / "whole")
        run = self._copied(name, folder)
        if mode == "older":
            content = json.loads((run / "manifest.json").read_text())
            older = {key: value for key, value in content.items() if key not in ("hashes", "sha256")}
            (run / "manifest.json").write_text(json.dumps(older, indent=2))
        sibling = f"{name}43" if name == "linear" else f"{RUNS[(number + 3) % len(RUNS)]}42"
        file, damage = damages.damage(run, self.workspace / "runs" / sibling, self.random(number), number)
        given = _given(run, folder, mode == "unverified")
        if isinstance(given, Outcome):
            return Outcome(given.kind, f"{mode} {name}: {file}: {damage}\n{given.detail}")
        judged = [_judged(*pair, file, mode) for pair in zip(given, self.whole[name], strict=True)]
        worst = min(judged, key=lambda outcome: WORST_FIRST.index(outcome.kind))
        return Outcome(worst.kind, f"{mode} {name}: {file}: {damage}\n{worst.detail}")

    def _trained(self, name: str, folder: Path) -> list[dict[str, Any]]:
        """Train a run, and return what the commands do with it while it is whole."""
        from tests.golden.cases import CASES

        for seed in (42, 43):
            words = (*CASES[name], f"seed={seed}", "--run-dir", f"runs/{name}{seed}")
            if name == "linear" or seed == 42:
                prepare("train", *words, folder=self.workspace)
        folder.mkdir()
        given = _given(self._copied(name, folder), folder, False)
        assert isinstance(given, list), given.detail
        assert all(result["code"] == 0 for result in given), given
        return given

    def _copied(self, name: str, folder: Path) -> Path:
        """Return a copy of a run, beside one that stays whole."""
        for place in ("other", name):
            shutil.copytree(self.workspace / "runs" / f"{name}42", folder / "runs" / place)
        return folder / "runs" / name


def _given(run: Path, folder: Path, unverified: bool) -> list[dict[str, Any]] | Outcome:
    """Return what six commands did, the one that writes into the run last; or an outcome of the process as a whole."""
    place = f"runs/{run.name}"
    commands = [
        ["runs", "list", "runs"],
        ["compare", place, "runs/other"],
        ["chat", place]
        if run.name == "instruction_full"
        else ["predict", place, "--text", "the goal of the team", "--text", "a robot with code"],
        ["merge", place, "--output", "out"]
        if run.name.endswith("lora")
        else ["export", place, "--to", "safetensors", "--output", "out"],
        ["serve", place, "port=0"],
        ["evaluate", place, "--json"],
    ]
    more = ["--no-verify"] if unverified else []
    environment = {
        "TUNESMITH_CACHE": str(folder / "cache"),
        "COMMANDS": json.dumps([[*one, *more] for one in commands]),
    }
    result = execute(folder=folder, environment=environment, work=_give)
    if result.exit_code == 0 and result.outcome.kind == "works":
        results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
        return results
    return result.outcome


def _judged(result: dict[str, Any], whole: dict[str, Any], file: str, mode: str) -> Outcome:
    """Judge a command by what it did with the whole run."""
    shown = f"tunesmith {' '.join(result['words'])}: exit code {result['code']}\n{result['err'][-1500:]}"
    if result["code"] not in (0, 2) or "Traceback" in result["err"]:
        return Outcome("traceback", shown)
    if result["code"] == 2:
        named = "" if file == "manifest.json" else f"{file} "  # instead of another run's manifest the recipe is named
        unnamed = mode == "verified" and f" is damaged: {named}" not in result["err"]
        return Outcome("unclear" if unnamed else "refused", shown)
    same = all(result[part] == whole[part] for part in ("out", "files"))
    said = mode == "unverified" or "damaged" in result["err"] + result["out"]
    if same or said or mode == "older":
        return Outcome("works")
    return Outcome("silent", f"{shown}\n{result['out'][-800:]}\nof the whole run:\n{whole['out'][-800:]}")


def _give(folder: str, words: tuple[str, ...]) -> None:
    """Give the commands in this process, and write what each did."""
    from tunesmith.cli import main

    os.chdir(folder)
    results = []
    for command in json.loads(os.environ["COMMANDS"]):
        out, err = io.StringIO(), io.StringIO()
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with streams[0], streams[1], _answering_once(), patch.object(sys, "stdin", io.StringIO("Name the topic.\n")):
            try:
                code = main(command)
            except (Exception, SystemExit):
                code = 1
                traceback.print_exc()
        shown, files = TIMES.sub("", out.getvalue()), {}
        if command[0] in ("export", "merge"):
            exported = sorted(path for path in Path("out").rglob("*") if path.is_file() and path.name not in PROOFS)
            shown, files = "", {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in exported}
        results.append({"words": command, "code": code, "out": shown, "err": err.getvalue(), "files": files})
    Path("results.json").write_text(json.dumps(results))


@contextlib.contextmanager
def _answering_once() -> Any:
    """Within this, `serve` loads its models, answers one request and ends."""

    def run(app: Any, *_: object) -> None:
        from tests.serving_fakes import client

        async def ask() -> str:
            async with client(app) as http:
                body = {"messages": [{"role": "user", "content": "the goal"}], "max_tokens": 4}
                answers = [
                    await http.post("/predict", json={"inputs": "the goal of the team"}),
                    await http.post("/v1/chat/completions", json=body),
                ]
            rows = [answer.json() for answer in answers if answer.status_code == 200]
            return json.dumps([row.get("predictions") or row["choices"] for row in rows])

        print(asyncio.run(ask()))

    with patch("tunesmith.serving.server.run", run):
        yield
