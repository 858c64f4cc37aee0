"""What every report says about itself: its title, when it was made, by which command, and how its runs differ."""

from __future__ import annotations

import re
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith import __version__


def command_line() -> str:
    """The command line that led here, without API keys."""
    if Path(sys.argv[0]).name not in ("tunesmith", "__main__.py"):
        return "tunesmith, from Python"
    words = [re.sub(r"^((?:judge\.)?api_key=).*", r"\1***", word, flags=re.DOTALL) for word in sys.argv[1:]]
    return shlex.join(["tunesmith", *words])


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every report says about itself; only the title has to be given."""

    title: str
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))
    command: str = field(default_factory=command_line)
    version: str = __version__


@dataclass(frozen=True, slots=True)
class DifferingSettings:
    """What the names of several runs of one method do not say: the settings that differ between them."""

    method: str
    runs: tuple[str, ...]
    """What the runs are called in the report."""
    values: dict[str, tuple[str, ...]]
    """By setting, the value of each run."""
