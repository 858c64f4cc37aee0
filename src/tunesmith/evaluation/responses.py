"""Scores of generated answers, each with its interval: rows are those of an instruction run's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation.intervals import Floats, Index, bootstrap, percentile, wilson
from tunesmith.recipe import Evaluate

Row = Mapping[str, Any]
"""id, prompt, reference; loss (summed over the reference's learned tokens) and learned (their number); where the prompt
was answered also response, tokens and ended."""
HIGHER_IS_BETTER = {
    "loss": False,
    "perplexity": False,
    "ended": True,
    "exact_match": True,
    "empty": False,
    "tokens": True,
}
"""The headline figures, in the order of a report, and which way is better (of `tokens`, neither)."""
SHARES: dict[str, Callable[[Row], bool]] = {
    "ended": lambda row: bool(row["ended"]),
    "exact_match": lambda row: _plain(row["response"]) == _plain(row["reference"]),
    "empty": lambda row: not row["response"].strip(),
}
"""Figures that are a share of the answered rows, and what counts."""


def score(rows: Sequence[Row], settings: Evaluate, seed: int) -> dict[str, Any]:
    """Everything a report says of one run's answers, ready for scores.json; equal inputs give equal bits.

    `loss` is the mean over all learned tokens of the references, `perplexity` its exponential; their intervals are
    percentile bootstrap over rows. Shares have Wilson intervals.
    """
    answered = [row for row in rows if row.get("response") is not None]
    return {
        "rows": len(rows),
        "answered": len(answered),
        "learned_tokens": sum(int(row["learned"]) for row in rows),
        "confidence": settings.confidence,
        "headline": _losses(rows, settings, seed) | _answers(answered, settings, seed),
    }


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """The mean over tokens of (summed loss, number of tokens) pairs."""
    return sum(loss for loss, _ in losses) / max(1, sum(count for _, count in losses))


def _losses(rows: Sequence[Row], settings: Evaluate, seed: int) -> dict[str, Any]:
    if not (rows := [row for row in rows if row["learned"]]):  # those whose answer is too long have no loss
        return {}
    sums_N = np.array([row["loss"] for row in rows], np.float64)
    counts_N = np.array([row["learned"] for row in rows], np.float64)

    def measure(draws_BN: Index) -> dict[str, Floats]:
        loss_B = sums_N[draws_BN].sum(1) / counts_N[draws_BN].sum(1)
        return {"loss": loss_B, "perplexity": np.exp(loss_B)}

    return _with_intervals(measure, len(rows), settings, seed)


def _answers(rows: Sequence[Row], settings: Evaluate, seed: int) -> dict[str, Any]:
    if not rows:
        return {}
    found = {}
    for name, holds in SHARES.items():
        count = sum(holds(row) for row in rows)
        low, high = wilson(count, len(rows), settings.confidence)
        found[name] = {"value": count / len(rows), "low": low, "high": high}
    tokens_N = np.array([row["tokens"] for row in rows], np.float64)
    return found | _with_intervals(lambda draws_BN: {"tokens": tokens_N[draws_BN].mean(1)}, len(rows), settings, seed)


def _with_intervals(
    measure: Callable[[Index], dict[str, Floats]], rows: int, settings: Evaluate, seed: int
) -> dict[str, Any]:
    values = measure(np.arange(rows)[None])
    resampled = bootstrap(measure, rows, settings.bootstrap_samples, seed)
    found = {}
    for name, value_1 in values.items():
        value = float(value_1[0])
        low, high = percentile(value, resampled[name], settings.confidence)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
