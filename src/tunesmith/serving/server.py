"""The server process: where it listens, and how it shuts down. The only module that imports uvicorn."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tunesmith.console import is_json, say
from tunesmith.errors import RecipeError
from tunesmith.recipe import Serve
from tunesmith.serving.middleware import Middleware, ServerState

KEEP_ALIVE = 75
"""Seconds for which an idle connection is kept. Longer than clients keep theirs (5 s and more): a server that closes
first can miss a request that is on its way."""
HEADER_TIMEOUT = 15
"""Seconds in which the headers of a request must arrive, from its first byte on."""
MAX_HEADER_BYTES = 2**18
"""Headers that are longer and still incomplete are refused; asyncio reads as many bytes at once."""
STALL_TIMEOUT = 30
"""Seconds after which a connection is closed whose client reads nothing of what waits to be sent."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which Python switches threads. With its default of 5 ms, connections wait that long for a model's
thread, again and again."""

Reloading = Callable[[], Awaitable[object]]


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
    return _bound(settings.host, settings.port, "serve.port")


def listen_admin(settings: Serve) -> socket.socket | None:
    """Return the socket of the admin port, which only this machine can reach; None without one."""
    return None if settings.admin_port is None else _bound("127.0.0.1", settings.admin_port, "serve.admin_port")


def _bound(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # without its protocol, asyncio would not set TCP_NODELAY, and responses on kept connections would wait 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RecipeError(
            f"cannot bind the address {host}:{port}",
            found=str(error),
            do=f"choose another {setting}",
        ) from error
    return listener


@contextmanager
def holding_reloads() -> Iterator[None]:
    """Within this, SIGHUP, which would end the process, waits until a server listens that can reload its models."""
    if not hasattr(signal, "pthread_sigmask"):  # there is no such signal
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(
    app: Middleware,
    settings: Serve,
    listeners: Sequence[socket.socket],
    reload: Reloading,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal arrives and every accepted request is answered.

    reload: what SIGHUP starts. on_ready: called once clients can connect.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()  # models and libraries stay: scanning them for garbage would stop everything, again and again
    try:
        server(app, settings, reload, on_ready).run(list(listeners))
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
    say(f"answered {app.state.answered:,} requests")


def server(
    app: Middleware, settings: Serve, reload: Reloading, on_ready: Callable[[], None] = lambda: None
) -> uvicorn.Server:
    """Return the server, not yet started; parameters as of `run`."""
    config = uvicorn.Config(
        app,
        http=_LimitedConnection,
        log_level="warning",
        log_config=None if is_json() else uvicorn.config.LOGGING_CONFIG,
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE,
    )
    return _DrainingServer(config, app.state, settings.drain_seconds, reload, on_ready)


class _LimitedConnection(HttpToolsProtocol):
    """An HTTP connection that is closed where request headers are too slow or too long, or the client stops reading.

    uvicorn only limits the time between two requests; the middleware limits bodies and responses.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin like a connection that is kept between two requests."""
        super().connection_made(transport)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._check_reader(0)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Parse data. Outside of a request, it must become the headers of one, in time and within their limit."""
        if self.cycle is None or self.cycle.response_complete:
            self._header_bytes += len(data)
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self.transport.abort)
        super().data_received(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.send_400_response("The headers of the request are too long.")

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._end_headers()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the timers."""
        self._end_headers()
        self._reader_timer.cancel()
        super().connection_lost(exc)

    def _end_headers(self) -> None:
        self._header_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _check_reader(self, before: int) -> None:
        """Close the connection if all that waited to be sent at the last check still does."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting == before:
            self.transport.abort()
        self._reader_timer = self.loop.call_later(STALL_TIMEOUT, self._check_reader, waiting)


class _DrainingServer(uvicorn.Server):
    """Shuts down in two steps: it refuses new requests, then exits once the others are answered. SIGHUP reloads."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        seconds: float,
        reload: Reloading,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.state, self.seconds, self.reload, self.on_ready = state, seconds, reload, on_ready
        self.exit_at = 0.0
        self._reloads: set[asyncio.Task[object]] = set()
        self._had_terminal = _has_terminal()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and to heed SIGHUP where there is such a signal. Raises RecipeError."""
        try:
            await super().startup(sockets)
        except OSError as error:  # of two servers that were bound at the same time, one can listen
            do = "choose another serve.port, and another serve.admin_port where there is one"
            raise RecipeError("another process took the address meanwhile", found=str(error), do=do) from error
        self.on_ready()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that was held comes now

    def _hang_up(self) -> None:
        """Reload; where the terminal is gone that the server was started in, shut down instead."""
        if self._had_terminal and not _has_terminal():
            self.handle_exit(signal.SIGHUP, None)
            return
        if len(self._reloads) > 1:  # the one that waits for the first will find what is new
            return
        task = asyncio.ensure_future(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, exit at once on the second."""
        if self.state.draining:
            self.should_exit = self.force_exit = True
            return
        self.state.draining = True
        self.exit_at = time.monotonic() + self.seconds
        say(f"shutting down: finishing {self.state.active} requests; press Ctrl-C again to quit now")

    async def on_tick(self, counter: int) -> bool:
        """Exit once everything is answered or the time is over; called ten times a second."""
        if self.state.draining and (not self.state.active or time.monotonic() > self.exit_at):
            self.should_exit = True
        return await super().on_tick(counter)


def _has_terminal() -> bool:
    """Return whether this process is used in a terminal that still exists."""
    return any(os.isatty(stream) for stream in (0, 1, 2))
