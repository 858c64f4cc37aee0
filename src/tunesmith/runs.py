"""The run directory: its name, its files, and how they are written atomically.

    recipe.yaml         the resolved recipe
    manifest.json       versions, hardware, seed, data fingerprints, costs, notes
    metrics.jsonl       one line per logged step or evaluation, appended
    checkpoints/        of methods that train in steps
    model/              the trained predictor
    predictions/        validation.jsonl and test.jsonl
    scores.json         every figure of the test split, with intervals
    training_loss.png  report.html  report.md  README.md

It is the only interface between the stages: evaluation, reports and serving read a run and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pydantic_core

from tunesmith import disk, integrity, manifest as manifests, recipe as recipes, records
from tunesmith.console import silence, warn
from tunesmith.errors import RunError
from tunesmith.manifest import FinishedManifest, LogEntry, Manifest
from tunesmith.records import Record

MANIFEST, HASHES = integrity.MANIFEST, integrity.HASHES
METRICS = "metrics.jsonl"
RECIPE = "recipe.yaml"
HASHED, SHA256 = "hashes", "sha256"
"""Keys of manifest.json: the hashes of other files of the run, and that of the manifest itself."""


@dataclass(frozen=True)
class Run:
    """A run directory on disk."""

    path: Path

    @property
    def model(self) -> Path:
        return restored(self.path / "model")

    @property
    def recipe(self) -> recipes.Recipe:
        """The recipe. Raises RunError where it is damaged."""
        self.verify(RECIPE)
        with silence():  # what an earlier version called by another name needs no note
            recipe = recipes.load(self.path / RECIPE)
        if not recipe.model_fields_set:  # nothing is not a recipe of defaults
            raise integrity.damaged(self.path, f"{RECIPE} is empty")
        return recipe

    @property
    def manifest(self) -> Manifest:
        """What the run is, from its start. Raises RunError where it is damaged or from a newer version."""
        return manifests.parse(self.read(MANIFEST), str(self.path / MANIFEST))

    @property
    def finished(self) -> FinishedManifest:
        """What the run is and what came of it. Raises RunError where it has not finished."""
        manifest = self.manifest
        if not isinstance(manifest, FinishedManifest):
            status, reason = manifest.state()
            raise RunError(
                f"{self.path} has not finished",
                found=f"{status}{reason and f': {reason}'}",
                do=f"resume it: tunesmith train --resume {self.path}",
            )
        return manifest

    def has(self, name: str) -> bool:
        """Return whether the run wrote a file. Whoever reads one that is gone since then meets an error."""
        return (self.path / name).exists() or name in self._hashes()

    def verify(self, name: str) -> None:
        """Raise RunError where a file is not as the run wrote it. Files that it does not know of pass."""
        expected = self._hashes().get(name) if integrity.enabled() else None
        if expected and (how := integrity.difference(self.path / name, expected)):
            raise integrity.damaged(self.path, f"{name} {how}")

    def verify_model(self) -> None:
        """Raise RunError where the model is not the one that the run trained."""
        self.verify(f"model/{HASHES}")
        integrity.verify(self.model)

    def read(self, name: str, *, signed: bool = False) -> dict[str, Any]:
        """Return the content of a JSON file, `signed` where it was written so. Raises RunError where it is damaged."""
        if name != MANIFEST:
            self.verify(name)
        try:
            written = (self.path / name).read_bytes()
            content = records.parse(written)
        except (FileNotFoundError, IsADirectoryError):
            if name == MANIFEST:
                raise integrity.damaged(self.path, f"{name} {integrity.MISSING}") from None
            raise RunError(f"{self.path} has no {name}", do="let the run finish, or train again") from None
        except ValueError as error:
            raise integrity.damaged(self.path, f"{name} is not JSON", found=str(error)) from error
        if not isinstance(content, dict):
            raise integrity.damaged(self.path, f"{name} is not an object", found=type(content).__name__)
        signed |= name == MANIFEST and not content.keys().isdisjoint({HASHED, SHA256})  # of an older run it is not
        if integrity.enabled() and signed and not integrity.is_signed(written, content.get(SHA256)):
            raise integrity.damaged(self.path, f"{name} {integrity.CHANGED}")
        return content

    def read_text(self, name: str) -> str:
        """Return a text file of this run."""
        self.verify(name)
        return (self.path / name).read_text(encoding="utf-8")

    def load(self, name: str, kind: type[Record], *, signed: bool = False) -> Record:
        """Return a JSON file of this run as a record. signed: as in `read`."""
        return records.load(kind, self.read(name, signed=signed), str(self.path / name))

    def write(self, name: str, content: object, *, signed: bool = False) -> Path:
        """Write a text, or a record or mapping as JSON; readers see the old file or the new one, never half of it.

        signed: with a hash of itself, as the manifest always is. Raises RunError where a number is not finite, which
        JSON does not have.
        """
        if signed := signed or (name == MANIFEST and isinstance(content, dict)):
            fields = {key: value for key, value in records.dump(content).items() if key != SHA256}
            content = fields | {SHA256: integrity.UNSIGNED}
        text = content if isinstance(content, str) else records.encode(content, f"write {self.path / name}") + "\n"
        path = write_whole(self.path / name, integrity.signed(text.encode()) if signed else text.encode())
        if name != MANIFEST:
            self._rehash(name)
        return path

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> Path:
        """Write a file piece by piece; readers see the old file or the new one."""
        path = write_whole(self.path / name, pieces)
        self._rehash(name)
        return path

    def save_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, with hashes of the other files; decisions that were recorded in it stay."""
        content = records.dump(manifest)
        outdated = {item.name for item in fields(FinishedManifest)} - set(content)
        kept = {name: value for name, value in self._recorded().items() if name not in outdated}
        files = [self.path / RECIPE]
        if isinstance(manifest, FinishedManifest):
            files += [*self.path.glob("*.json"), *self.path.glob("*.jsonl"), *self.path.glob("predictions/*.jsonl")]
            files.append(self.model / HASHES)
        names = sorted(file.relative_to(self.path).as_posix() for file in files if file.is_file())
        hashes = {name: integrity.digest(self.path / name) for name in names if name != MANIFEST}
        self.write(MANIFEST, kept | content | {HASHED: hashes})

    def decision(self, name: str) -> Any:
        """Return a decision that this run took at its start, or None: a resumed run keeps it."""
        return self._recorded().get(name)

    def record_decision(self, name: str, value: Any) -> None:
        """Keep a decision in the manifest. value: ready for JSON."""
        self.write(MANIFEST, self._recorded() | {name: value})

    def _recorded(self) -> dict[str, Any]:
        return self.read(MANIFEST) if (self.path / MANIFEST).exists() else {}

    def _hashes(self) -> dict[str, str]:
        """Return the hashes of the run's files: of a finished run all that are read again, before that the recipe's."""
        files = self._recorded().get(HASHED, {})
        return files if isinstance(files, dict) else {}

    def _rehash(self, name: str) -> None:
        """Record the hash of a file that was written anew."""
        hashes = self._hashes()
        if name in hashes and hashes[name] != (new := integrity.digest(self.path / name)):
            self.write(MANIFEST, self._recorded() | {HASHED: hashes | {name: new}})

    def log(self, entry: LogEntry) -> None:
        """Append one line to metrics.jsonl."""
        path = self.path / METRICS
        with disk.explained("write", path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(manifests.dump_entry(entry)) + "\n")

    def metrics(self) -> list[LogEntry]:
        """Return the lines of metrics.jsonl; a last line cut off by a crash is left out."""
        self.verify(METRICS)
        return [manifests.parse_entry(line, str(self.path / METRICS)) for line in self._lines(METRICS)]

    def cut_metrics(self, lines: int) -> None:
        """Keep the first lines of metrics.jsonl: what a resumed run will log again goes."""
        path = self.path / METRICS
        if path.exists():
            kept = [json.dumps(line) for line in self._lines(METRICS)][:lines]
            write_whole(path, "".join(f"{line}\n" for line in kept).encode())

    def write_predictions(self, split: str, rows: Iterable[object]) -> None:
        """Write a record of every row of a split: what was predicted."""
        lines = (pydantic_core.to_json(records.dump(row)) + b"\n" for row in rows)  # thousands of probabilities each
        self.write_pieces(f"predictions/{split}.jsonl", lines)

    def predictions(self, split: str, kind: type[Record]) -> list[Record]:
        """Return what was predicted of a split, as the records that its task writes.

        Raises RunError where there are none, or where they are not those that the run wrote.
        """
        name = f"predictions/{split}.jsonl"
        self.verify(name)
        rows = [records.load(kind, line, str(self.path / name)) for line in self._lines(name)]
        if not rows:
            do = "let the run finish; without such rows give data to score (--data)"
            raise RunError(f"{self.path} has no predictions for the {split} split", do=do)
        if integrity.enabled() and name not in self._hashes() and self.has(MANIFEST):  # runs from before the hashes
            of_split = self.manifest.data.splits.get("test" if split == "base" else split)
            if of_split is not None and len(rows) != of_split.rows:
                raise integrity.damaged(self.path, f"{name} has {len(rows):,} rows, the split {of_split.rows:,}")
        return rows

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a JSON Lines file. Of metrics.jsonl a last line that a crash cut off is left out."""
        path = self.path / name
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield pydantic_core.from_json(line)
                except ValueError:
                    if line.endswith(b"\n") or name != METRICS:
                        problem = f"{name}, line {number}, is not JSON"
                        raise integrity.damaged(self.path, problem, found=repr(line[:60])[1:]) from None


def create(output_dir: str | Path, *words: str) -> Run:
    """Make a new, empty run directory `<output_dir>/<time>_<words>`."""
    slugs = [re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.")[:40] or "x" for word in words]
    name = "_".join([time.strftime("%Y-%m-%d_%H-%M-%S"), *slugs])
    folder = disk.make_folder(Path(output_dir))
    for attempt in range(1, 1000):
        path = folder / (name if attempt == 1 else f"{name}-{attempt}")
        with disk.explained("make", path), contextlib.suppress(FileExistsError):
            path.mkdir()
            return Run(path)
    raise RunError(f"too many runs named {name} in {output_dir}", do="wait a second, or set output_dir")


def use(path: str | Path, claim: Callable[[Run], object] | None = None, option: str = "--run-dir") -> Run:
    """Return a given folder as run directory: new, or empty except for a recipe or a run that never took a step.

    claim: writes into it at once, so that no other process takes the folder too. option: that gives the folder. Raises
    RunError for any other folder.
    """
    run = Run(Path(path))
    disk.make_folder(run.path)
    with disk.explained("read", run.path), disk.locked(run.path.parent):
        files = {file.name for file in run.path.iterdir() if not disk.is_scratch(file)}
        resume = ""
        if MANIFEST in files and run.manifest.state()[0] in ("failed", "interrupted"):
            if files.isdisjoint({METRICS, "checkpoints", "model"}):
                (run.path / MANIFEST).unlink()
                files.clear()
            resume = f"resume the run: tunesmith train --resume {path}, or "
        if files := files - {"recipe.yaml"}:
            raise RunError(
                f"{path} is not empty", found=", ".join(sorted(files)[:5]), do=f"{resume}give another {option}"
            )
        if claim:
            claim(run)
    return run


def is_run(path: str | Path) -> bool:
    """Return whether there is a run at `path`, whole or damaged."""
    return any((Path(path) / name).is_file() for name in (MANIFEST, f"model/{HASHES}"))


def find(path: str | Path) -> Run:
    """Return the run at `path`. Raises RunError where there is none."""
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        return Run(folder)
    if is_run(folder):
        raise integrity.damaged(folder, f"{MANIFEST} is missing")
    inside = [str(run.path) for run in listing(folder)] if folder.is_dir() else []
    raise RunError(
        f"{path} is not a run directory",
        expected=f"a folder with {MANIFEST}",
        found=f"runs inside it: {', '.join(inside[:5])}"
        if inside
        else "a folder without one"
        if folder.is_dir()
        else "nothing",
        do="see `tunesmith runs list`",
    )


def listing(output_dir: str | Path) -> list[Run]:
    """Return every run under a folder, oldest first; the runs of a comparison are one level deeper.

    There are none in a folder that does not exist. Raises FileError for one that cannot be read; folders inside it that
    cannot be read are left out with a warning.
    """
    root, places = Path(output_dir), ("*", "*/*")
    with disk.explained("list", root), contextlib.suppress(FileNotFoundError):
        os.listdir(root)  # a glob would find nothing there
    for folder in (folder for place in places for folder in root.glob(f"{place}/")):
        if not os.access(folder, os.R_OK | os.X_OK):
            warn(f"{folder} cannot be read, and is left out")
    folders = {file.parent for place in places for file in root.glob(f"{place}/{MANIFEST}")}
    damaged = {file.parent.parent for place in places for file in root.glob(f"{place}/model/{HASHES}")}
    return [Run(folder) for folder in sorted(folders | damaged)]


def folder_name(method: str) -> str:
    """Return the folder of a method's run in a comparison: `generator-lora`, `endpoint-llama3-8b`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", method).strip("-.")


