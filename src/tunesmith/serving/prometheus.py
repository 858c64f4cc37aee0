"""Metrics for Prometheus. The only module that imports prometheus-client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunesmith.serving.drift_schemas import DriftResponse
from tunesmith.serving.queue import Queue

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
MOST_LABELS = 100
"""Labels of a model with a count of their own."""
CHARACTERS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("tunesmith_requests", "Answered requests", ["route", "status"])
        self.active = gauge("tunesmith_requests_active", "Requests being answered")
        self.seconds = histogram("tunesmith_request_seconds", "From request to last byte", ["route"], buckets=SECONDS)
        self.first_token = histogram(
            "tunesmith_first_token_seconds", "From request to first token", ["model"], buckets=SECONDS
        )
        self.inputs = counter("tunesmith_inputs", "Texts and prompts that were computed", ["model"])
        self.batch = histogram("tunesmith_batch_inputs", "Inputs per batch", ["model"], buckets=BATCHES)
        self.model_seconds = counter("tunesmith_model_seconds", "Seconds for which the model was computing", ["model"])
        self.tokens = counter("tunesmith_tokens", "Tokens of generators", ["model", "kind"])
        self.refused = counter("tunesmith_refused", "Refused requests", ["code"])
        self.disconnected = counter("tunesmith_disconnected", "Clients that disconnected before their response")
        self.guard = counter("tunesmith_guard", "Actions of the guard", ["where", "action", "rule"])
        self.predictions = counter(
            "tunesmith_predictions", "Predicted labels; rare ones as `other`", ["model", "label"]
        )
        confidence = [edge / 10 for edge in range(1, 11)]
        self.confidence = histogram(
            "tunesmith_confidence", "Highest probability of an input", ["model"], buckets=confidence
        )
        self.characters = histogram(
            "tunesmith_input_characters", "Characters of an input", ["model"], buckets=CHARACTERS
        )
        self._psi = gauge("tunesmith_drift_psi", "Drift of the last 24 hours: PSI", ["model", "quantity"])
        self._distance = gauge(
            "tunesmith_drift_distance", "The same as total variation distance", ["model", "quantity"]
        )
        self._drift = gauge(
            "tunesmith_drift_detected", "1 where the drift is large and no chance", ["model", "quantity"]
        )
        self._labels: dict[str, set[str]] = {}
        self.reloads = counter("tunesmith_reloads", "Models loaded again", ["model", "result"])
        self._info = gauge("tunesmith_model_info", "1 for the version that answers", ["model", "version"])
        self._versions: dict[str, str] = {}
        self._waiting = gauge("tunesmith_waiting", "Inputs waiting", ["model"])
        self._running = gauge("tunesmith_running", "Inputs being computed", ["model"])

    def watch(self, name: str, queue: Queue, version: str) -> None:
        """Read the length of a model's queue at every scrape, in place of that of the version before."""
        if previous := self._versions.get(name):
            self._info.remove(name, previous)
        self._versions[name] = version
        self._info.labels(name, version).set(1)
        for result in ("loaded", "failed"):
            self.reloads.labels(name, result)  # from 0 on, so that a first reload is an increase
        self._waiting.labels(name).set_function(lambda: queue.waiting)
        self._running.labels(name).set_function(lambda: queue.running)

    def observe_values(self, model: str, values: Mapping[str, Iterable[Any]]) -> None:
        """Count predicted labels, probabilities and lengths. Of many labels those that came first have own counts."""
        known = self._labels.setdefault(model, set())
        for label in values.get("label", ()):
            if len(known) < MOST_LABELS:
                known.add(label)
            self.predictions.labels(model, label if label in known else "other").inc()
        for name, metric in (("confidence", self.confidence), ("characters", self.characters)):
            for value in values.get(name, ()):
                metric.labels(model).observe(value)

    def show_drift(self, drift: DriftResponse) -> None:
        """Show the drift of a window, and no other; NaN where there are too few values."""
        for gauge in (self._psi, self._distance, self._drift):
            gauge.clear()
        for each in drift.models:
            for result in each.quantities:
                names = each.model, result.quantity
                self._psi.labels(*names).set(math.nan if result.psi is None else result.psi)
                self._distance.labels(*names).set(math.nan if result.distance is None else result.distance)
                self._drift.labels(*names).set(result.status == "drift")

    def observe_batch(self, model: str, inputs: int, seconds: float) -> None:
        """Count one computed batch."""
        self.inputs.labels(model).inc(inputs)
        self.batch.labels(model).observe(inputs)
        self.model_seconds.labels(model).inc(seconds)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
