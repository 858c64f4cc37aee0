"""Scores of generated answers, each with its interval: of an instruction run's predictions, or of any file's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation import format_checks, text_overlap
from tunesmith.evaluation.intervals import Confidence, Floats, Index, bootstrap, percentile, wilson
from tunesmith.types import ResponseRow

HIGHER_IS_BETTER = {
    "loss": False,
    "perplexity": False,
    "rouge1": True,
    "rouge2": True,
    "rougeL": True,
    "bleu": True,
    "chrf": True,
    "token_f1": True,
    "exact_match": True,
    "ended": True,
    "answer_only": True,
    "empty": False,
    "length_ratio": True,
    "tokens": True,
}
"""The headline figures, in the order of a report, and which way is better."""
NEITHER = ("length_ratio", "tokens")
"""Figures of which neither way is better."""
SHARES: dict[str, Callable[[ResponseRow], bool]] = {
    "exact_match": lambda row: len(set(map(_plain, row.texts))) == 1,
    "ended": lambda row: bool(row.ended),
    "answer_only": format_checks.answer_only,
    "empty": format_checks.empty,
}
"""Figures that are a share of the answered rows, and what counts."""


def score(rows: Sequence[ResponseRow], confidence: Confidence) -> dict[str, Any]:
    """Everything a report says of one run's answers, ready for scores.json; equal inputs give equal bits.

    `loss` is the mean over all learned tokens of the references, `perplexity` its exponential. Intervals are Wilson's
    for shares and percentile bootstrap over rows for the rest. What rows do not tell (a file has no loss) is left out.
    `flaws` counts what is wrong with the form of answers.
    """
    answered = [row for row in rows if row.response is not None]
    found = _losses(rows, confidence) | _answers(answered, confidence)
    return {
        "rows": len(rows),
        "answered": len(answered),
        "missing": sum(bool(row.missing) for row in rows),
        "learned_tokens": sum(row.learned or 0 for row in rows),
        "confidence": confidence.level,
        "headline": {name: found[name] for name in HIGHER_IS_BETTER if name in found},
        "flaws": format_checks.count(answered),
    }


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """The mean over tokens of (summed loss, number of tokens) pairs."""
    return sum(loss for loss, _ in losses) / max(1, sum(count for _, count in losses))


def _losses(rows: Sequence[ResponseRow], confidence: Confidence) -> dict[str, Any]:
    if not (rows := [row for row in rows if row.learned]):  # those whose answer is too long have no loss
        return {}
    sums_N = np.array([row.loss for row in rows], np.float64)
    counts_N = np.array([row.learned for row in rows], np.float64)

    def measure(draws_BN: Index) -> dict[str, Floats]:
        loss_B = sums_N[draws_BN].sum(1) / counts_N[draws_BN].sum(1)
        return {"loss": loss_B, "perplexity": np.exp(loss_B)}

    return _with_intervals(measure, len(rows), confidence)


def _answers(rows: Sequence[ResponseRow], confidence: Confidence) -> dict[str, Any]:
    if not rows:
        return {}
    found = {}
    for name, holds in SHARES.items():
        if name == "ended" and not all(row.ended is not None for row in rows):
            continue
        count = sum(holds(row) for row in rows)
        low, high = wilson(count, len(rows), confidence.level)
        found[name] = {"value": count / len(rows), "low": low, "high": high}
    table = text_overlap.tabulate([row.texts for row in rows])
    counted = all(row.tokens is not None for row in rows)
    tokens_N = np.array([row.tokens for row in rows], np.float64) if counted else None

    def measure(draws_BN: Index) -> dict[str, Floats]:
        lengths = {} if tokens_N is None else {"tokens": tokens_N[draws_BN].mean(1)}
        return text_overlap.measure(table, draws_BN) | lengths

    return found | _with_intervals(measure, len(rows), confidence)


def _with_intervals(measure: Callable[[Index], dict[str, Floats]], rows: int, confidence: Confidence) -> dict[str, Any]:
    values = measure(np.arange(rows)[None])
    resampled = bootstrap(measure, rows, confidence.resamples, confidence.seed)
    found = {}
    for name, value_1 in values.items():
        value = float(value_1[0])
        low, high = percentile(value, resampled[name], confidence.level)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
