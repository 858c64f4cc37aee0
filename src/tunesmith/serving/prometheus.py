"""Figures for Prometheus. The only door to prometheus-client."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunesmith.serving.queue import Queue

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        seconds = partial(Histogram, registry=self.registry, buckets=SECONDS)
        self.requests = counter("tunesmith_requests", "Answered requests", ["route", "status"])
        self.active = gauge("tunesmith_requests_active", "Requests being answered")
        self.seconds = seconds("tunesmith_request_seconds", "From request to last byte", ["route"])
        self.first = seconds("tunesmith_first_token_seconds", "From request to first token", ["model"])
        self.inputs = counter("tunesmith_inputs", "Texts and prompts that were computed", ["model"])
        self.batch = Histogram(
            "tunesmith_batch_inputs", "Inputs computed at once", ["model"], buckets=BATCHES, registry=self.registry
        )
        self.busy = counter("tunesmith_model_seconds", "Time that the model was computing", ["model"])
        self.tokens = counter("tunesmith_tokens", "Tokens of generators", ["model", "kind"])
        self.refused = counter("tunesmith_refused", "Refused requests", ["code"])
        self.left = counter("tunesmith_disconnected", "Clients that went away before their answer")
        self.guard = counter("tunesmith_guard", "What the guard did", ["where", "action", "rule"])
        self._waiting = gauge("tunesmith_waiting", "Inputs that wait", ["model"])
        self._running = gauge("tunesmith_running", "Inputs being computed", ["model"])

    def watch(self, queues: Mapping[str, Queue]) -> None:
        """Show how long the queues are, whenever somebody looks."""
        for name, queue in queues.items():
            self._waiting.labels(name).set_function(lambda queue=queue: queue.waiting)  # type: ignore[misc]
            self._running.labels(name).set_function(lambda queue=queue: queue.running)  # type: ignore[misc]

    def batched(self, name: str, inputs: int, seconds: float) -> None:
        """One batch was computed."""
        self.inputs.labels(name).inc(inputs)
        self.batch.labels(name).observe(inputs)
        self.busy.labels(name).inc(seconds)

    def page(self) -> tuple[bytes, str]:
        """The figures as text, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
