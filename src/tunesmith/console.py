"""What people see while tunesmith works: messages and progress on stderr; results go to stdout, by the command line.

Messages go through the logger `tunesmith`. The command line installs a handler (`configure`); a notebook or a service
routes or silences them as it does any library's.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from html import escape
from types import TracebackType
from typing import Any, Protocol, TextIO, TypeVar

from tunesmith import processes

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
"""Between two progress lines where nothing can be drawn over."""
SECONDS_UNTIL_BAR, SECONDS_BETWEEN_BARS = 0.5, 0.2
"""In a notebook: before a bar is drawn, and between two drawings of it."""
FORMAT_VARIABLE = "TUNESMITH_LOG"
"""Environment variable: `json` for JSON lines instead of text."""
VALUES = "values"
"""Attribute of a log record: what a JSON line has beside the message."""
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that terminals act on, or that cannot be printed."""
WARNING = "warning: "
"""Before a message that should not be overlooked."""
LINES_OF_ERROR = 20
"""Of what a process logs before it fails."""
logger = logging.getLogger("tunesmith")
_silent = ContextVar("silent", default=False)


class Meter(Protocol):
    """A running progress display."""

    def __call__(self, done: int, text: str = "", total: int | None = None) -> None:
        """Show that `done` units of work are finished, with a few figures beside them. total: where it has changed."""
        ...


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey: control characters as JSON writes them (`\\u001b`).

    They are those of C0 and C1 (escape sequences among them) except tabs and line ends, and those that reverse the
    direction of text. JSON holds the same values afterwards.
    """
    return CONTROLS.sub(lambda match: json.dumps(match[0])[1:-1], text)


def show(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a result to stdout, or to `file`, as `printable` text; what its encoding lacks is written like JSON too."""
    file = file or sys.stdout
    text = printable(text)
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        text = re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)
    print(text, end=end, file=file, flush=not end)


def show_bytes(content: bytes) -> None:
    """Write the bytes of a file to stdout as they are; a terminal shows them as `printable` text."""
    if sys.stdout.isatty():
        show(content.decode(errors="replace").replace("\r\n", "\n"), end="")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def say(text: str, **values: object) -> None:
    """Log a message worth knowing (level INFO). values: what JSON lines have beside the message."""
    logger.info(text, stacklevel=2, extra={VALUES: values})


def warn(text: str, **values: object) -> None:
    """Log a message that should not be overlooked (level WARNING). values: as of `say`."""
    logger.warning(text, stacklevel=2, extra={VALUES: values})


def report(text: str, **values: object) -> None:
    """Log that something failed while the process goes on (level ERROR). values: as of `say`."""
    logger.error(text, stacklevel=2, extra={VALUES: values})


def fail(text: str) -> None:
    """Print why this process ends to stderr; each of several training processes may."""
    if not is_json():
        show(f"error: {text}", file=sys.stderr)
        return
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, text, (), None)
    print(_JsonLines().format(record), file=sys.stderr, flush=True)


def is_json() -> bool:
    """Return whether messages are JSON lines."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def relay(line: str, name: str) -> None:
    """Write a line that another process logged, with the name of its work: before it, or as a value of JSON."""
    if is_json():
        with suppress(ValueError, TypeError):
            line = json.dumps(json.loads(line) | {"name": name}, ensure_ascii=False)
            print(printable(line), file=sys.stderr, flush=True)
            return
    print(printable(f"[{name}] {line}"), file=sys.stderr, flush=True)


# Only the main of several training processes speaks, and nobody inside `silence`.
logger.addFilter(lambda record: processes.is_main() and not _silent.get())


class _Lines(logging.Formatter):
    """Messages as the command line prints them; with the time and the place in the code where `-v` asks for it."""

    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = prefix + message
        if logger.level > logging.DEBUG:
            return text
        return f"{self.formatTime(record)} {record.module}:{record.lineno} {text}"


class _JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, module, message; values of its own, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content = {"time": moment, "level": record.levelname.lower(), "module": record.module}
        content |= {"message": record.getMessage(), **getattr(record, VALUES, {})}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return printable(json.dumps(content, ensure_ascii=False, default=str))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is stderr at the time, which a test or a notebook may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(level: int = logging.INFO) -> None:
    """Print messages from `level` on to stderr: as text, or as JSON lines where TUNESMITH_LOG=json.

    As JSON lines also what other libraries log and warn of, and the traceback of an error that ends the process.

    The command line calls it. A program that imports tunesmith may, or configures the logger `tunesmith` itself.
    """
    logger.setLevel(level)
    handler = _StandardError()
    handler.setFormatter(_JsonLines() if is_json() else _Lines())
    logger.handlers[:] = [handler]
    logger.propagate = False
    root = logging.getLogger()  # through which the messages of other libraries go
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, _StandardError)]
    logging.captureWarnings(is_json())
    if is_json():
        root.handlers.append(handler)
        sys.excepthook = _log_exception
    elif sys.excepthook is _log_exception:
        sys.excepthook = sys.__excepthook__


def _log_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logger.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, traceback))


@contextmanager
def silence() -> Iterator[None]:
    """While open, this thread shows neither messages nor progress: a server's log is not theirs."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Go through `items` with a progress display."""
    size = len(items) if total is None and isinstance(items, Sized) else total or 0
    with meter(title, size) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done)


