"""The served models by name, each with its queue. A model can be replaced by a newer version while it answers.

A request keeps the version that it began with until it is answered; that version is let go after its last request.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from tunesmith.console import say, warn
from tunesmith.errors import RunError, TunesmithError, summary
from tunesmith.serving.backends import Served, ServedClassifier, ServedGenerator
from tunesmith.serving.drift_monitor import DriftMonitor
from tunesmith.serving.queue import Queue
from tunesmith.serving.refusal import Refusal

Kind = TypeVar("Kind", ServedClassifier, ServedGenerator)


@dataclass(eq=False)
class LiveModel(Generic[Kind]):
    """One version of a model, and the queue of its requests."""

    served: Kind
    queue: Queue
    drift: DriftMonitor
    _requests: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this, the version can compute requests."""
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def retire(self) -> None:
        """Wait for the last request that uses this version, and end its thread."""
        try:
            if self._requests:
                await self._idle.wait()
        finally:
            self.queue.close()
        await asyncio.to_thread(self.queue.join)


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of loading the newest version of a model."""

    model: str
    previous: str
    """The version that answered before."""
    version: str
    """The version that answers now."""
    seconds: float
    problem: str | None = None
    """Why the previous version still answers."""


class LiveModels:
    """The models of a server."""

    def __init__(
        self,
        models: Mapping[str, Served],
        open_queue: Callable[[str, Served], Queue],
        load: Callable[[str], Served] | None,
        on_reload: Callable[[Reload], None],
    ) -> None:
        """load: returns the newest version of a model by its name, tried once; runs in a thread.

        on_reload: called with what came of each.
        """
        self._open_queue, self._load, self._on_reload = open_queue, load, on_reload
        self._live = {name: self._opened(name, model) for name, model in models.items()}
        self._reloading = asyncio.Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __getitem__(self, name: str) -> LiveModel[Any]:
        return self._live[name]

    @property
    def served(self) -> dict[str, Served]:
        """The current versions by name."""
        return {name: live.served for name, live in self._live.items()}

    def find(self, kind: type[Kind], name: str | None) -> LiveModel[Kind]:
        """Return the model that a request means. Raises Refusal where there is none, or more than one."""
        candidates = [name for name, live in self._live.items() if isinstance(live.served, kind)]
        if name is None and len(candidates) > 1:
            raise Refusal.invalid("several models are served: set the field model", "model_missing", "model")
        live = self._live.get(candidates[0] if name is None and candidates else name or "")
        if live is None:
            raise no_such_model()
        if isinstance(live.served, kind):
            return cast(LiveModel[Kind], live)
        path = "/predict" if isinstance(live.served, ServedClassifier) else "/v1/chat/completions"
        raise Refusal(404, f"this model is served at {path}", "model_not_found", "model")

    def retry_after(self) -> int | None:
        """Return the seconds after which a model can probably take an input; None where one can take it now."""
        waits = [live.queue.retry_after for live in self._live.values()]
        known = [wait for wait in waits if wait is not None]
        return min(known) if len(known) == len(waits) else None

    async def reload(self, names: Collection[str] | None = None) -> list[Reload]:
        """Replace models, all or some, by their newest versions, one after the other.

        Returns when the last request to a replaced version is answered, so that two versions of one model are in memory
        at most. What cannot be loaded leaves the version that answers now.
        """
        async with self._reloading:
            return [await self._replace(name) for name in names or list(self._live)]

    def close(self) -> None:
        """Accept nothing more, and let go of the models."""
        for live in self._live.values():
            live.queue.close()

    def _opened(self, name: str, model: Served) -> LiveModel[Any]:
        return LiveModel(cast(Any, model), self._open_queue(name, model), DriftMonitor(model.quantities))

    async def _replace(self, name: str) -> Reload:
        start, old = time.monotonic(), self._live[name]
        previous = old.served.version
        try:
            new = await asyncio.to_thread(self._newest, name, old.served)
        except Exception as error:  # whatever a new version is like, the old one goes on
            problem = str(error) if isinstance(error, TunesmithError) else summary(error)
            text = f"cannot reload {name}: {problem}\nversion {previous} still answers"
            warn(text, model=name, version=previous)
            self._on_reload(failed := Reload(name, previous, previous, time.monotonic() - start, problem))
            return failed
        self._live[name] = live = self._opened(name, new)
        if (new.version, new.quantities) == (previous, old.drift.quantities):
            live.drift = old.drift  # of the same version, counting goes on
        seconds = time.monotonic() - start
        self._on_reload(loaded := Reload(name, previous, new.version, seconds))
        text = f"reloaded {name}: version {new.version} answers after {seconds:.1f} s, in place of {previous}"
        say(text, model=name, version=new.version)
        await old.retire()
        del old, live
        await asyncio.to_thread(_collect)
        return loaded

    def _newest(self, name: str, old: Served) -> Served:
        """Return the newest version of a model. Raises RunError where it would answer other requests than the old."""
        if self._load is None:
            raise RunError("these models cannot be loaded again")
        new = self._load(name)
        kinds = [
            f"task {model.task}{', pairs of texts' if isinstance(model, ServedClassifier) and model.pairs else ''}"
            for model in (old, new)
        ]
        if kinds[0] != kinds[1]:
            raise RunError(
                f"{new.run_name} cannot replace {old.run_name}",
                expected=kinds[0],
                found=kinds[1],
                do="serve it under another name: restart with NAME=RUN",
            )
        return new


def no_such_model() -> Refusal:
    """Return the refusal of a name that no model has."""
    return Refusal(404, "no such model: see /v1/models", "model_not_found", "model")


def _collect() -> None:
    """Free what a replaced model leaves, also where the server has put its objects aside."""
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
