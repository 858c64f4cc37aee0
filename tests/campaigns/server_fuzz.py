"""Requests that break HTTP, JSON or the API, sent to a server of two tiny runs: the next client is served."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import socket
import struct
import threading
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import psutil

from tests import conftest, forked, tiny
from tests.campaigns.campaign import SECONDS, Campaign, Outcome
from tests.campaigns.http_requests import PROMPTS, TEXTS, fuzzed, head, valid

GROWTH = 150 * 2**20
"""Bytes by which the server may grow: bodies of 10 MB are on their way."""
BAD_LOG = re.compile(r"Traceback|error: |Exception")
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
DOCUMENTED = re.compile(rb'"code": ?"(timeout|shutting_down)"')
"""The errors for which the server has status 503."""


class _Stream(io.BytesIO):
    """Responses that http.client reads one after another."""

    def makefile(self, *_: object) -> _Stream:
        return self

    def close(self) -> None:
        pass


class ServerFuzz(Campaign):
    """Valid requests in odd forms, several on one connection, have to be answered right and in order; broken ones must
    not harm the server: no 5xx, no traceback, no connection or memory that stays, and the next client is served."""

    name = "server_fuzz"
    size = 1000
    sample = 12

    def prepare(self, folder: Path) -> None:
        conftest.write_csv(folder / "reviews.csv", tiny.texts(60))
        pairs = [{"instruction": f"Say {number}", "output": f"it is {number}"} for number in range(24)]
        (folder / "pairs.json").write_text(json.dumps(pairs))
        self._process = forked.start(folder / "server", _train_and_serve, str(folder))
        self._log, self._read, self._lock = folder / "server.err", 0, threading.Lock()
        while not self._is_listening():
            time.sleep(0.05)
            assert self._process.is_alive(), self._log.read_text()
        self._expected = json.loads((folder / "expected.json").read_text())
        self._server = psutil.Process(self._process.pid)
        for path, content in [*(("/predict", text) for text in TEXTS), *(("/", prompt) for prompt in PROMPTS)]:
            self._ask(path, content)
        self._memory = self._server.memory_info().rss

    def _is_listening(self) -> bool:
        address = re.search(r"at http://127\.0\.0\.1:(\d+)", self._log.read_text() if self._log.exists() else "")
        if address is None:
            return False
        self._port = int(address[1])
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port)):
            return True
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.join(SECONDS)
        self._process.kill()

    def attempt(self, number: int, folder: Path) -> Outcome:
        draw = self.random(number)
        sent = b""
        try:
            outcome, sent = self._valid(draw) if draw.random() < 0.2 else self._fuzzed(draw)
            if outcome.kind in ("works", "refused"):
                outcome = self._aftermath(draw) or outcome
        except TimeoutError:
            outcome = Outcome("hang", "no answer")
        except (OSError, HTTPException, ValueError) as error:
            outcome = Outcome("silent", f"no valid answer to the request after it: {error!r}")
        if outcome.kind in ("works", "refused"):
            return outcome
        return Outcome(outcome.kind, f"{outcome.detail}\nsent {len(sent):,} bytes: {sent[:1500]!r}")

    def _valid(self, draw: random.Random) -> tuple[Outcome, bytes]:
        """Send valid requests at once or in parts, and compare every response."""
        requests = [valid(draw, f"request-{index}") for index in range(draw.choice((1, 1, 3, 12)))]
        sent = b"".join(request for request, *_ in requests) + _last(draw)
        with self._connected() as connection:
            _send(connection, sent, draw)
            stream = _Stream(_receive(connection))
        for index, (_, path, content) in enumerate(requests):
            response = HTTPResponse(stream)  # type: ignore[arg-type]
            response.begin()
            body = response.read()
            if response.status == 503 and DOCUMENTED.search(body):
                return Outcome("refused"), sent
            if response.status != 200 or response.headers["X-Request-ID"] != f"request-{index}":
                return Outcome("silent", f"request {index}: {response.status} {response.headers} {body!r}"), sent
            if (answer := _answer(path, json.loads(body))) != self._expected[content]:
                return Outcome("silent", f"{path} {content!r}: {answer!r}, not {self._expected[content]!r}"), sent
        return Outcome("works"), sent

    def _fuzzed(self, draw: random.Random) -> tuple[Outcome, bytes]:
        """Send broken requests, and read until the server closes the connection, or leave before."""
        sent = fuzzed(draw)
        received = b""
        with self._connected() as connection:
            ending = draw.random()
            with contextlib.suppress(ConnectionError):
                if ending < 0.75:
                    sent += _last(draw)
                elif ending < 0.8:  # a client that stops in the middle, and waits
                    sent = sent[: 1 + draw.randrange(len(sent))]
                _send(connection, sent, draw)
                if ending < 0.8:
                    received = _receive(connection)
                elif ending < 0.9:  # a client that sends no more, and may still read
                    with contextlib.suppress(OSError):  # the server was first
                        connection.shutdown(socket.SHUT_WR)
                    received = _receive(connection)
                else:  # closed with a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        statuses = [int(status) for status in STATUS.findall(received)]
        errors = [status for status in statuses if status >= 500]
        if errors and not (set(errors) == {503} and DOCUMENTED.search(received)):
            return Outcome("traceback", f"statuses {statuses}: {received[-1500:]!r}"), sent
        return Outcome("works" if set(statuses) == {200} else "refused"), sent

    def _aftermath(self, draw: random.Random) -> Outcome | None:
        """Return what an attempt left behind: a wrong answer to the next client, memory, connections, a traceback."""
        content = draw.choice((*TEXTS, PROMPTS[0]))
        if (answer := self._ask("/predict" if content in TEXTS else "/", content)) != self._expected[content]:
            return Outcome("silent", f"the next client's {content!r} got {answer!r}, not {self._expected[content]!r}")
        if (memory := self._server.memory_info().rss) > self._memory + GROWTH:
            return Outcome("memory", f"{memory / 2**20:.0f} MB, {self._memory / 2**20:.0f} at first")
        with self._lock:
            log = self._log.read_text(errors="replace")
            new, self._read = log[self._read :], len(log)
        return Outcome("traceback", new[-3000:]) if BAD_LOG.search(new) else None

    def _ask(self, path: str, content: str) -> Any:
        """Return the answer to a normal request on a connection of its own, after which the server has closed it."""
        body: dict[str, object] = {"inputs": content}
        if path != "/predict":
            path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}
        data = json.dumps(body).encode()
        with self._connected() as connection:
            lines = ["Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close"]
            connection.sendall(head(path, *lines) + data)
            response = HTTPResponse(connection)
            response.begin()
            return _answer(path, json.loads(response.read()))

    @contextlib.contextmanager
    def _connected(self) -> Any:
        """A connection, which the server must have closed soon after the client did."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS) as connection:
            port = connection.getsockname()[1]
            yield connection
        until = time.monotonic() + SECONDS
        while any(held.raddr and held.raddr.port == port for held in self._server.net_connections("tcp")):
            if time.monotonic() > until:
                raise TimeoutError(f"the server keeps the connection from port {port}")
            time.sleep(0.01)


