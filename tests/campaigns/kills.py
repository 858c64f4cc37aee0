"""Kills of every command that writes: nothing is half, nothing is lost, and the next run gives what it always gives."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors import safe_open

from tests.campaigns.campaign import Campaign, Outcome, Result, execute
from tests.campaigns.moments import COUNT, CUT, Moment
from tests.campaigns.trained import TrainedRuns
from tests.endpoint_server import serving
from tests.golden.cases import CASES

Words = tuple[str, ...]
Contents = dict[str, str]
"""Relative path -> what is compared of a file."""
VARIES = re.compile("second|time|bytes|date|creat|start|memory|peak|speed|device|path|folder|run|url|sha256|hash|cost")
"""Keys that two undisturbed runs do not have in common: times, costs, places and hashes of these."""
TIMED = ("manifest.json", "hashes.json", "progress.json", "parity.json", "plan.json")
"""Files with times or paths in many places, or with hashes of such: only their presence is compared."""
LOGS = ("metrics.jsonl", "audit.jsonl")
IGNORED = re.compile(r"Exception ignored in: .*\nTraceback [\s\S]*?\nKeyboardInterrupt: ?\n")
"""Ctrl-C in the moment in which Python deletes an object is lost: the command goes on."""
COUNTED = 7
"""Of ten kills of a command so many come before its n-th write; the others after some time, two of them by signals
that ask it to end."""


@dataclass(frozen=True)
class Victim:
    """A command that is killed. again: the words to go on with, where there is a run to resume; else the same words."""

    words: Words
    copied: Words = ()
    """Runs that the command writes into, copied beforehand."""
    before: Mapping[str, str] | None = None
    """Files that are there before, and replaced."""
    again: Callable[[Path], Words | None] = lambda folder: None
    requests: int = 0


def resumption(command: str, pattern: str, needed: str) -> Callable[[Path], Words | None]:
    def words(folder: Path) -> Words | None:
        begun = next((path for path in sorted(folder.glob(pattern)) if (path / needed).exists()), None)
        return None if begun is None else (command, "--resume", str(begun.relative_to(folder)))

    return words


SETTINGS = ("max_steps=3", "save_strategy=steps", "save_steps=1", "save_total_limit=1", "output_dir=runs")
BETTER = ("eval_strategy=steps", "eval_steps=1", "metric_for_best_model=log_loss")
"""A better model replaces the one before."""
RUN = ("--run-dir", "run")
RESUMED = resumption("train", "run", "manifest.json")
OLD = {"out.csv": "text,label\nold,old\n"}
VICTIMS: dict[str, Victim] = {
    "train linear": Victim(("train", *CASES["linear"], *RUN), again=RESUMED),
    "train encoder": Victim(("train", *CASES["encoder"], *SETTINGS, *BETTER, *RUN), again=RESUMED),
    "train generator": Victim(
        ("train", *CASES["generator_lora"], *SETTINGS, "test_size=4", "validation_size=3", *RUN), again=RESUMED
    ),
    "compare": Victim(
        ("compare", "classification.yaml", "--methods", "linear", "--seeds", "1,2", "output_dir=runs"),
        again=resumption("compare", "runs/*", "plan.json"),
    ),
    "sweep": Victim(("sweep", "classification.yaml", "method=linear", "linear.C=0.1,1", "--sweep-dir", "sweep")),
    "predict": Victim(("predict", "{linear}", "--data", "new.csv", "--output", "out.csv", "--overwrite"), before=OLD),
    "predict a folder": Victim(
        ("predict", "{linear}", "--data", "new.csv", "--output", "labels", "--chunk-rows", "8", "--resume")
    ),
    "pseudo-label": Victim(
        (
            "pseudo-label",
            "{linear}",
            "--data",
            "new.csv",
            "--threshold",
            "0.4",
            "--output",
            "kept.jsonl",
            "--overwrite",
        ),
        before={"kept.jsonl": '{"text": "old", "label": "old"}\n'},
    ),
    "judge": Victim(
        ("judge", "answers.json", "--url", "{url}", "--model", "loopback", "--output", "judged", "judge.controls=2")
    ),
    "evaluate": Victim(("evaluate", "answers.json", "--report", "page.html"), before={"page.html": "<html>old</html>"}),
    "export": Victim(("export", "{generator_lora}", "--to", "safetensors", "--output", "exported", "--rows", "3")),
    "merge": Victim(("merge", "{generator_lora}", "--output", "merged")),
    "serve": Victim(("serve", "{linear}", "guard.mask=[email]", "guard.audit_log=audit.jsonl"), requests=4),
    "runs accept": Victim(("runs", "accept", "linear"), copied=("linear",)),
}


class Kills(Campaign):
    """One of the commands, killed ten times: before a write, while it runs, or asked to end."""

    name = "kills"
    victims: ClassVar[Mapping[str, Victim]] = VICTIMS
    size = 10 * len(VICTIMS)
    sample = 2

    def sampled(self) -> list[int]:
        """Return kills of commands that take little time: trainings are killed in other tests, too."""
        return [len(VICTIMS) * way + list(VICTIMS).index(name) for way, name in ((3, "predict"), (5, "runs accept"))]

    def prepare(self, folder: Path) -> None:
        self.stack = contextlib.ExitStack()
        self.shared = TrainedRuns(folder)
        self.url = self.stack.enter_context(serving(lambda request: f"Score: {len(request.user) % 100}")).url
        self.whole: dict[str, tuple[int, float, Contents]] = {}

    def close(self) -> None:
        self.stack.close()

    def attempt(self, number: int, folder: Path) -> Outcome:
        name = list(self.victims)[number % len(self.victims)]
        victim, way, random = self.victims[name], number // len(self.victims), self.random(number)
        if name not in self.whole:
            whole = folder / "whole"
            whole.mkdir()
            undisturbed = self._run(victim, victim.words, whole, Moment(requests=victim.requests))
            if undisturbed.exit_code != 0:
                return Outcome("traceback", f"undisturbed {undisturbed.words}: {undisturbed.stderr[-1500:]}")
            calls = int((whole / COUNT).read_text())
            self.whole[name] = calls, undisturbed.seconds, contents(whole)
        calls, seconds, expected = self.whole[name]
        folder = folder / "killed"
        folder.mkdir()
        if way < COUNTED:
            moment = Moment(call=1 + int((way + random.random()) * calls / COUNTED), requests=victim.requests)
        else:
            asked = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[way - COUNTED]
            moment = Moment(seconds=random.uniform(0.05, 0.95) * seconds, signal=asked, requests=victim.requests)
        there = self._set_up(victim, folder)
        killed = self._run(victim, victim.words, folder, moment)
        _await_orphans(folder)
        shown = f"{name}, {moment}, exit code {killed.exit_code}\n{killed.stderr[-1500:]}"
        if "Traceback (most recent call last)" in IGNORED.sub("", killed.stderr):
            return Outcome("traceback", shown)
        if killed.exit_code is None:
            return Outcome("hang", shown)
        if half := halves(folder):
            return Outcome("silent", f"half: {half}: {shown}")
        after = contents(folder)
        if lost := [path for path, content in there.items() if after.get(path) not in (content, expected.get(path))]:
            return Outcome("silent", f"lost: {lost}: {shown}")
        again = self._run(victim, victim.again(folder) or victim.words, folder, Moment(requests=victim.requests))
        shown = f"{shown}\nthen {again.words}\n{again.stderr[-1500:]}"
        different = name != "serve" and _differences(contents(folder), expected)
        if again.exit_code != 0 and (different or again.outcome.kind != "refused"):  # it may have been done already
            return Outcome("silent", f"the next run does not work: {shown}")
        if different:
            return Outcome("silent", f"different: {different}: {shown}")
        if half := halves(folder):
            return Outcome("silent", f"half after the next run: {half}: {shown}")
        if scratch := [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name[:9] != ".process."]:
            return Outcome("leftover", f"{scratch}: {shown}")
        return Outcome("works")

    def _set_up(self, victim: Victim, folder: Path) -> Contents:
        """Write what is there before the command. Returns its contents."""
        for file in ("classification.yaml", "reviews.csv", "new.csv", "answers.json"):
            shutil.copy(self.shared.folder / file, folder)
        for name in ("bert", "words"):
            (folder / name).symlink_to(self.shared.folder / name)
        for run in victim.copied:
            shutil.copytree(self.shared.path(run), folder / run)
            settings = folder / run / "model" / "linear.json"
            settings.write_text(settings.read_text() + "\n")
        for name, content in (victim.before or {}).items():
            (folder / name).write_text(content)
        return contents(folder)

    def _run(self, victim: Victim, words: Words, folder: Path, moment: Moment) -> Result:
        if not (folder / "reviews.csv").exists():
            self._set_up(victim, folder)
        words = tuple(
            self.url if word == "{url}" else str(self.shared.path(word[1:-1])) if word[0] == "{" else word
            for word in words
        )
        if victim.requests:
            with socket.create_server(("127.0.0.1", 0)) as free:
                words += (f"port={free.getsockname()[1]}",)
        return execute(*words, folder=folder, environment={"PYTHONHASHSEED": "0"}, work=moment, seconds=60)


def contents(folder: Path) -> Contents:
    """Return what has to be the same in each file that is not scratch: of pages and pictures nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not re.search(r"(^|/)\.", name):
            name = re.sub(r"\d{4}-\d\d-\d\d_[^/]*", "TIME", name)
            content = path.read_bytes()
            if path.suffix in (".html", ".md", ".png", ".db", ".log", ".yaml") or path.name in TIMED:
                found[name] = ""
            elif path.suffix in (".json", ".jsonl"):
                # a line at a time; requests are answered in any order
                parts = sorted(content.splitlines()) if path.suffix == ".jsonl" else [content]
                found[name] = json.dumps([_settled(part) for part in parts]).replace(str(folder), "")
            else:
                found[name] = hashlib.sha256(content).hexdigest()
    return found


