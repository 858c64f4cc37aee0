"""Every error a user can cause or meet.

    TunesmithError
    ├── RecipeError       a recipe or an override is wrong
    ├── DataError         the data is missing, broken or contradicts itself
    │   └── InputError    an estimator cannot take these texts or targets; a ValueError too
    ├── ModelError        a model cannot be loaded, or does not fit the task
    ├── TrainingError     training cannot go on (non-finite loss, nothing to learn)
    ├── RunError          a run directory is missing, damaged, or not comparable
    ├── FileError         the system refuses a file: a full disk, a permission, a name that is too long
    ├── EndpointError     an endpoint cannot be reached, or refuses
    ├── MissingExtra      an optional package is not installed
    └── Interrupted       a signal ended training; a checkpoint was written

The command line prints these without a traceback and exits with 2; every other exception is a bug and keeps
its traceback. A message says what was expected, what was found and what to do.
"""

import re
from typing import Self

MAX_LINE = 1000
"""Characters of a line of a message."""
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*(?=@)")
"""User and password of an address."""


def shorten(text: str, limit: int = 200) -> str:
    """Return a text with its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit * 3 // 4]} ... ({len(text):,} characters) ... {text[-limit // 4 :]}"


class TunesmithError(Exception):
    """A problem that the user can fix; `do` says how. Lines are cut at MAX_LINE characters; credentials are hidden."""

    def __init__(self, problem: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        parts = [problem]
        parts += [f"  {name}: {text}" for name, text in (("expected", expected), ("found", found), ("do", do)) if text]
        lines = CREDENTIALS.sub("***", "\n".join(parts)).split("\n")
        super().__init__("\n".join(shorten(line, MAX_LINE) for line in lines))


def summary(error: BaseException) -> str:
    """Return the first line of an exception, to be quoted in a message; of another library's also the class."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return first if isinstance(error, TunesmithError) else f"{type(error).__name__}: {first}".removesuffix(": ")


class RecipeError(TunesmithError):
    """A recipe, an override or a command-line argument is wrong."""


class DataError(TunesmithError):
    """The data is missing, broken or contradicts itself; the message names file and line, and always has all parts."""

    def __init__(self, problem: str, *, expected: str, found: str, do: str) -> None:
        super().__init__(problem, expected=expected, found=found, do=do)

    def within(self, place: str) -> Self:
        """Return the error with the name of the file or table that it concerns before it."""
        self.args = (f"{place}: {self}",)
        return self


class InputError(DataError, ValueError):
    """An estimator cannot take these texts, targets or parameters; also a ValueError, which scikit-learn raises."""


class ModelError(TunesmithError):
    """A model or tokenizer cannot be loaded, or does not fit the task."""


class TrainingError(TunesmithError):
    """Training cannot go on."""


class RunError(TunesmithError):
    """A run directory is missing, damaged, or cannot be compared with another."""


class FileError(TunesmithError):
    """The system refuses a file or folder; the message names it, what is needed and the way out."""


class EndpointError(TunesmithError):
    """An endpoint cannot be reached, or refuses; replies that came before are kept in its journal."""


class MissingExtra(TunesmithError):
    """An optional package is not installed; the message has the command that adds it."""


class Interrupted(TunesmithError):
    """A signal ended training; a checkpoint was written. The exit code is 128 + signal."""

    def __init__(self, problem: str, signal: int, *, do: str) -> None:
        super().__init__(problem, do=do)
        self.signal = signal
