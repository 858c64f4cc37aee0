"""What a connection may take: headers that are slow or long, and clients that stop reading, end it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.serving_fakes import FakeGenerator, application, classifier, generator, listening, message, wait_until
from tunesmith.serving import server

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(address.rsplit(":")[-1])), timeout=20) as connection:
        yield connection


def response(connection: socket.socket) -> bytes:
    """The next response, or what came of it before the connection was closed. Raises TimeoutError if it hangs."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while not received.endswith(b"}") and (data := connection.recv(2**16)):
            received += data
    return received


def drip(connection: socket.socket, data: bytes, seconds: float = 0.02) -> bool:
    """Send byte by byte; return whether the connection was closed meanwhile."""
    with contextlib.suppress(ConnectionError):
        for index in range(len(data)):
            connection.send(data[index : index + 1])
            threading.Event().wait(seconds)
        return False
    return True


def test_slow_headers_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new connection, on one that has served a request, and where nothing but line ends or a body comes late."""
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.2)
    slow = GET.replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 500)
    late_body = GET.replace(b"Host", b"Content-Length: 9999\r\nHost")
    with listening(application(classifier())) as address, connected(address) as kept:
        kept.sendall(GET)
        assert response(kept).startswith(b"HTTP/1.1 200")
        for before, data in ((b"", slow), (GET, slow), (b"", b"\r\n" * 1000), (late_body, b"x" * 2000)):
            with connected(address) as connection:
                if before:
                    connection.sendall(before)
                    assert response(connection).startswith(b"HTTP/1.1 200")
                assert drip(connection, data)
                assert response(connection) == b""
        kept.sendall(GET)  # between requests a connection is kept for longer
        assert response(kept).startswith(b"HTTP/1.1 200")


def test_a_slow_body_is_no_slow_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.05)
    body = json.dumps({"inputs": "a text"}).encode()
    with listening(application(classifier())) as address, connected(address) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert not drip(connection, body)
        assert response(connection).startswith(b"HTTP/1.1 200")


def test_long_headers_are_refused() -> None:
    with listening(application(classifier())) as address:
        for size, status in ((server.MAX_HEADER_BYTES // 2, b"200"), (3 * server.MAX_HEADER_BYTES, b"400")):
            with connected(address) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * size + b"\r\n\r\n"))
                assert connection.recv(12) == b"HTTP/1.1 " + status


def test_a_client_that_stops_reading_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed, not only its request: no descriptor is held for it."""
    monkeypatch.setattr(server, "STALL_TIMEOUT", 0.1)
    fake = FakeGenerator(context_length=10**4, answer=lambda _: ["word " * 100_000] * 40)
    body = json.dumps({"messages": message("a"), "stream": True})
    with listening(application(generator(model=fake), timeout_seconds=1)) as address:
        before = psutil.Process().num_fds()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", int(address.rsplit(":")[-1])))
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            connection.recv(1)
            wait_until(lambda: psutil.Process().num_fds() == before + 1)
