"""How closely an export matches its run: logits, labels or tokens, size and speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, Precision, Runner
from tunesmith.protocols import Logits
from tunesmith.records import omitted_if_none

FILE = "parity.json"
CHUNK = 8
"""Rows that the run and its export compute alternately."""
CLOSE = 1e-4
"""Largest accepted difference of an exact export's logits, as a share of the largest logit."""
AGREE = 0.99
"""Share of answers that must be equal where weights were rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How an export compares with its run, as parity.json holds it."""

    target: str
    precision: Precision
    exact: bool
    """Whether nothing was rounded."""
    rows: int
    max_logit_difference: float
    """The largest absolute difference of two logits."""
    largest_logit: float
    """The run's largest absolute logit, as the scale of that difference."""
    compared: int
    """Answers that were compared: labels, or the tokens of generated responses."""
    agreement: float
    """Share of the answers that are equal."""
    same_answers: float
    """Share of the rows in which every answer is equal."""
    engine: str
    """What computed the export."""
    seconds_per_row: tuple[float, float] | None = omitted_if_none()
    """Of the run and of the export: medians over chunks of 8 rows."""
    speed: float | None = omitted_if_none()
    """How many times as fast as the run the export is; None where another engine than the user's computed it."""
    size_mb: float
    run_size_mb: float
    folder: str | None = omitted_if_none()
    """Where the export is; not in the file, which may be moved."""


def compare(
    reference: Runner,
    exported: Exported,
    rows: Sequence[Any],
    *,
    target: str,
    precision: Precision,
    size_mb: float,
    run_size_mb: float,
) -> ParityReport:
    """Run both on the same rows, alternately. rows: at least one, as `Exportable.parity_rows` returns them."""
    largest_difference = largest_logit = 0.0
    agreements: list[list[bool]] = []
    seconds: list[tuple[float, float]] = []
    reference(rows[:1]), exported.run(rows[:1])  # what is set up at the first call is not part of the speed
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        expected, expected_seconds = _timed(reference, chunk)
        actual, actual_seconds = _timed(exported.run, chunk)
        seconds.append((expected_seconds / len(chunk), actual_seconds / len(chunk)))
        for ours, theirs in zip(expected, actual, strict=True):
            difference = float(np.abs(ours - theirs).max()) if np.isfinite(theirs).all() else float("inf")
            largest_difference = max(largest_difference, difference)
            largest_logit = max(largest_logit, float(np.abs(ours).max()))
            agreements.append(np.atleast_1d(ours.argmax(-1) == theirs.argmax(-1)).tolist())
    answers = [agrees for row in agreements for agrees in row]
    run_seconds, export_seconds = zip(*seconds, strict=True)
    return ParityReport(
        target=target,
        precision=precision,
        exact=exported.exact,
        rows=len(rows),
        max_logit_difference=largest_difference,
        largest_logit=largest_logit,
        compared=len(answers),
        agreement=sum(answers) / len(answers),
        same_answers=sum(map(all, agreements)) / len(agreements),
        engine=exported.engine,
        seconds_per_row=(statistics.median(run_seconds), statistics.median(export_seconds)) if exported.timed else None,
        speed=statistics.median(ours / theirs for ours, theirs in seconds) if exported.timed else None,
        size_mb=size_mb,
        run_size_mb=run_size_mb,
    )


def problem(report: ParityReport) -> str | None:
    """Return what differs too much, in words; None where the export matches the run."""
    if report.exact:
        matches = report.agreement == 1 and report.max_logit_difference <= CLOSE * report.largest_logit
    else:
        matches = report.agreement >= AGREE
    if matches:
        return None
    return (
        f"{agreement(report)}; logits differ by up to {report.max_logit_difference:.2g} of {report.largest_logit:.2g}"
    )


def check(report: ParityReport, allow_loss: bool) -> None:
    """Raise RunError where an export does not match its run.

    allow_loss: accept whatever rounding changed; an exact export has to match all the same.
    """
    difference = problem(report)
    if difference is None or (allow_loss and not report.exact):
        return
    exact, rounded = "the same answers, logits within 0.01% of the largest", f"{AGREE:.0%} of the answers the same"
    raise RunError(
        f"the {report.target} export does not match the run",
        expected=exact if report.exact else rounded,
        found=difference,
        do="choose another target" if report.exact else "choose a finer precision, or accept the loss: --allow-loss",
    )


def agreement(report: ParityReport) -> str:
    """Return how many answers are the run's, as a phrase."""
    unit = "tokens of answers" if report.compared > report.rows else "labels"
    return f"{report.agreement:.2%} of {report.compared:,} {unit} agree on {report.rows:,} rows"


def summary(report: ParityReport) -> str:
    """Return the report as a sentence."""
    speed = "" if report.speed is None else f"; {report.speed:.2f} times the run's speed ({report.engine})"
    return (
        f"{agreement(report)}; logits differ by at most {report.max_logit_difference:.1e} of "
        f"{report.largest_logit:.1f}; {report.size_mb:.1f} MB, the run {report.run_size_mb:.1f} MB{speed}"
    )


def _timed(run: Runner, rows: Sequence[Any]) -> tuple[list[Logits], float]:
    start = time.perf_counter()
    return run(rows), time.perf_counter() - start