@contextmanager
def meter(title: str, total: int | None) -> Iterator[Meter]:
    """A progress bar in a terminal or a notebook; elsewhere a plain line every few seconds. total: None if unknown."""
    if can_draw():
        with (_notebook_bar if in_notebook() else _terminal_bar)(printable(title), total) as draw:
            yield draw
        return
    start = shown = time.monotonic()

    def show(done: int, text: str = "", total: int | None = total) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            say(_line(title, done, text, total, now - start))

    yield show


def _line(title: str, done: int, text: str, total: int | None, seconds: float) -> str:
    """Return the state of work in a line, with the time that is left where it is known."""
    left = seconds / done * (total - done) if done and total else 0.0
    count = f"{done}/{total}" if total else f"{done or ''}"
    return f"{title}: {count} {text}{f' ({left:.0f} s left)' if total else ''}".replace("  ", " ")


@contextmanager
def _terminal_bar(title: str, total: int | None) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    beside = TextColumn("{task.fields[text]}", markup=False)
    with Progress(*columns, beside, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda done, text="", total=None: bar.update(task, total=total, completed=done, text=printable(text))


@contextmanager
def _notebook_bar(title: str, total: int | None) -> Iterator[Meter]:
    """Draw a bar in the output of a cell, over itself, and leave nothing behind. Work of a moment shows none."""
    start = time.monotonic()
    shown = start + SECONDS_UNTIL_BAR - SECONDS_BETWEEN_BARS
    output: Any = None

    def draw(done: int, text: str = "", total: int | None = total) -> None:
        nonlocal shown, output
        now = time.monotonic()
        if now - shown < SECONDS_BETWEEN_BARS:
            return
        shown = now
        line = printable(_line(title, done, text, total, now - start))
        bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
        content = {"text/plain": line, "text/html": f"<small>{bar}{escape(line)}</small>"}
        output = display(content) if output is None else output.update(content, raw=True) or output

    try:
        yield draw
    finally:
        if output is not None:
            output.update({"text/plain": "", "text/html": ""}, raw=True)


def follow(lines: Iterable[bytes], title: str) -> list[str]:
    """Show in a notebook what another process logs: its last line as progress, and every warning. Returns the end."""
    last: deque[str] = deque(maxlen=LINES_OF_ERROR)
    with meter(title, None) as show:
        for line in lines:
            last.append(line.decode("utf-8", "replace").rstrip())
            if last[-1].startswith(WARNING):
                warn(last[-1].removeprefix(WARNING))
            else:
                show(0, last[-1].removeprefix(f"{title}: "))
    return list(last)


def can_draw() -> bool:
    """Return whether progress is a bar, in a terminal or a notebook; elsewhere it is lines in a log."""
    wanted = logger.level <= logging.INFO and not _silent.get() and not is_json()
    return wanted and processes.is_main() and (in_notebook() or sys.stderr.isatty())


def in_notebook() -> bool:
    """Return whether a cell of a notebook runs this, whose output may be HTML."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def display(content: Mapping[str, str]) -> Any:
    """Add to the output of the notebook's cell. content: by MIME type. Returns what `update` changes it by."""
    return sys.modules["IPython"].display.display(dict(content), raw=True, display_id=True)
