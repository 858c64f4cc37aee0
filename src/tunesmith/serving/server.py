"""The process that listens: where it may, and how it ends. The only door to uvicorn."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from tunesmith.console import say
from tunesmith.errors import RecipeError
from tunesmith.recipe import Serve
from tunesmith.serving.middleware import Middleware, ServerState

KEEP = 75
"""Seconds that an idle connection is kept. Longer than clients keep theirs (5 s and more): a server that closes first
can meet a request that is on its way."""


SWITCH = 0.0005
"""Seconds after which Python takes the word from a thread. With its own 5 ms, connections wait that long for a model's
thread, again and again."""


def keys(settings: Serve) -> list[str]:
    """The keys of environment and file. Raises RecipeError where others could reach the server and there are none."""
    given = os.environ.get(settings.key_env, "").split(",")
    if settings.key_file is not None:
        try:
            given += Path(settings.key_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read serve.key_file {settings.key_file}", found=str(error)) from error
    found = [key.strip() for key in given if key.strip()]
    if not found and settings.key_file is not None:
        raise RecipeError(f"serve.key_file {settings.key_file} has no key", do="write a key on each line")
    if not found and not _is_local(settings.host):
        raise RecipeError(
            f"serve.host {settings.host} can be reached from other machines, and there is no key",
            do=f"set {settings.key_env}=KEY in the environment, or serve.key_file=FILE, or leave serve.host out",
        )
    return found


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(settings: Serve) -> socket.socket:
    """The socket to serve on. Raises RecipeError where the address is not to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        raise RecipeError(
            f"cannot listen on {settings.host}:{settings.port}", found=str(error), do="choose another serve.port"
        ) from error
    return found


def run(app: Middleware, settings: Serve, listener: socket.socket) -> None:
    """Serve until a signal comes and what was accepted is answered."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # models and libraries stay: looking through them for garbage would stop everything, again and again
    try:
        server(app, settings).run([listener])
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)
    say(f"answered {app.state.answered:,} requests")


def server(app: Middleware, settings: Serve) -> uvicorn.Server:
    """What listens, not started yet."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP,
    )
    return _Process(config, app.state, settings.drain_seconds)


class _Process(uvicorn.Server):
    """Ends in two steps: first new requests are refused, then, when the others are answered, the door closes."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config)
        self.state, self.seconds, self.clock = state, seconds, clock
        self.until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once."""
        if self.state.draining:
            self.should_exit = self.force_exit = True
            return
        self.state.draining = True
        self.until = self.clock() + self.seconds
        say(f"ending: {self.state.active} requests are still answered; once more to stop at once")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.state.draining and (not self.state.active or self.clock() > self.until):
            self.should_exit = True
        return await super().on_tick(counter)
