"""What the operating system refuses, as errors that name the file, the need and the way out; scratch files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.errors import FileError, TunesmithError

SPACE = "free some space, or choose a folder on another file system; what was there before is intact"
OCCUPIED = "give another path, or move the file"
PERMISSION = "change the permissions, or choose another folder"
WAYS_OUT = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose a folder on another file system",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: "this file system can only be read: choose a folder on another",
    errno.EIO: "check the disk (free space, dmesg), or choose a folder on another",
    errno.ESTALE: "mount the file system again",
    errno.ENAMETOOLONG: "give a shorter path: most file systems allow 255 bytes a name",
    errno.EILSEQ: "give a name in UTF-8 without zero bytes",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: OCCUPIED,
    errno.EEXIST: OCCUPIED,
    errno.ENOTEMPTY: "give a new folder",
    errno.ELOOP: "remove the loop of symbolic links",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs: this machine has too many open files",
    errno.EBUSY: "try again when no other program uses it",
    errno.ETXTBSY: "try again when no other program uses it",
}
"""What to do about errors of the system that no change of the code would cure; others are bugs."""
IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust (safetensors, tokenizers) quote the system."""
IN_WORDS = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "iostream error": errno.EIO,  # OpenVINO
    "problem writing element": errno.EIO,  # numpy.tofile
    "requested and": errno.EIO,  # the same, of an array that is contiguous
    "readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "embedded null byte": errno.EILSEQ,
}
"""How libraries that do not give the number of an error say it."""


def code(error: BaseException) -> int | None:
    """Return the number of the system's error behind an exception, also of another library's; None for a bug."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in WAYS_OUT else None
    if number := IN_TEXT.search(str(error)):
        return int(number[1]) if int(number[1]) in WAYS_OUT else None
    return next((number for words, number in IN_WORDS.items() if words in str(error)), None)


@contextlib.contextmanager
def explained(action: str, path: Path, written: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Raise FileError instead of what the system refuses: `cannot ACTION PATH`. written: bytes so far, or needed."""
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and code(error) is None:
            raise
        raise refusal(error, action, path, written()) from error


def refusal(error: BaseException, action: str, path: Path | None = None, written: int = 0) -> FileError:
    """Return the error for what the system refused. path: by default the file that the system names."""
    number = code(error)
    place = path or Path(os.fsdecode(getattr(error, "filename", None) or "a file"))
    found = os.strerror(number) if number else str(error)
    if number in (errno.ENOTDIR, errno.EEXIST):
        found = "".join(f"{part} is a file" for part in (place, *place.parents) if part.is_file()) or found
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = _free(place)
        found += "" if free is None else f"; {free / 2**20:.1f} MB free"
        found += f", {written / 2**20:.1f} MB to write" if written else ""
    return FileError(f"cannot {action} {place}", found=found, do=WAYS_OUT.get(number or 0, ""))


def make_folder(path: Path) -> Path:
    """Make a folder where there is none. Raises FileError."""
    with explained("make the folder", path):
        path.mkdir(parents=True, exist_ok=True)
    return path


class _Deferring(io.BytesIO):
    """A file that takes everything, for torch.export one of its kind; the first error of writing it is kept."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self.error is None:
                self.file.write(data)
        except OSError as error:
            self.error = error
        return memoryview(data).nbytes


@contextlib.contextmanager
def deferring(path: Path) -> Iterator[Any]:
    """Open a file for torch, which ends the process where a write fails: the error is raised when torch is done."""
    with path.open("wb") as file:
        deferred = _Deferring(file)
        yield deferred
        if deferred.error is not None:
            raise deferred.error


@contextlib.contextmanager
def scratch(target: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Make a neighbour of the target, of this writer's own, to be filled and renamed; it is gone in the end.

    make: `Path.touch` or `Path.mkdir`. What writers that were killed left behind goes, too: nobody locks it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{_head(target)}{os.getpid()}-{threading.get_ident()}.partial")
    with locked(target.parent):
        _remove_abandoned(target)
        make(path)
        handle = _lock(path)
    try:
        yield path
    finally:
        _remove(path)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def writing_whole(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """Open a file that takes its name when it is whole. size: in bytes, where known. Raises FileError."""
    with explained("write", path, lambda: size), scratch(path, Path.touch) as unfinished:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def sync(path: Path) -> None:
    """Return when a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_scratch(path: Path) -> bool:
    """Return whether a path is what a writer fills, or left behind when it was killed."""
    return path.name.startswith(".") and path.name.endswith(".partial")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time do something in a folder. Where the file system has no locks, all do."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def reserved(file: Path) -> Iterator[bool]:
    """Lock a file for as long as this lasts. Yields False where another process holds it.

    Where the file system has no locks, every process gets it.
    """
    with explained("read", file), contextlib.ExitStack() as stack:
        handle = os.open(file, os.O_RDONLY)
        stack.callback(os.close, handle)
        is_free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        except OSError:
            pass
        yield is_free


def _head(target: Path) -> str:
    return f".{target.name[:40]}."


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.glob(f"{glob.escape(_head(target))}*.partial"):
        handle = _lock(path)
        if handle is not None:
            _remove(path)
            os.close(handle)


def _lock(path: Path) -> int | None:
    """Lock a file or folder and return what holds the lock; None where another process holds it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _free(path: Path) -> int | None:
    """Return the free bytes where a path would lie; None where the system does not say."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None
