"""What a run records about itself in manifest.json and, while it trains, in metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tunesmith import records
from tunesmith.errors import RunError
from tunesmith.hardware import Environment
from tunesmith.processes import ProcessIdentity
from tunesmith.records import omitted_if_none
from tunesmith.types import DataNote, DataSummary

Status = Literal["running", "interrupted", "failed", "finished"]
FORMAT = 1
"""Raised whenever a run directory written before can no longer be read, or one written now by an older tunesmith."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCosts:
    """What the predictions of the test split by an endpoint took, in whichever run they were asked for."""

    model: str
    """Which model answered, as the server names it; several are separated by commas."""
    requests: int
    """HTTP requests, retries among them."""
    reused: int
    """Replies that an earlier run had been given already."""
    prompt_tokens: int
    completion_tokens: int
    price: float | None
    """What these tokens cost at `endpoint.prices`; None where those are unknown."""
    waited: float
    """Seconds between attempts, such as those that a rate limit asks for, over all requests."""
    latency: tuple[float, float, float]
    """The median, and the 95th and 99th percentile, of the seconds that a reply took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a training cost. The base model, which was not trained, has parameters alone."""

    train_seconds: float | None
    seconds_per_1000: float | None
    """To predict 1,000 rows."""
    base_seconds: float | None = None
    """To let the base model answer the test prompts."""
    peak_memory_mb: float | None
    parameters: int
    trainable: int
    size_mb: float | None
    """Of the folder `model/`."""
    side_by_side: int | None = omitted_if_none()
    """How many trainings ran on the machine at once while this was measured (`compare --parallel`)."""
    endpoint: EndpointCosts | None = omitted_if_none()
    """Of a model behind an endpoint."""


UNKNOWN_COSTS = Costs(
    train_seconds=None, seconds_per_1000=None, peak_memory_mb=None, parameters=0, trainable=0, size_mb=None
)
"""The costs of a model that was not trained here."""


@dataclass(frozen=True, slots=True)
class TrainingNotes:
    """What training was like, for the manifest, without the entries that do not apply to a method."""

    device: str | None = omitted_if_none()
    processes: int | None = omitted_if_none()
    sharded: bool | None = omitted_if_none()
    mixed_precision: str | None = omitted_if_none()
    steps: int | None = omitted_if_none()
    best_step: int | None = omitted_if_none()
    """None if the last weights were kept."""
    skipped: int | None = omitted_if_none()
    """Steps without anything to learn."""
    dtype: str | None = omitted_if_none()
    """The number format of the weights in training."""
    fallback: str | None = omitted_if_none()
    """What was trained instead of what the recipe asks for, and why."""
    adapter: str | None = omitted_if_none()
    template: str | None = omitted_if_none()
    layout: str | None = omitted_if_none()
    cut: int | None = omitted_if_none()
    """Training rows that were cut."""
    cut_rows: list[str] | None = omitted_if_none()
    """The first of them."""
    streamed: int | None = omitted_if_none()
    """Texts of a stream that were learned from."""
    ngrams: int | None = omitted_if_none()
    solver: str | None = omitted_if_none()
    """Of a linear model with more than a few classes."""
    accepted: str | None = omitted_if_none()
    """Files that were changed after the training, and when `tunesmith runs accept` took them as they were."""

    def with_cut(self, changes: Sequence[DataNote]) -> TrainingNotes:
        """Return the notes with the rows that truncation names."""
        rows = [name for change in changes for name in change.where]
        return replace(self, cut=sum(change.count for change in changes), cut_rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A run, as it is known from its start."""

    tunesmith: str
    """The version that wrote it."""
    format: int = FORMAT
    name: str
    """What the method is called in a comparison: `encoder`, `generator:lora`."""
    task: str = "classification"
    method: str
    description: str
    seed: int
    trust_remote_code: bool
    data: DataSummary
    parent: str | None = omitted_if_none()
    """The run whose weights this one began with (`train --continue`)."""
    status: Status
    """As it was last written: a process that was killed leaves `running` behind. See `state`."""
    reason: str | None = omitted_if_none()
    """Why it was interrupted or failed."""
    process: ProcessIdentity | None = omitted_if_none()
    """What trains it."""

    def state(self) -> tuple[str, str]:
        """Return the status, and the reason where it has not finished."""
        if self.status == "running" and self.process is not None and self.process.has_ended():
            return "interrupted", f"{self.process} ended without a message"
        return self.status, self.reason or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedManifest(Manifest):
    """A run that was trained and evaluated."""

    validation: dict[str, float] | None
    """Metrics of the validation split; None where there is none."""
    train: dict[str, float] | None = omitted_if_none()
    """Metrics of training rows drawn at random, where the task has them."""
    costs: Costs
    notes: TrainingNotes
    environment: Environment


@dataclass(frozen=True, slots=True)
class Sample:
    """A validation prompt and the model's answer during training."""

    id: str
    prompt: str
    reference: str
    response: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of metrics.jsonl: losses of the last steps, an evaluation, or sample answers."""

    step: int
    loss: float | None = None
    """Mean training loss since the last such line."""
    grad_norm: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    """Mean loss on training rows, of an evaluation on `evaluate.eval_batches`."""
    validation: dict[str, float] = field(default_factory=dict)
    """Metrics of the validation split; in the file each is a key `validation_<name>`."""
    samples: tuple[Sample, ...] = ()


def parse(content: dict[str, Any], where: str) -> Manifest:
    """Return the manifest in parsed JSON: a `FinishedManifest` where the run has finished.

    where: the file, for messages. Raises RunError for a manifest that is damaged or from a newer version.
    """
    written = content.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise RunError(
            f"{where} was written by a newer tunesmith ({content.get('tunesmith', 'unknown version')})",
            expected=f"format {FORMAT} or older",
            found=f"format {written}",
            do="pip install --upgrade tunesmith",
        )
    finished = content.get("status") == "finished"
    return records.load(FinishedManifest if finished else Manifest, content, where)


def dump_entry(entry: LogEntry) -> dict[str, Any]:
    """Return a log entry as its line in metrics.jsonl holds it."""
    line: dict[str, Any] = {"step": entry.step}
    if entry.loss is not None:
        line |= {"loss": entry.loss, "grad_norm": entry.grad_norm, "learning_rate": entry.learning_rate}
    line |= {} if entry.train_loss is None else {"train_loss": entry.train_loss}
    line |= {f"validation_{name}": value for name, value in entry.validation.items()}
    return line | ({"samples": records.dump(entry.samples)} if entry.samples else {})


def parse_entry(line: dict[str, Any], where: str) -> LogEntry:
    """Return the log entry in a parsed line of metrics.jsonl."""
    validation = {
        key.removeprefix("validation_"): value for key, value in line.items() if key.startswith("validation_")
    }
    return records.load(LogEntry, line | {"validation": validation}, where)
