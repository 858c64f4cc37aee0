"""What the system refuses is an error with the file, the need and a way out; scratch files never stay."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunesmith import disk, runs
from tunesmith.errors import FileError, RecipeError

ERRORS = [
    (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
    (OSError(errno.ENOENT, "x"), None),
    (ValueError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
    (ValueError("no such thing (os error 2)"), None),
    (RuntimeError("(sqlite3.OperationalError) disk I/O error"), errno.EIO),
    (RuntimeError("basic_ios::clear: iostream error"), errno.EIO),  # OpenVINO, whatever the reason
    (OSError("2048 requested and 1776 written"), errno.EIO),  # numpy
    (OSError("problem writing element 1024 to file"), errno.EIO),
    (ValueError("embedded null byte"), errno.EILSEQ),
    (KeyError("space"), None),
]


@pytest.mark.parametrize(("error", "number"), ERRORS)
def test_errors_of_the_system_are_told_from_bugs(error: Exception, number: int | None) -> None:
    assert disk.code(error) == number


def test_a_full_disk_is_named_with_what_is_free_and_what_is_needed(tmp_path: Path) -> None:
    message = (
        r"cannot write .*/a/b.csv\n  found: No space left on device; [\d.]+ MB free, 3.0 MB to write\n  do: free some"
    )
    with pytest.raises(FileError, match=message), disk.explained("write", tmp_path / "a" / "b.csv", lambda: 3 << 20):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("error", [KeyError("a bug"), RecipeError("said already"), ValueError("os error 28")])
def test_other_errors_stay_as_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, disk.explained("write", tmp_path):
        raise error
    assert caught.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_error_of_writing_is_kept_until_torch_is_done() -> None:
    """Torch ends the process where a write of its own fails."""
    program = torch.export.export(torch.nn.Linear(100, 100), (torch.zeros(1, 100),))

    def save(path: Path) -> None:
        with disk.deferring(path) as file:
            torch.export.save(program, file)

    with pytest.raises(OSError, match="No space left"):
        save(Path("/dev/full"))


def _folder(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).mkdir()


@pytest.mark.parametrize(
    ("make", "name", "problem"),
    [
        (_folder("out.csv"), "out.csv", "Is a directory\n  do: give the path of a file"),
        (lambda place: (place / "file").touch(), "file/out.csv", "/file is a file\n  do: give another path"),
        (lambda place: None, "x" * 300, "File name too long\n  do: .*255 bytes"),
    ],
)
def test_places_that_cannot_be_written(make: Callable[[Path], object], name: str, problem: str, tmp_path: Path) -> None:
    make(tmp_path)
    before = list(tmp_path.iterdir())
    with pytest.raises(FileError, match=problem):
        runs.write_whole(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in before]


def _stuck(target: Path, ready: multiprocessing.synchronize.Event) -> None:
    with disk.scratch(target, Path.mkdir) as scratch:
        (scratch / "half").write_bytes(bytes(1000))
        ready.set()
        signal.pause()


def test_what_a_killed_writer_left_goes_with_the_next_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    target = tmp_path / "export"
    writers = []
    for _ in range(2):
        ready = context.Event()
        writers.append(context.Process(target=_stuck, args=(target, ready)))
        writers[-1].start()
        assert ready.wait(10)
    writers[0].kill()
    writers[0].join()
    assert len(list(tmp_path.iterdir())) == 2
    runs.write_folder(target, lambda folder: (folder / "whole").touch())
    left = [path.name for path in tmp_path.iterdir() if path.name != "export"]
    assert len(left) == 1
    assert str(writers[1].pid) in left[0]
    os.kill(writers[1].pid or 0, signal.SIGKILL)
    writers[1].join()
    runs.write_folder(target, lambda folder: (folder / "whole").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


class Killed(BaseException):
    """In the place of a signal that cannot be handled."""


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("then", ["read", "fail", "write"])
def test_a_writer_killed_at_a_rename_loses_no_folder(
    at: int, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = runs.Run(tmp_path).model
    runs.write_folder(model, lambda folder: (folder / "old").touch())
    renamed: list[Path] = []
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        renamed.append(path)
        if len(renamed) >= at:
            raise Killed
        return rename(path, target)

    def write(folder: Path) -> None:
        if then == "fail":
            raise OSError(errno.ENOSPC, "full")
        (folder / "new").touch()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            runs.write_folder(model, write if then == "write" else lambda folder: (folder / "new").touch())
    assert model.exists() == (at == 1)
    if then == "read":
        assert runs.Run(tmp_path).model == model
    else:
        with contextlib.suppress(FileError):
            runs.write_folder(model, write)
    assert [file.name for file in model.glob("[no]*")] == ["new" if then == "write" else "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