def _settled(content: bytes) -> Any:
    """Return JSON without what varies; what is no JSON as it is."""

    def without(value: dict[str, Any]) -> dict[str, Any]:
        return {key: item for key, item in value.items() if not VARIES.search(key)}

    try:
        return json.loads(content, object_hook=without)
    except ValueError:
        return content.decode(errors="replace")


def halves(folder: Path) -> list[str]:
    """Return the files under names of their own that are not whole, and how."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not re.search(r"(^|/)\.", name):
            try:
                _read(path)
            except Exception as error:
                found.append(f"{name}: {error!r}")
    return found


def _read(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".jsonl":
        lines = content.split(b"\n")
        # the last line of a log that is appended to may be cut: its writers cut it off or go on below it
        for line in lines[:-1]:
            if line != CUT or path.name not in LOGS:
                json.loads(line)
        if lines[-1] and path.name not in LOGS and path.parent.name != "judgements":
            raise ValueError("the last line has no end")
    elif path.suffix == ".html" and b"</html>" not in content:
        raise ValueError("no </html>")
    elif path.suffix == ".png" and b"IEND" not in content[-12:]:
        raise ValueError("no end")
    elif path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118 - no mapping
    elif path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        if len({len(row) for row in rows}) != 1:
            raise ValueError("ragged")
    elif path.suffix in (".md", ".yaml") and not content.endswith(b"\n"):
        raise ValueError("the last line has no end")


def _differences(found: Contents, expected: Contents) -> list[str]:
    """Return what is different, with the place where it begins."""
    differences = []
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name, "<missing>"), expected.get(name, "<missing>")
        is_older = "/checkpoints/" in name and name not in expected  # the next checkpoint to be written removes it
        if one != other and not is_older:
            same = next((place for place, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), 0)
            at = max(same - 80, 0)
            differences.append(f"{name}: ...{one[at : at + 160]}... instead of ...{other[at : at + 160]}...")
    return differences


def _await_orphans(folder: Path) -> None:
    """Wait for what a killed command had started, which goes on by itself."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        places = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                places.append(os.readlink(process / "cwd"))
        if not any(place.startswith(str(folder)) for place in places):
            return
        time.sleep(0.1)
