"""Data at an http address: fetched once, checked, and named like a file of that name."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tunesmith.data import read
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split

CONTENT = b"text,label\n" + b"".join(b"text %d,%d\n" % (n, n % 2) for n in range(20))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    """Serves one file; `asked` are the paths that were asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.path.startswith("/data/reviews.csv")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(CONTENT if found else b"")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    Files.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_once(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = Data(path=f"{address}/data/reviews.csv?raw=1", sha256=SHA256.upper())
    splits = [read(source, Split(test_size=4, validation_size=0), 1) for _ in range(2)]
    assert splits[0] == splits[1]
    assert len(splits[0].train) == 16
    assert splits[0].train[0].id.startswith("reviews.csv:")
    assert Files.asked == ["/data/reviews.csv?raw=1"]
    assert "was fetched before" in capsys.readouterr().err


def test_a_file_for_each_split(address: str) -> None:
    source = Data(train=f"{address}/data/reviews.csv", test=f"{address}/data/reviews.csv?part=2")
    assert len(read(source, Split(validation_size=0), 1).test) == 20


def test_another_file_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"not the file that data.sha256 names(?s:.*){SHA256}"):
        read(Data(path=f"{address}/data/reviews.csv", sha256="0" * 64), Split(), 1)
    local = tmp_path / "local.csv"
    local.write_bytes(CONTENT + b"x,1\n")
    with pytest.raises(DataError, match="not the file"):
        read(Data(path=str(local), sha256=SHA256), Split(), 1)


def test_a_copy_that_is_not_the_named_one_is_fetched_again(address: str, tmp_path: Path) -> None:
    source = Data(path=f"{address}/data/reviews.csv", sha256=SHA256)
    read(source, Split(), 1)
    (copy,) = (tmp_path / "cache").rglob("reviews.csv")
    copy.write_bytes(b"damaged")
    assert len(read(source, Split(), 1).train) == 14
    assert len(Files.asked) == 2


@pytest.mark.parametrize("path", ["/nothing.csv", ":1/data.csv"])
def test_what_cannot_be_fetched_is_explained(address: str, path: str) -> None:
    url = address + path if path.startswith("/") else f"http://127.0.0.1{path}"
    with pytest.raises(DataError, match="cannot fetch http://127"):
        read(Data(path=url), Split(), 1)
