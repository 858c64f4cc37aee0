"""Runs of tiny models that the attempts of a campaign share."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.campaigns.campaign import execute
from tests.golden import workspace
from tests.golden.cases import CASES


class TrainedRuns:
    """Runs in a folder with models, rows and recipes, each trained when the first attempt asks for it."""

    def __init__(self, folder: Path) -> None:
        workspace.build(folder)
        self.folder, self._lock = folder, threading.Lock()

    def path(self, name: str) -> Path:
        """Return a run of one of the golden cases."""
        with self._lock:
            if not (self.folder / name).exists():
                words = ("train", *CASES[name], "test_size=4", "validation_size=3", "--run-dir", name)
                result = execute(*words, folder=self.folder, seconds=120)
                assert result.exit_code == 0, result.stderr
        return self.folder / name
