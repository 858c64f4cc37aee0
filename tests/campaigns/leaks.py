"""Long loops in one process: memory and file descriptors stay flat."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests import tiny
from tests.campaigns.campaign import Campaign, Outcome, execute
from tests.campaigns.trained import TrainedRuns

MEASUREMENTS = 30
GROWTH = 16 * 2**20
"""Bytes that a loop may add to the process after its first third, over all of the rest. Allocators do not return all
that was freed, so less than this is no evidence."""


@dataclass(frozen=True)
class Loop:
    """Something that is done many times. start: returns what a step does, given the folder with the runs."""

    steps: int
    start: Callable[[Path], Iterator[None]]
    runs: tuple[str, ...] = ()


class Leaks(Campaign):
    """One of the loops, with its growth measured."""

    name = "leaks"

    def prepare(self, folder: Path) -> None:
        self.shared = TrainedRuns(folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        name = list(LOOPS)[number]
        for file in ("classification.yaml", "reviews.csv"):
            shutil.copy(self.shared.folder / file, folder)
        for model in ("bert", "words"):
            (folder / model).symlink_to(self.shared.folder / model)
        for run in LOOPS[name].runs:
            (folder / run).symlink_to(self.shared.path(run))
        result = execute(name, folder=folder, work=_measure, seconds=120)
        if result.exit_code != 0:
            return result.outcome
        measured = json.loads((folder / "growth.json").read_text())
        if measured["bytes"] > GROWTH or measured["descriptors"] > 0 or measured["threads"] > 0:
            return Outcome("memory", f"{name}: {measured}")
        return Outcome("works", f"{name}: {measured['bytes_per_step']:.0f} bytes a step")


def _measure(folder: str, words: tuple[str, ...]) -> None:
    """Write how much memory, files and threads a loop adds after its first third: the slope of a line through them."""
    os.chdir(folder)
    loop = LOOPS[words[0]]
    every, points = max(loop.steps // MEASUREMENTS, 1), []
    for step, _ in enumerate(loop.start(Path(folder)), 1):
        if step % every == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
            points.append((step, pages * os.sysconf("SC_PAGE_SIZE"), files, threads))
    points = points[len(points) // 3 :]
    slope = float(np.polyfit([step for step, *_ in points], [size for _, size, *_ in points], 1)[0])
    Path("growth.json").write_text(
        json.dumps(
            {
                "bytes_per_step": slope,
                "bytes": slope * (points[-1][0] - points[0][0]),
                "descriptors": points[-1][2] - points[0][2],
                "threads": points[-1][3] - points[0][3],
                "megabytes": points[-1][1] / 2**20,
            }
        )
    )


def _trainings(steps: int, *settings: str) -> Callable[[Path], Iterator[None]]:
    def start(folder: Path) -> Iterator[None]:
        import tunesmith

        for _ in range(steps):
            tunesmith.train("classification.yaml", settings, run_dir=folder / "run")
            shutil.rmtree(folder / "run")
            yield

    return start


def _predictions(run: str, steps: int) -> Callable[[Path], Iterator[None]]:
    def start(folder: Path) -> Iterator[None]:
        from tunesmith import runs
        from tunesmith.pipeline.fitting.methods import load_text_predictor
        from tunesmith.types import Example

        classifier = load_text_predictor(runs.find(folder / run))
        texts = [text for text, _ in tiny.texts(500)]
        for step in range(steps):
            classifier.predict([Example(str(step), f"{texts[step % len(texts)]} {step}")])
            yield

    return start


def _requests(run: str, steps: int) -> Callable[[Path], Iterator[None]]:
    def start(folder: Path) -> Iterator[None]:
        from contextlib import closing

        import httpx2 as httpx

        from tunesmith.pipeline.commands.serve import load, named
        from tunesmith.recipe import Serve
        from tunesmith.serving import app

        loop = asyncio.new_event_loop()
        with closing(load(named([folder / run]), Serve())) as handlers:
            transport = httpx.ASGITransport(app.create(handlers))
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
            for step in range(steps):
                body: dict[str, Any] = {"inputs": [f"the goal of {step}"] if step % 7 else 3}
                answer = loop.run_until_complete(client.post("/predict", json=body))
                assert answer.status_code == (200 if step % 7 else 400), answer.text
                yield
            loop.run_until_complete(client.aclose())
        loop.close()

    return start


def _comparisons(steps: int) -> Callable[[Path], Iterator[None]]:
    def start(folder: Path) -> Iterator[None]:
        import tunesmith

        for _ in range(steps):
            compared = tunesmith.compare([folder / "linear", folder / "encoder"])
            shutil.rmtree(compared.path)
            yield

    return start


LOOPS: dict[str, Loop] = {
    "requests": Loop(1_000, _requests("linear", 1_000), ("linear",)),
    "predictions of a linear model": Loop(10_000, _predictions("linear", 10_000), ("linear",)),
    "predictions of an encoder": Loop(3_000, _predictions("encoder", 3_000), ("encoder",)),
    "predictions of a generator": Loop(300, _predictions("generator_full", 300), ("generator_full",)),
    "trainings of a linear model": Loop(30, _trainings(30, "method=linear")),
    "trainings of an encoder": Loop(30, _trainings(30, "max_steps=2")),
    "comparisons": Loop(200, _comparisons(200), ("linear", "encoder")),
}
Leaks.size = len(LOOPS)
Leaks.sample = 1
