"""Six processes that write into one output at once: the last one wins, whole."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import conftest, tiny
from tests.campaigns import campaign, commands
from tests.campaigns.campaign import CLEAN, SECONDS, Campaign, Outcome, Result, execute
from tests.campaigns.commands import WRITERS

PROCESSES = 6
NAMES = (
    *("predict-csv", "predict-jsonl", "pseudo-label", "train-linear", "evaluate", "evaluate-report", "compare"),
    *("merge", "export-pth", "export-safetensors", "export-adapter"),
)


class Writers(Campaign):
    """A command six times at once, each time with data of another length where it reads data."""

    name = "writers"
    size = 11
    sample = 1

    def prepare(self, folder: Path) -> None:
        self.shared = folder
        commands.prepare(folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        name = NAMES[number % len(NAMES)]
        writer = WRITERS[name]
        commands.begin(self.shared, folder, writer)
        sizes = [commands.ROWS + 6 * process for process in range(PROCESSES)]
        for size in sizes:
            conftest.write_csv(folder / f"reviews-{size}.csv", tiny.texts(size, seed=size))
        output = f"out{writer.suffix}"
        overwrite = ("--overwrite",) if name.startswith(("predict", "pseudo")) else ()

        def run(size: int) -> Result:
            inputs = {"reviews.csv": f"../reviews-{size}.csv", "run": "../run", "answers.json": "../answers.json"}
            words = [inputs.get(word, word) for word in writer.with_output(f"../{output}")]
            place = folder / f"process-{size}"  # where what the process prints is collected
            place.mkdir()
            return execute(*words, *overwrite, folder=place, work=_slowly, seconds=PROCESSES * SECONDS)

        with ThreadPoolExecutor(PROCESSES) as pool:
            results = list(pool.map(run, sizes))
        if bad := [result.outcome for result in results if result.outcome.kind not in CLEAN]:
            return bad[0]
        told = "\n".join(f"{result.words}: {result.exit_code} {result.stderr[-300:]}" for result in results)
        wrote = sum(result.exit_code == 0 for result in results)
        if wrote < (
            PROCESSES if name.startswith(("predict", "pseudo", "evaluate")) else 1
        ):  # the others need a new name
            return Outcome("unclear", f"{name}: {wrote} wrote\n{told}")
        if stays := [path.name for path in folder.rglob(".*") if path.name.endswith((".partial", ".old", ".gone"))]:
            return Outcome("leftover", f"{name}: {stays[:5]}\n{told}")
        if problem := _mixed(folder, output, sizes):
            return Outcome("silent", f"{name}: {problem}\n{told}")
        return Outcome("works")


def _slowly(folder: str, words: tuple[str, ...]) -> None:
    """Run a command that takes two seconds between the content of its first file and the rename."""
    sync = os.fsync

    def fsync(handle: int) -> None:
        os.fsync = sync
        time.sleep(2)
        sync(handle)

    os.fsync = fsync
    campaign.command(folder, words)


def _mixed(folder: Path, output: str, sizes: list[int]) -> str:
    """Return how an output is not that of one process alone."""
    file = folder / output
    if file.suffix in (".csv", ".jsonl"):
        texts = [row["text"] for row in commands.rows(file)]
        if texts not in [[text for text, _ in tiny.texts(size, seed=size)] for size in sizes]:
            return f"{len(texts)} rows are not those of one process"
    if damage := commands.damage(folder):
        return damage
    manifest = file / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text(encoding="utf-8"))["status"] != "finished":
        return "the run has not finished"
    return ""
