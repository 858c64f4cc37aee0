"""SHA-256 of the files of runs, models and checkpoints: recorded when they are written, compared before they are used.

A large file is hashed once and remembered in the user's cache for its place, inode, size and times of change. Every
write through the file system changes one of these. What does not, such as a block that decays on the disk, is not
noticed until the file is copied or the cache emptied.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tunesmith import assets, records
from tunesmith.console import warn
from tunesmith.errors import RunError, TunesmithError, summary

MANIFEST, HASHES, PLAN = "manifest.json", "hashes.json", "plan.json"
LARGE = 1 << 20
"""Bytes above which a file is hashed once."""
SETTLED = 2_000_000_000
"""Nanoseconds after its last change from which on a file is remembered: the coarsest clock of a file system has 2 s."""
UNSIGNED = "0" * 64
"""What stands for the hash of a file in the text that is hashed."""
CHANGED, MISSING, NEW = "has changed since it was written", "is missing", "was added after the rest was written"

_enabled: ContextVar[bool] = ContextVar("enabled", default=True)


@contextmanager
def disabled() -> Iterator[None]:
    """Within this, files are used as they are."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@contextmanager
def unverified() -> Iterator[None]:
    """Do the same at the user's wish, with a warning. What then fails because of damage is a RunError."""
    warn("--no-verify: the files of runs are used as they are, and damage to them may go unnoticed")
    with disabled():
        try:
            yield
        except (TunesmithError, OSError):
            raise
        except Exception as error:  # a damaged file can fail anywhere
            do = "leave --no-verify out to learn which files have changed"
            raise RunError("cannot use the files as they are", found=summary(error), do=do) from error


def enabled() -> bool:
    """Return whether files are compared with their hashes before they are used."""
    return _enabled.get()


def digest(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def signed(text: bytes) -> bytes:
    """Return a text that contains UNSIGNED once, with its hash in that place."""
    return text.replace(UNSIGNED.encode(), hashlib.sha256(text).hexdigest().encode())


def is_signed(text: bytes, signature: object) -> bool:
    """Return whether a text contains its own hash, as `signed` put it there."""
    unsigned = text.replace(str(signature).encode(), UNSIGNED.encode())
    return hashlib.sha256(unsigned).hexdigest() == signature


def hashes(folder: Path) -> dict[str, str]:
    """Return the digest of every file under a folder that can matter to who loads it, by its path there."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / HASHES)
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: digest(file) for name, file in names.items() if _matters(name)}


def difference(file: Path, expected: str) -> str | None:
    """Return how a file differs from what was written, or None."""
    try:
        return None if _matches(file, expected) else CHANGED
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return MISSING


def differences(folder: Path) -> dict[str, str]:
    """Return what differs from `hashes.json` in a folder: {file: how}. Empty where every file is as it was written."""
    try:
        recorded = records.parse((folder / HASHES).read_bytes())
    except FileNotFoundError:
        return {HASHES: MISSING}
    except ValueError:
        return {HASHES: CHANGED}
    if not isinstance(recorded, dict) or not all(isinstance(value, str) for value in recorded.values()):
        return {HASHES: CHANGED}
    present = (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file())
    added = {name: NEW for name in present if name not in recorded and name != HASHES and _matters(name)}
    return {name: how for name, value in recorded.items() if (how := difference(folder / name, value))} | added


def damage(folder: Path) -> str | None:
    """Return what is wrong with a folder that `runs.write_folder` wrote, or None where every file is as it was."""
    return next((f"{name} {how}" for name, how in differences(folder).items()), None)


def verify(folder: Path) -> None:
    """Raise RunError where a model folder is not as it was written."""
    if enabled() and (problem := damage(folder)):
        inside = (folder.parent / MANIFEST).is_file()
        raise damaged(folder.parent, f"{folder.name}/{problem}") if inside else damaged(folder, problem)


def damaged(folder: Path, problem: str, *, found: str = "") -> RunError:
    """Return the error that a run or a model folder is damaged. It names what in it is whole, and ways out.

    problem: the file, and what is wrong with it.
    """
    is_run = (folder / MANIFEST).is_file()
    model = [] if problem.startswith("model/") else [folder / "model"]  # it may be whole, but another run's
    parts = [*model, *sorted(folder.glob("export/*")), *sorted(folder.glob("checkpoints/step-*"))]
    whole = [str(part.relative_to(folder)) for part in parts if (part / HASHES).is_file() and damage(part) is None]
    ways = ["restore the file from a copy"]
    if is_run and problem.startswith("scores.json"):
        ways.append(f"or score the predictions again (tunesmith evaluate {folder})")
    else:
        again = "audit" if (folder / PLAN).exists() else "train"  # comparisons have their recipes in the runs' folders
        recipe = folder / "recipe.yaml"
        if recipe.is_file() and not problem.startswith(recipe.name):
            ways.append(f"or {again} again (tunesmith {again} {recipe})")
        elif again == "audit":
            ways.append("or audit again")
    if is_run and problem.endswith((CHANGED, MISSING, NEW)):
        ways.append(f"or, if it was changed on purpose, tunesmith runs accept {folder}")
    if whole:
        ways.append(f"still whole: {', '.join(whole)}")
    return RunError(f"{folder} is damaged: {problem}", found=found, do="; ".join(ways))


def _matters(name: str) -> bool:
    """Return whether a file of a model folder can change what is loaded: not hidden files and notes for people."""
    return not name.rpartition("/")[2].startswith(".") and not name.endswith(".md")


def _matches(file: Path, expected: str) -> bool:
    """Return whether a file has this digest. Matches of large files are remembered; a note of another state is void."""
    before = _state(file)
    if before["size"] <= LARGE:
        return digest(file) == expected
    place = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    note, content = assets.user_cache() / "verified" / place[:32], json.dumps([before, expected])
    with contextlib.suppress(OSError, ValueError):
        if note.read_text(encoding="utf-8") == content:
            return True
    start = time.time_ns()
    matches = digest(file) == expected
    settled = start - max(before["modified"], before["changed"]) > SETTLED
    if matches and settled and _state(file) == before:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(content, encoding="utf-8")
    return matches


def _state(file: Path) -> Mapping[str, int]:
    status = file.stat()
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }
