"""A folder of predictions: a file for each chunk of rows, written whole, and what says which run and rows it is of.

    part-00000.parquet ...   the rows, in the order of the names
    _manifest.json           run, source and settings, and the rows and the hash of each part; signed
    _chunks/                 while it is written, a signed record beside each part

Several processes fill one folder: each writes parts of its own, and the first one joins their records in the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith import __version__, disk, integrity, processes, records, runs
from tunesmith.console import warn
from tunesmith.data.source_fingerprint import fingerprint
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.pipeline.prediction_stream import PredictedChunk, PredictionStream
from tunesmith.records import Record, omitted_if_none
from tunesmith.runs import Run
from tunesmith.types import DataNote

MANIFEST, CHUNKS = "_manifest.json", "_chunks"
POLL_SECONDS = 0.2
ELSEWHERE = {"path", "train", "validation", "test", "sha256", "cache", "streaming", "shuffle_buffer"}
"""Settings of the data that do not change what is predicted, or that the fingerprint of the source stands for."""
"""Between two looks for the parts of other processes."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part of the folder."""

    file: str
    rows: int
    errors: int
    """Rows without a prediction."""
    formulas: int
    """Cells that a spreadsheet would run, and that were marked."""
    digest: str
    """SHA-256 of the file."""
    notes: tuple[DataNote, ...]
    """What reading these rows changed or noticed."""
    sha256: str | None = omitted_if_none()


@dataclass(frozen=True, slots=True)
class FolderManifest:
    """What a folder of predictions holds, and what made it."""

    version: str
    run: str
    run_fingerprint: str
    """SHA-256 over the hashes of the recipe and of the files of the model."""
    source: str
    source_fingerprint: str
    settings: dict[str, Any]
    complete: bool = False
    rows: int = 0
    errors: int = 0
    parts: tuple[PartRecord, ...] = ()
    sha256: str | None = omitted_if_none()

    def changes(self, now: FolderManifest) -> list[str]:
        """Return what is different now, for people."""
        changed = []
        if self.run_fingerprint != now.run_fingerprint:
            changed.append(
                f"another run: {now.run} instead of {self.run}" if self.run != now.run else "the run changed"
            )
        if self.source_fingerprint != now.source_fingerprint:
            changed.append(f"other data than {self.source} had")
        names = [*dict.fromkeys([*self.settings, *now.settings])]
        for name in names:
            before, after = self.settings.get(name), now.settings.get(name)
            if before != after:
                changed.append(f"{name}: {after!r} instead of {before!r}")
        return changed


def run_fingerprint(run: Run) -> str:
    """Return what tells a run from any other: its recipe and its model."""
    digests = [integrity.digest(run.path / runs.RECIPE), integrity.digest(run.model / runs.HASHES)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def describe(stream: PredictionStream, format_name: str, keep_formulas: bool) -> FolderManifest:
    """Return the manifest of a folder that is to be written."""
    recipe, settings = stream.recipe, stream.settings
    source = Path(stream.source).name
    data = recipe.data.model_dump(mode="json", exclude=ELSEWHERE)
    own: dict[str, Any] = {f"data.{name}": value for name, value in data.items()}
    own |= {f"generate.{name}": value for name, value in recipe.generate.model_dump(mode="json").items()}
    own |= {"seed": recipe.seed, "source": source, "format": format_name, "keep_formulas": keep_formulas}
    own |= {"top_k": settings.top_k, "engine": stream.engine, "only_predictions": settings.only_predictions}
    own |= {"chunk_rows": stream.chunk_rows}
    own = records.parse(records.encode(own, "describe the settings"))  # as they will be read
    return FolderManifest(
        __version__, stream.run.path.name, run_fingerprint(stream.run), source, fingerprint(recipe.data), own
    )


@dataclass
class PredictionFolder:
    """A folder that is being filled by this process, and perhaps by others."""

    path: Path
    manifest: FolderManifest
    suffix: str
    done: dict[int, PartRecord]
    """The parts that were there and whole before, by number; none where the folder is complete."""

    def is_missing(self, number: int) -> bool:
        """Return whether a chunk is still to be predicted, by this process."""
        return number % processes.count() == processes.rank() and number not in self.done

    def save(self, chunk: PredictedChunk, content: bytes, formulas: int) -> None:
        """Write the part of a chunk, and then its record. Raises FileError where the disk fails."""
        name = f"part-{chunk.number:05d}.{self.suffix}"
        digest = hashlib.sha256(content).hexdigest()
        runs.write_whole(self.path / name, content)
        record = PartRecord(name, len(chunk.rows), chunk.errors, formulas, digest, chunk.notes)
        _write(_record_file(self.path, chunk.number), record)

    def finish(self, chunks: int, stream: PredictionStream) -> FolderManifest:
        """Join the records of all processes, in the first of them. Raises DataError where the source has changed.

        chunks: how many there are.
        """
        if not processes.is_main():
            return self.manifest
        while not all(_record_file(self.path, number).exists() for number in range(chunks)):
            time.sleep(POLL_SECONDS)  # a launcher ends all processes where one fails
        parts = [_read(PartRecord, _record_file(self.path, number)) for number in range(chunks)]
        if fingerprint(stream.recipe.data) != self.manifest.source_fingerprint:
            raise DataError(
                f"{stream.source} was changed while it was read",
                expected="the same rows from the beginning to the end",
                found="another fingerprint",
                do="predict again, with --overwrite",
            )
        rows, errors = sum(part.rows for part in parts), sum(part.errors for part in parts)
        self.manifest = replace(self.manifest, complete=True, rows=rows, errors=errors, parts=tuple(parts))
        _write(self.path / MANIFEST, self.manifest)
        shutil.rmtree(self.path / CHUNKS, ignore_errors=True)
        return self.manifest


def opened(
    path: Path, stream: PredictionStream, format_name: str, *, keep_formulas: bool, resume: bool, overwrite: bool
) -> PredictionFolder:
    """Return a new folder, or the one that is there, if it is to be resumed and is of the same run, rows and settings.

    overwrite: what a folder of predictions holds is removed. Raises RecipeError for any other folder.
    """
    if processes.is_main():
        manifest = describe(stream, format_name, keep_formulas)
        manifest = _prepare(path, manifest, resume=resume, overwrite=overwrite)
        processes.agree(records.encode(manifest, "share the manifest"))
    else:
        manifest = records.load(FolderManifest, records.parse(processes.agree("")), str(path / MANIFEST))
    return PredictionFolder(path, manifest, format_name, {} if manifest.complete else _recorded(path))


def _prepare(path: Path, manifest: FolderManifest, *, resume: bool, overwrite: bool) -> FolderManifest:
    if path.exists() and not path.is_dir():
        raise RecipeError(f"cannot write {path}", expected="a folder", found="a file", do="give another name")
    with disk.explained("read", path):
        names = sorted(file.name for file in path.iterdir() if not disk.is_scratch(file)) if path.exists() else []
    if MANIFEST in names and not overwrite:
        there = _read(FolderManifest, path / MANIFEST)
        if not resume:
            state = f"{there.rows:,} predictions" if there.complete else "predictions that were not finished"
            do = "go on with --resume, start again with --overwrite, or give another folder"
            raise RecipeError(f"cannot write {path}: it exists", found=f"{state} of {there.run}", do=do)
        if changed := there.changes(manifest):
            do = "give what the folder was begun with, start again with --overwrite, or give another folder"
            raise RecipeError(
                f"cannot resume {path}", expected="the same run, data and settings", found="; ".join(changed), do=do
            )
        return _reopened(path, there)
    own = [name for name in names if name in (MANIFEST, CHUNKS) or name.startswith("part-")]
    if names and (own != names or MANIFEST not in names):
        others = [name for name in names if name not in own] or own
        raise RecipeError(
            f"cannot write {path}: it is not empty",
            found=", ".join(others[:5]),
            do="give a new folder, or empty this one",
        )
    with disk.explained("empty", path):
        for name in [name for name in own if name.startswith("part-")]:
            (path / name).unlink()
        if CHUNKS in own:
            shutil.rmtree(path / CHUNKS)
    disk.make_folder(path / CHUNKS)
    _write(path / MANIFEST, manifest)
    return manifest


def _reopened(path: Path, manifest: FolderManifest) -> FolderManifest:
    """Check every part, and take the record of a damaged one away: its rows are predicted again."""
    parts = dict(enumerate(manifest.parts)) | _recorded(path)
    damaged = []
    for number, part in parts.items():
        if problem := integrity.difference(path / part.file, part.digest):
            warn(f"{path / part.file} {problem}: its rows are predicted again")
            damaged.append(number)
    if manifest.complete and not damaged:
        shutil.rmtree(path / CHUNKS, ignore_errors=True)  # where a process was killed before it did this
        return manifest
    disk.make_folder(path / CHUNKS)
    with disk.explained("resume", path):
        for number, part in parts.items():
            file = _record_file(path, number)
            if number in damaged:
                file.unlink(missing_ok=True)
            elif not file.exists():
                _write(file, part)
    reopened = replace(manifest, complete=False, rows=0, errors=0, parts=())
    _write(path / MANIFEST, reopened)
    return reopened


def _record_file(path: Path, number: int) -> Path:
    return path / CHUNKS / f"{number:05d}.json"


def _recorded(path: Path) -> dict[int, PartRecord]:
    """Return the records beside the parts, by number."""
    found = {}
    for file in sorted((path / CHUNKS).glob("[0-9]*.json")):
        with contextlib.suppress(RunError):  # a damaged one is written again
            found[int(file.stem)] = _read(PartRecord, file)
    return found


def _write(file: Path, content: PartRecord | FolderManifest) -> None:
    text = records.encode(replace(content, sha256=integrity.UNSIGNED), f"write {file}") + "\n"
    runs.write_whole(file, integrity.signed(text.encode()))


def _read(kind: type[Record], file: Path) -> Record:
    """Return a signed record. Raises RunError where it is damaged."""
    with disk.explained("read", file):
        text = file.read_bytes()
    try:
        content = records.parse(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not integrity.is_signed(text, content.get("sha256")):
        raise RunError(
            f"{file} is damaged", expected="what was written", found="another hash", do="start again with --overwrite"
        )
    return records.load(kind, content | {"sha256": None}, str(file))
