"""Scores of generated answers, each with its interval: of an instruction run's predictions, or of any file's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import format_checks, text_overlap
from tunesmith.evaluation.format_checks import FormatFlaw
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, estimates
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
    "exact_match": lambda row: len(set(map(format_checks.plain, row.texts))) == 1,
    "ended": lambda row: bool(row.ended),
    "answer_only": format_checks.answer_only,
    "empty": format_checks.empty,
}
"""Figures that are a share of the answered rows, and what counts."""


@dataclass(frozen=True, slots=True)
class GenerationScores:
    """What a report says about one model's responses."""

    rows: int
    answered: int
    missing: int
    """Rows of a file without a response; they count as empty ones."""
    learned_tokens: int
    """Of all references."""
    confidence: float
    headline: dict[str, Estimate]
    """In the order of HIGHER_IS_BETTER, without what the rows do not tell: a file has no loss."""
    flaws: dict[str, FormatFlaw]
    """What is wrong with the form of responses."""


def score(rows: Sequence[ResponseRow], confidence: Confidence) -> GenerationScores:
    """Return the scores of one model's responses; equal inputs give equal bits.

    `loss` is the mean over all learned tokens of the references, `perplexity` its exponential. Intervals are Wilson's
    for shares and percentile bootstrap over rows for the rest.
    """
    if odd := [row.id for row in rows if row.loss is not None and not math.isfinite(row.loss)]:
        raise RunError(
            f"cannot score {odd[0]}: its loss is not finite", do="look for weights that are not finite, or for damage"
        )
    answered = [row for row in rows if row.response is not None]
    figures = _overlaps(answered, confidence)
    if learned := [row for row in rows if row.learned]:  # a reference that is too long has no loss
        sums_N = np.array([row.loss for row in learned], np.float64)
        counts_N = np.array([row.learned for row in learned], np.float64)

        def measure(draws_BN: Index) -> dict[str, Floats]:
            loss_B = sums_N[draws_BN].sum(1) / counts_N[draws_BN].sum(1)
            return {"loss": loss_B, "perplexity": np.exp(loss_B)}

        figures |= estimates(measure, len(learned), confidence)
    return GenerationScores(
        rows=len(rows),
        answered=len(answered),
        missing=sum(bool(row.missing) for row in rows),
        learned_tokens=sum(row.learned or 0 for row in rows),
        confidence=confidence.level,
        headline={name: figures[name] for name in HIGHER_IS_BETTER if name in figures},
        flaws=format_checks.count(answered),
    )


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """Return the mean over tokens of (summed loss, number of tokens) pairs."""
    return sum(loss for loss, _ in losses) / max(1, sum(count for _, count in losses))


def _overlaps(rows: Sequence[ResponseRow], confidence: Confidence) -> dict[str, Estimate]:
    """Return every figure of the answered rows: shares, likeness to the references, and lengths."""
    if not rows:
        return {}
    shares = {}
    for name, holds in SHARES.items():
        if name == "ended" and any(row.ended is None for row in rows):
            continue
        shares[name] = Estimate.share(sum(map(holds, rows)), len(rows), confidence.level)
    table = text_overlap.tabulate([row.texts for row in rows])
    counted = all(row.tokens is not None for row in rows)
    tokens_N = np.array([row.tokens for row in rows], np.float64) if counted else None

    def measure(draws_BN: Index) -> dict[str, Floats]:
        lengths = {} if tokens_N is None else {"tokens": tokens_N[draws_BN].mean(1)}
        return text_overlap.measure(table, draws_BN) | lengths

    return shares | estimates(measure, len(rows), confidence)
