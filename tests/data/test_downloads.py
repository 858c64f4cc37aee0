"""Data at an address: fetched once, checked, and named like a file of that name."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tunesmith.data import read
from tunesmith.errors import DataError, MissingExtra
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


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store in memory."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    for name, content in {"a.csv": CONTENT, "b.csv": CONTENT, "deep/c.csv.gz": gzip.compress(CONTENT)}.items():
        fs.pipe_file(f"/bucket/{name}", content)
    yield fs
    fs.rm("/bucket", recursive=True)


def test_files_of_a_storage_are_fetched_once_unless_they_change(
    storage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_bytes(CONTENT)
    split = Split(test_size=4, validation_size=0)
    local = read(Data(path=str(tmp_path / "a.csv")), split, 1)
    for name in ("a.csv", "deep/c.csv.gz"):
        remote = read(Data(path=f"memory://bucket/{name}"), split, 1)
        assert remote.fingerprints == local.fingerprints
        assert remote.train[0].id.startswith(name.removeprefix("deep/") + ":")
    assert read(Data(path="memory://bucket/a.csv", sha256=SHA256), split, 1) == local
    assert "memory://bucket/a.csv was fetched before" in capsys.readouterr().err
    storage.pipe_file("/bucket/a.csv", CONTENT + b"more,1\n")
    assert len(read(Data(path="memory://bucket/a.csv"), split, 1).train) == 17
    with pytest.raises(DataError, match=r"not the file that data\.sha256 names"):
        read(Data(path="memory://bucket/a.csv", sha256=SHA256), split, 1)


def test_patterns_of_a_storage(storage: Any) -> None:
    whole = Split(test_size=0, validation_size=0)
    rows = read(Data(path="memory://bucket/*.csv"), whole, 1).train
    assert [row.id for row in rows[::20]] == ["a.csv:2", "b.csv:2"]
    assert len(rows) == 40
    splits = read(Data(train="memory://bucket/?.csv", test="memory://bucket/**/c.csv.gz"), Split(validation_size=0), 1)
    assert (len(splits.train), len(splits.test)) == (40, 20)
    with pytest.raises(DataError, match=r"no file matches memory://bucket/\*\.parquet"):
        read(Data(path="memory://bucket/*.parquet"), whole, 1)


def test_what_a_storage_refuses_is_explained(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cannot fetch memory://bucket/none\.csv(.|\n)*FileNotFoundError"):
        read(Data(path="memory://bucket/none.csv"), Split(), 1)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(storage), "_open", refuse)
    with pytest.raises(DataError, match=r"cannot fetch memory://bucket/a\.csv(.|\n)*PermissionError: Access Denied"):
        read(Data(path="memory://bucket/a.csv"), Split(), 1)


@pytest.mark.parametrize(("protocol", "extra"), [("s3", "s3"), ("gs", "gcs"), ("abfs", "azure")])
def test_the_extra_of_a_storage_is_named(protocol: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "_registry", {})
    with pytest.raises(MissingExtra, match=rf"{protocol}://(.|\n)*tunesmith\[{extra}\]"):
        read(Data(path=f"{protocol}://bucket/a.csv"), Split(), 1)


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "nothing://bucket/a.csv", "git://a", "s3://me:secret@b/a.csv"]
)
def test_addresses_that_are_not_fetched(address: str) -> None:
    with pytest.raises(DataError, match=r"data\.path: cannot fetch this kind of address") as caught:
        read(Data(path=address), Split(), 1)
    assert "secret" not in str(caught.value)


def test_keys_come_from_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Data(path=f"{address}/data/reviews.csv?sig=${{STORAGE_KEY}}")
    with pytest.raises(DataError, match=r"data\.path: the environment has no STORAGE_KEY"):
        read(source, Split(), 1)
    monkeypatch.setenv("STORAGE_KEY", "a/b=")
    read(source, Split(), 1)
    assert Files.asked == ["/data/reviews.csv?sig=a%2Fb%3D"]


def test_keys_in_a_query_are_in_no_message(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("reviews.csv", "reviews.csv", "none.csv"):
        with contextlib.suppress(DataError) as caught:
            read(Data(path=f"{address}/data/{name}?sig=secret"), Split(), 1)
        assert "secret" not in str(caught) + capsys.readouterr().err
    with pytest.raises(DataError, match=r"cannot fetch http://[^?]*none\.csv\?\.\.\.") as error:
        read(Data(path=f"{address}/none.csv?sig=secret"), Split(), 1)
    assert "secret" not in str(error.value)


def test_a_bucket_of_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server on this machine, with keys from the environment."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hidden-key", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="reviews")
        for number in range(2):
            client.put_object(Bucket="reviews", Key=f"2026/part-{number}.csv", Body=CONTENT)
        split = Split(test_size=0, validation_size=0)
        rows = read(Data(path="s3://reviews/2026/*.csv"), split, 1).train
        assert [row.id for row in rows[::20]] == ["part-0.csv:2", "part-1.csv:2"]
        assert read(Data(path="s3://reviews/2026/part-1.csv"), split, 1).train[0].id == "part-1.csv:2"
        with pytest.raises(DataError, match=r"cannot fetch s3://reviews/none\.csv") as caught:
            read(Data(path="s3://reviews/none.csv"), split, 1)
        assert "hidden-key" not in str(caught.value)
    finally:
        server.stop()