def _last(draw: random.Random) -> bytes:
    """A request after which the server closes the connection, so that the client can read to its end."""
    return draw.choice((b"", b"\r\n")) + head("/healthz", "Connection: close", method="GET")


def _send(connection: socket.socket, data: bytes, draw: random.Random) -> None:
    """Send at once, in a few parts, or (rarely) with pauses."""
    pause = draw.choice((0.0, 0.0, 0.0, 0.0, 0.05, 0.3))
    cuts = sorted(draw.randrange(len(data)) for _ in range(draw.choice((0, 0, 0, 1, 5))))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        connection.sendall(data[start:end])
        time.sleep(pause if cuts else 0)


def _receive(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection. Raises TimeoutError."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(2**16):
            received += data
    return bytes(received)


def _answer(path: str, body: dict[str, Any]) -> object:
    return body["predictions"][0]["label"] if path == "/predict" else body["choices"][0]["message"]["content"]


def _train_and_serve(folder: str) -> None:
    import os

    import tunesmith
    from tunesmith.serving import server

    os.chdir(folder)
    quick = ["evaluate.bootstrap_samples=100", "engine.save_strategy=no"]
    linear = tunesmith.train({"method": "linear", "data": {"path": "reviews.csv"}}, overrides=quick, run_dir="linear")
    recipe = {
        "task": "instruction",
        "data": {"path": "pairs.json"},
        "train": {"max_steps": 1},
        "model": {"name_or_path": str(tiny.generator("llama", Path("llama"))), "max_length": 256},
        "generate": {"max_new_tokens": 8},
        "evaluate": {"max_responses": 0, "num_samples": 0, "base": False},
    }
    assistant = tunesmith.train(recipe, overrides=quick, run_dir="assistant")
    labels = [row["label"] for row in tunesmith.predict(linear.path, list(TEXTS))]
    responses = [row["response"] for row in tunesmith.predict(assistant.path, list(PROMPTS))]
    Path("expected.json").write_text(json.dumps(dict(zip((*TEXTS, *PROMPTS), labels + responses, strict=True))))
    server.HEADER_TIMEOUT = server.KEEP_ALIVE = server.STALL_TIMEOUT = 1
    forked.command("serve", "linear", "assistant", "port=0", "timeout_seconds=2")
