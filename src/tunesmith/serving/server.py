"""The server process: where it listens, and how it shuts down. The only module that imports uvicorn."""

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

KEEP_ALIVE = 75
"""Seconds for which an idle connection is kept. Longer than clients keep theirs (5 s and more): a server that closes
first can miss a request that is on its way."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which Python switches threads. With its default of 5 ms, connections wait that long for a model's
thread, again and again."""


def keys(settings: Serve) -> list[str]:
    """Return the keys of environment and file. Raises RecipeError where other machines can connect without a key."""
    entries = os.environ.get(settings.key_env, "").split(",")
    if settings.key_file is not None:
        try:
            entries += Path(settings.key_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read serve.key_file {settings.key_file}", found=str(error)) from error
    keys = [entry.strip() for entry in entries if entry.strip()]
    if not keys and settings.key_file is not None:
        raise RecipeError(f"serve.key_file {settings.key_file} contains no key", do="write one key per line")
    try:
        local = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        local = settings.host == "localhost"
    if not keys and not local:
        raise RecipeError(
            f"serve.host {settings.host} can be reached from other machines, but no key is set",
            do=f"set {settings.key_env}=KEY in the environment, or serve.key_file=FILE, or remove serve.host",
        )
    return keys


def listen(settings: Serve) -> socket.socket:
    """Return the socket to serve on. Raises RecipeError where the address cannot be bound."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # without its protocol, asyncio would not set TCP_NODELAY, and responses on kept connections would wait 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise RecipeError(
            f"cannot bind the address {settings.host}:{settings.port}",
            found=str(error),
            do="choose another serve.port",
        ) from error
    return listener


def run(app: Middleware, settings: Serve, listener: socket.socket) -> None:
    """Serve until a signal arrives and every accepted request is answered."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # models and libraries stay: scanning them for garbage would stop everything, again and again
    try:
        server(app, settings).run([listener])
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
    say(f"answered {app.state.answered:,} requests")


def server(app: Middleware, settings: Serve) -> uvicorn.Server:
    """Return the server, not yet started."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE,
    )
    return _DrainingServer(config, app.state, settings.drain_seconds)


class _DrainingServer(uvicorn.Server):
    """Shuts down in two steps: it refuses new requests, then exits once the others are answered."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config)
        self.state, self.seconds, self.clock = state, seconds, clock
        self.exit_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, exit at once on the second."""
        if self.state.draining:
            self.should_exit = self.force_exit = True
            return
        self.state.draining = True
        self.exit_at = self.clock() + self.seconds
        say(f"shutting down: finishing {self.state.active} requests; press Ctrl-C again to quit now")

    async def on_tick(self, counter: int) -> bool:
        """Exit once everything is answered or the time is over; called ten times a second."""
        if self.state.draining and (not self.state.active or self.clock() > self.exit_at):
            self.should_exit = True
        return await super().on_tick(counter)
