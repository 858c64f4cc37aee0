"""What every test stands on: no network, no trackers, a cache of its own, tiny models and texts."""

from __future__ import annotations

import csv
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import pytest

from tests import tiny
from tunesmith import console
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

console.configure()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files of tests/golden anew")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails; loopback and local sockets work."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "localhost", "::1")):  # type: ignore[index]
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium by playwright; a test that needs it is skipped without."""
    sync = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium")
    with sync.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family name -> folder with a tiny model, built once."""
    root = tmp_path_factory.mktemp("models")

    def build(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else tiny.model(family, folder)

    return build


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV file with 240 texts of three labels."""
    return write_csv(tmp_path / "reviews.csv", tiny.texts(240))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit-exact comparisons need a fixed number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps its settings for the process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `compare`, `sweep` and `--seeds` train in other processes is trained in this one, which is quicker."""
    from tunesmith.pipeline.commands.train import train as train_here
    from tunesmith.pipeline.fitting import subprocess

    def train(recipe: Recipe, folder: Path, *, skip_test: bool = False, held: int | None = None) -> Run:
        with console.silence():
            return train_here(recipe, run_dir=folder, skip_test=skip_test, quiet=True)

    monkeypatch.setattr(subprocess, "train", train)


def write_csv(path: Path, rows: list[tuple[str, str]], names: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path
