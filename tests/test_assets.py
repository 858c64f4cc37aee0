"""Assets: only what the catalogue knows, only with the right hash, only the named folder, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from tunesmith import assets
from tunesmith.errors import DataError


def wheel(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Replace pip and the catalogue: gives a function that sets what pip downloads, and the list of calls."""
    calls: list[list[str]] = []
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))

    def serve(content: bytes | None, sha256: str | None = None) -> list[list[str]]:
        digest = sha256 or hashlib.sha256(content or b"").hexdigest()
        monkeypatch.setitem(assets.CATALOGUE, "toy", assets.Wheel("toy==1", digest, "toy/data", "free"))

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if content is None:
                return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found for toy==1")
            Path(command[command.index("--dest") + 1], "toy-1-py3-none-any.whl").write_bytes(content)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return serve


def test_only_the_named_folder_is_unpacked_and_only_once(pip, tmp_path: Path) -> None:
    calls = pip(wheel({"toy/data/a/1.txt": "one", "toy/code.py": "no", "toy/database/x": "no", "other": "no"}))
    asset = assets.fetch("pypi:toy")
    assert assets.fetch("pypi:toy") == asset
    assert [str(p.relative_to(asset.path)) for p in sorted(asset.path.rglob("*")) if p.is_file()] == ["a/1.txt"]
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    assert [p.name for p in (tmp_path / "cache" / "assets").iterdir()] == [asset.path.name]


def test_members_cannot_leave_the_cache(pip, tmp_path: Path) -> None:
    pip(wheel({"toy/data/ok.txt": "one", "toy/data/../../../../evil.txt": "no"}))
    assets.fetch("pypi:toy")
    assert [p for p in tmp_path.rglob("evil.txt") if tmp_path / "cache" not in p.parents] == []


def test_a_wrong_hash_is_refused_and_nothing_is_kept(pip, tmp_path: Path) -> None:
    pip(wheel({"toy/data/a": "one"}), sha256="0" * 64)
    with pytest.raises(DataError, match=r"not the wheel that tunesmith knows[\s\S]*expected: sha256 0000"):
        assets.fetch("pypi:toy")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_pip_that_fails_is_quoted(pip) -> None:
    pip(None)
    with pytest.raises(DataError, match=r"No matching distribution[\s\S]*--no-deps"):
        assets.fetch("pypi:toy")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(DataError, match="pypi:bbc-news"):
        assets.fetch("pypi:bbc")
