"""Whether an export says what the run says: logits, labels or tokens, size and speed."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, Runner
from tunesmith.protocols import Logits

FILE = "parity.json"
CHUNK = 8
"""Rows that the two sides compute in turns."""
CLOSE = 1e-4
"""Of the largest logit: how far an export that rounds nothing may be off."""
AGREE = 0.99
"""Share of labels or tokens that must stay where weights are rounded."""


def compare(reference: Runner, exported: Exported, rows: Sequence[Any]) -> dict[str, Any]:
    """Run both on the same rows, in turns.

    max_logit_difference: the largest absolute difference of two logits; largest_logit: what to hold it against.
    agreement: share of labels, or of the tokens of greedy answers, that are the same; same_answers: share of rows
    without any other. seconds_per_row: medians over chunks of 8 rows.
    """
    worst = largest = 0.0
    same: list[list[bool]] = []
    seconds: list[tuple[float, float]] = []
    reference(rows[:1]), exported.run(rows[:1])  # what is set up at the first call is not part of the speed
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        ours, ours_took = _timed(reference, chunk)
        theirs, theirs_took = _timed(exported.run, chunk)
        seconds.append((ours_took / len(chunk), theirs_took / len(chunk)))
        for mine, other in zip(ours, theirs, strict=True):
            worst = max(worst, float(np.abs(mine - other).max()) if np.isfinite(other).all() else float("inf"))
            largest = max(largest, float(np.abs(mine).max()))
            same.append(np.atleast_1d(mine.argmax(-1) == other.argmax(-1)).tolist())
    answers = [agrees for row in same for agrees in row]
    proof = {
        "rows": len(rows),
        "max_logit_difference": worst,
        "largest_logit": largest,
        "compared": len(answers),
        "agreement": sum(answers) / len(answers),
        "same_answers": sum(map(all, same)) / len(same),
        "engine": exported.engine,
    }
    if exported.timed:
        proof["seconds_per_row"] = [statistics.median(side) for side in zip(*seconds, strict=True)]
        proof["speed"] = statistics.median(ours / theirs for ours, theirs in seconds)
    return proof


def problem(proof: dict[str, Any], exact: bool) -> str | None:
    """Return what is off, in words; None where the export holds."""
    share = shared(proof)
    difference = f"logits differ by up to {proof['max_logit_difference']:.2g} of {proof['largest_logit']:.2g}"
    if not exact:
        return None if proof["agreement"] >= AGREE else f"{share}; {difference}"
    close = proof["max_logit_difference"] <= CLOSE * proof["largest_logit"]
    return None if close and proof["agreement"] == 1 else f"{share}; {difference}"


def shared(proof: dict[str, Any]) -> str:
    """Return how many answers are the run's, as a phrase."""
    what = "tokens of answers" if proof["compared"] > proof["rows"] else "labels"
    return f"{proof['agreement']:.2%} of {proof['compared']:,} {what} agree on {proof['rows']:,} rows"


def check(proof: dict[str, Any], exact: bool, allow_loss: bool) -> None:
    """Raise RunError where an export is off. allow_loss: of one that rounds, the figure is enough."""
    difference = problem(proof, exact)
    if difference is None or (allow_loss and not exact):
        return
    need = "the same answers, logits within 0.01% of the largest" if exact else f"{AGREE:.0%} of the answers the same"
    raise RunError(
        f"the {proof['target']} export does not say what the run says",
        expected=need,
        found=difference,
        do="choose another target" if exact else "choose a finer precision, or take the loss: --allow-loss",
    )


def summary(proof: dict[str, Any]) -> str:
    """Return the proof in one sentence."""
    speed = f"; {proof['speed']:.2f} times the run's speed ({proof['engine']})" if "speed" in proof else ""
    size = f"{proof['size_mb']:.1f} MB, the run {proof['run_size_mb']:.1f} MB"
    return (
        f"{shared(proof)}; logits differ by at most {proof['max_logit_difference']:.1e} of "
        f"{proof['largest_logit']:.1f}; {size}{speed}"
    )


def write(proof: dict[str, Any], folder: Path) -> None:
    """Write parity.json."""
    (folder / FILE).write_text(json.dumps(proof, indent=2) + "\n", encoding="utf-8")


def _timed(run: Runner, rows: Sequence[Any]) -> tuple[list[Logits], float]:
    start = time.perf_counter()
    return run(rows), time.perf_counter() - start
