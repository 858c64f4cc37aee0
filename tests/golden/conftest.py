"""One workspace for all golden tests, and the golden file of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.record import Record
from tests.golden.workspace import Workspace, build

JUDGING = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TUNESMITH_JUDGE_URL", "TUNESMITH_JUDGE_KEY", "TUNESMITH_JUDGE_MODEL")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("golden"))


@pytest.fixture(autouse=True)
def _inside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Every command is given in the workspace, on a screen of one width."""
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("COLUMNS", "160")
    for name in (*JUDGING, "TUNESMITH_KEYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden(workspace: Workspace, request: pytest.FixtureRequest) -> Callable[..., Record]:
    """Name -> the record to fill and check."""

    def start(name: str) -> Record:
        update = request.config.getoption("--update-golden")
        return Record(Path(__file__).with_name(f"{name}.txt"), workspace.folder, update)

    return start