def data_name(source: str) -> str:
    """Return what a run or a page is called after its data: `reviews.csv`, `bbc-news`."""
    return Path(source.removeprefix("pypi:")).name


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> Path:
    """Write a file through a temporary neighbour and a rename. content: in one piece, or in several.

    Of several writers the last one to finish wins, with a whole file. Raises FileError where the file cannot be
    written; what was there before is then still there.
    """
    size = len(content) if isinstance(content, bytes) else 0
    with disk.writing_whole(path, size) as file:
        file.writelines([content] if isinstance(content, bytes) else content)
    return path


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder through a temporary neighbour, a hash manifest and a rename: readers see it whole or not at all.

    Of several writers the last one to finish wins. Raises FileError where the disk fails; what was at `target` before
    is then still there.
    """
    written = 0
    restored(target)
    with disk.explained("save", target, lambda: written), disk.scratch(target, Path.mkdir) as scratch:
        try:
            fill(scratch)
            (scratch / HASHES).write_text(json.dumps(integrity.hashes(scratch), indent=2), encoding="utf-8")
            readable = (scratch / HASHES).stat().st_mode
            for path in [*scratch.rglob("*"), scratch]:
                path.chmod(path.stat().st_mode | readable)  # safetensors lets no other user read, whatever the umask
                disk.sync(path)
            with disk.locked(target.parent):
                _swap(scratch, target)
            disk.sync(target.parent)
        except Exception:
            with contextlib.suppress(OSError):
                written = size(scratch)
            raise


def restored(target: Path) -> Path:
    """Return a folder that `write_folder` writes; one that was moved aside when its writer was killed is put back."""
    aside = _aside(target)
    with disk.explained("put back", target):
        if not target.exists() and aside.exists():
            with disk.locked(target.parent):
                if not target.exists() and aside.exists():  # else another process has just written it
                    aside.rename(target)
    return target


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _swap(scratch: Path, target: Path) -> None:
    old = _aside(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    try:
        scratch.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def size(folder: Path) -> int:
    """Return the total size of the files in `folder`, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
