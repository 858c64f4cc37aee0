"""What the figures of generated answers are called, and how they are written for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.responses import HIGHER_IS_BETTER, NEITHER, SHARES
from tunesmith.reporting.classification_report import NOTHING, chance, metric, share

NAMES = {
    "loss": "Loss",
    "perplexity": "Perplexity",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "token_f1": "Token F1",
    "exact_match": "Exact match",
    "ended": "Ended",
    "answer_only": "Answer only",
    "empty": "Empty",
    "length_ratio": "Length ratio",
    "tokens": "Mean length",
}
LOWER_IS_BETTER = [name for name, higher in HIGHER_IS_BETTER.items() if not higher]
DIGITS = {"bleu": 1, "chrf": 1, "length_ratio": 2}
"""Decimals, where not three (losses and scores up to 1), or as many as three digits need (perplexity, tokens)."""


def figure(name: str, value: float | None) -> str:
    """A loss 1.523, a share 99.1%, BLEU and chrF 23.4, a perplexity or a number of tokens 4.59, 45.9, 459."""
    if value is None:
        return NOTHING
    if name in SHARES:
        return share(value)
    if name in ("perplexity", "tokens"):
        return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
    return f"{value:.{DIGITS[name]}f}" if name in DIGITS else metric(value)


def interval(name: str, estimate: Mapping[str, Any]) -> str:
    """[1.498, 1.552]"""
    return f"[{figure(name, estimate['low'])}, {figure(name, estimate['high'])}]"


def estimate(name: str, found: Mapping[str, Any] | None) -> str:
    """1.523 [1.498, 1.552]"""
    return f"{figure(name, found['value'])} {interval(name, found)}" if found else NOTHING


def directed(name: str) -> str:
    """The name, with an arrow where lower is better."""
    return f"{NAMES[name]} ↓" if name in LOWER_IS_BETTER else NAMES[name]


def shown(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures that any of the methods has, in order."""
    return [name for name in NAMES if any(name in method["scores"]["headline"] for method in methods)]


def flaws(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """The flaws of form that were looked for in any of the methods' answers."""
    return list(dict.fromkeys(name for method in methods for name in method["scores"]["flaws"]))


def difference(name: str, pair: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> str:
    """First minus second: +0.041 [+0.010, +0.072]; of shares the points of per cent, which have no interval."""
    tested = _tested(name, pair)
    if tested is None:
        return NOTHING
    if name in SHARES:
        a, b = (methods[pair[side]]["scores"]["headline"].get(name) for side in ("a", "b"))
        return f"{signed(name, a['value'] - b['value'])}" if a and b else NOTHING
    return f"{signed(name, tested['value'])} [{signed(name, tested['low'])}, {signed(name, tested['high'])}]"


def probability(name: str, pair: Mapping[str, Any]) -> str:
    """The p of a difference, after Holm's correction."""
    tested = _tested(name, pair)
    return chance(tested["p_holm"]) if tested else NOTHING


def signed(name: str, value: float) -> str:
    """A difference: +0.012, −2.1, +3.0 points."""
    if name in SHARES:
        return _sign(f"{100 * value:+.1f}") + " points"
    return _sign(f"{value:+.{DIGITS.get(name, 3)}f}")


def better(name: str) -> str:
    """Which way is better, in a word."""
    return "neither" if name in NEITHER else "lower" if name in LOWER_IS_BETTER else "higher"


def _sign(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _tested(name: str, pair: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if name == "loss":
        found = pair.get("loss_difference")
    else:
        found = pair.get(name) if name in SHARES else pair["differences"].get(name)
        found = None if found and found.get("rows") == 0 else found
    return found
