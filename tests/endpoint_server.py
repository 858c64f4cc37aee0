"""A chat completion endpoint on loopback: a function gives its replies, and it misbehaves on demand."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MARK = re.compile(r"#[0-9a-f]{16}")


@dataclass
class Request:
    """What was asked: headers, body, and what stands in it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def user(self) -> str:
        return str(self.body["messages"][-1]["content"])

    def block(self, name: str) -> str:
        """The text of one block of the material, as a judge would read it."""
        mark = MARK.search(self.user)
        assert mark
        lines = self.user.splitlines()
        start, end = (lines.index(f"{mark[0]} {name} {edge}") for edge in ("begins", "ends"))
        return "\n".join(lines[start + 1 : end])


Act = Callable[[Request], Any]
"""Gives a reply's text; or (status, headers, body as bytes) for something else; or one of the words in `Server`."""


@dataclass
class Server:
    """The requests so far, and where to ask.

    Words: `hang`, `cut` (half a body), `drip`, and two without an answer: `drop` and `reset`.
    """

    url: str
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    highest: int = 0
    """Most requests at one time."""
    active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(text: str | None, finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return response(choice)


def response(choice: dict[str, Any], prompt: int = 100, written: int = 7, **more: Any) -> bytes:
    """A chat completion with one choice."""
    usage = {"prompt_tokens": prompt, "completion_tokens": written}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage, **more}).encode()


@contextmanager
def serving(act: Act, delay: float = 0.0, hang: float = 1.5) -> Iterator[Server]:
    """An endpoint whose replies come from `act`, after `delay` seconds. hang: seconds that the word stands for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def setup(self) -> None:
            super().setup()
            with server.lock:
                server.connections += 1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            one = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with server.lock:
                server.requests.append(one)
                server.active += 1
                server.highest = max(server.highest, server.active)
            time.sleep(delay)
            try:
                self._answer(act(one))
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with server.lock:
                    server.active -= 1

        def _answer(self, said: Any) -> None:
            if said in ("drop", "reset"):
                if said == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            if said == "hang":
                time.sleep(hang)
                self.close_connection = True
                return
            status, headers, body = said if isinstance(said, tuple) else (200, {}, said)
            whole = completion(body) if isinstance(body, str) and body not in ("cut", "drip") else body
            if whole in ("cut", "drip"):
                word, whole = whole, completion("Score: 50")
                self.send_response(200)
                self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                if word == "cut":
                    self.wfile.write(whole[: len(whole) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return
                for byte in whole:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)

    class Web(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that went away."""

    web = Web(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{web.server_address[1]}/v1")
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
