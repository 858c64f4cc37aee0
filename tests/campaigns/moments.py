"""Commands that end at a chosen moment: before one of the calls by which they write, or after some time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forked

WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
"""Audit events of changes to files; `open` for writing and `fsync` are counted too."""


COUNT = ".process.calls"
"""The file with the number of calls of a command that came to its end."""
CUT = b'{"half'
"""What is in a file whose writer was killed as it began."""


@dataclass(frozen=True)
class Moment:
    """When a command ends. call: before the n-th call that changes a file; 0 counts them all and prints the number.

    seconds: after so much time; None for never.
    """

    call: int = 0
    seconds: float | None = None
    signal: signal.Signals = signal.SIGKILL
    requests: int = 0
    """How many requests a server is sent, which then gets SIGTERM."""

    def __call__(self, folder: str, words: tuple[str, ...]) -> None:
        """Run the command in this process and end it at the moment."""
        os.chdir(folder)
        calls = _Calls(folder, self)
        sys.addaudithook(calls.audit)
        fsync = os.fsync

        def counted(handle: Any) -> None:
            calls.pass_one()
            fsync(handle)

        os.fsync = counted  # type: ignore[assignment]
        if self.seconds is not None:
            timer = threading.Timer(self.seconds, lambda: os.kill(os.getpid(), self.signal))
            timer.daemon = True
            timer.start()
        if self.requests:
            threading.Thread(target=_send, args=(words[-1].partition("=")[2], self.requests), daemon=True).start()
        try:
            forked.command(*words)
        except Exception:
            traceback.print_exc()
            os._exit(1)
        finally:
            calls.busy = True
            Path(COUNT).write_text(str(calls.number))


class _Calls:
    def __init__(self, folder: str, moment: Moment) -> None:
        self.folder, self.moment, self.number, self.busy = folder, moment, 0, False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        path: Any = arguments[0] if arguments else None
        if event == "open" and not isinstance(path, int) and _writes(arguments) and self._inside(path):
            self.pass_one(os.fsdecode(path), append="a" in (arguments[1] or "") or bool(arguments[2] & os.O_APPEND))
        elif event in WRITES and not isinstance(path, int) and self._inside(path):
            self.pass_one()

    def _inside(self, path: Any) -> bool:
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder) and not self.busy

    def pass_one(self, opened: str = "", *, append: bool = False) -> None:
        """Count a call. Killed at the opening of a file, the first bytes of what is written are there already."""
        self.number += 1
        if self.number != self.moment.call:
            return
        self.busy = True
        if opened and not os.path.isdir(opened):
            flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
            with contextlib.suppress(OSError):
                os.write(os.open(opened, flags, 0o600), CUT)
        os.kill(os.getpid(), self.moment.signal)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _send(port: str, number: int) -> None:
    body = json.dumps({"inputs": "the goal of a@b.com"}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('TUNESMITH_KEYS', '')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    deadline = time.monotonic() + 15
    while number and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(request, timeout=5).read()
        except urllib.error.HTTPError:
            pass
        except OSError:
            time.sleep(0.05)
            continue
        number -= 1
    os.kill(os.getpid(), signal.SIGTERM)
