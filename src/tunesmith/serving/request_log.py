"""What the log says of a request: one line when it is answered, a traceback where it failed."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunesmith.console import is_json, report, say


@dataclass(slots=True)
class RequestLog:
    """One line of the log, filled while the request is on its way."""

    id: str
    method: str
    with_texts: bool = False
    """Whether texts and predictions may be logged (`serve.log_texts`)."""
    started: float = field(default_factory=time.monotonic)
    route: str = ""
    status: int = 0
    model: str | None = None
    version: str | None = None
    """Of the model, which the response has as X-Model-Version."""
    inputs: int | None = None
    texts: str | None = None
    """The texts of the request, then those of the response: JSON lists."""
    predictions: str | None = None
    tokens: str | None = None
    """Tokens of prompt and answer, as `12+34`."""

    def add_texts(self, texts: Sequence[str]) -> None:
        """Log some texts where that is allowed."""
        if self.with_texts:
            self.texts = (self.texts or "") + json.dumps(texts)

    def add_predictions(self, answers: Sequence[object]) -> None:
        """Log predicted labels or numbers where texts may be logged."""
        if self.with_texts:
            self.predictions = json.dumps(answers)

    def write(self, seconds: float) -> None:
        """Write the line; seconds: how long the request took."""
        names = ("model", "version", "inputs", "texts", "predictions", "tokens")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        request = f"{self.method} {self.route} {self.status}"
        if is_json():
            facts = {"method": self.method, "path": self.route, "status": self.status}
            say(request, request_id=self.id, **facts, latency_ms=round(1000 * seconds, 1), **values)
            return
        details = " ".join(f"{name}={value}" for name, value in values.items())
        say(f"{time.strftime('%H:%M:%S')} {self.id} {request} {1000 * seconds:.0f}ms {details}".rstrip())

    def write_error(self, error: Exception) -> None:
        """Write where an error happened, without its message, which could contain a text."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        kind, facts = type(error).__name__, {"request_id": self.id, "model": self.model, "version": self.version}
        report(f"{self.id} {kind}\n{frames.rstrip()}", **facts, error=kind)
