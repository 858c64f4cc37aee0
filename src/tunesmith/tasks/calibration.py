"""Calibration: probabilities that say how often a label is right, fitted on validation rows.

Shapes: N rows, K labels. `logits` are log-probabilities up to a summand per row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.records import omitted_if_none

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
METHODS = ("temperature", "sigmoid", "vector", "isotonic")
FOLDS = 5
FEWEST_ROWS = 50
"""Fewer validation rows calibrate nothing."""
FEWEST_OF_A_LABEL = FOLDS
"""Where a label has fewer rows, only a temperature is fitted, which all labels share."""
BINS = 10
"""Equal-width bins of the top probability, (low, high] as in Guo et al. 2017."""
SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns logits into calibrated probabilities."""

    kind: Literal["temperature", "sigmoid", "vector", "isotonic"]
    scale: tuple[float, ...] = ()
    """Factor of the logits (`temperature`: one), or of each label's log-odds (`sigmoid`)."""
    bias: tuple[float, ...] = ()
    """Summand for each label."""
    steps: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Of `isotonic`: for each label (probability, what it becomes) in rising order; linear in between."""

    def apply(self, logits_NK: Floats) -> Floats:
        """Return probabilities, N x K, which sum to 1."""
        logs_NK = log_softmax(logits_NK)
        if self.kind in ("temperature", "vector"):
            return np.exp(log_softmax(logs_NK * self.scale + (self.bias or 0.0)))
        if self.kind == "sigmoid":
            each_NK = _sigmoid(log_odds(logs_NK) * self.scale + self.bias)
        else:
            columns = zip(np.exp(logs_NK).T, map(np.array, self.steps), strict=True)
            each_NK = np.array([np.interp(column_N, known[:, 0], known[:, 1]) for column_N, known in columns]).T
        total_N1 = each_NK.sum(axis=1, keepdims=True)
        uniform_NK = np.full_like(each_NK, 1 / each_NK.shape[1])  # where every label is impossible, as in scikit-learn
        return np.asarray(np.divide(each_NK, total_N1, out=uniform_NK, where=total_N1 > 0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The rows whose top probability lies in (low, high]; without rows there are no means."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean top probability."""
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """How the calibration was chosen, on validation rows; all figures are cross-validated."""

    rows: int
    kind: str
    """`none` where nothing was lower than the log loss as it was."""
    log_loss: dict[str, float]
    """By method, in nats."""
    ece: dict[str, float]
    """Expected calibration error before (`none`) and after."""
    before: tuple[CalibrationBin, ...]
    after: tuple[CalibrationBin, ...]
    reason: str | None = omitted_if_none()
    """Why nothing, or only a temperature, could be fitted."""


def choose(logits_NK: Floats, gold_N: Places, wanted: str, seed: int) -> tuple[Calibration | None, CalibrationFit]:
    """Fit a calibration, `wanted` or of `auto` the one with the lowest log loss in stratified cross-validation.

    Returns None where there are too few rows, or where `auto` finds none that lowers the log loss.
    """
    reason = _too_few(gold_N, logits_NK.shape[1])
    able = () if len(gold_N) < FEWEST_ROWS else ("temperature",) if reason else METHODS
    tried = [name for name in able if wanted in ("auto", name)]
    held_out = {"none": np.exp(log_softmax(logits_NK))}
    folds_N = _folds(gold_N, seed)
    for name in tried:
        held_out[name] = np.empty_like(logits_NK)
        for fold in range(FOLDS):
            rest, held = folds_N != fold, folds_N == fold
            held_out[name][held] = fit(logits_NK[rest], gold_N[rest], name).apply(logits_NK[held])
    losses = {name: _log_loss(rows_NK, gold_N) for name, rows_NK in held_out.items()}
    chosen = min(losses, key=losses.__getitem__) if wanted == "auto" else (tried or ["none"])[0]
    diagrams = {
        name: bins(held_out[name].max(axis=1), held_out[name].argmax(axis=1) == gold_N) for name in ("none", chosen)
    }
    notes = CalibrationFit(
        rows=len(gold_N),
        kind=chosen,
        log_loss=losses,
        ece={name: ece(by_bin) for name, by_bin in diagrams.items()},
        before=diagrams["none"],
        after=diagrams[chosen],
        reason=reason,
    )
    return None if chosen == "none" else fit(logits_NK, gold_N, chosen), notes


def fit(logits_NK: Floats, gold_N: Places, method: str) -> Calibration:
    """Fit one method on all rows. Temperature and vector scaling are those of Guo et al. 2017 (arXiv:1706.04599)."""
    logs_NK = log_softmax(logits_NK)
    K = logs_NK.shape[1]
    if method == "temperature":
        return Calibration("temperature", (_temperature(logs_NK, gold_N),))
    if method == "vector":
        return _vector(logs_NK, gold_N)
    known_NK = gold_N[:, None] == np.arange(K)
    if method == "sigmoid":
        pairs = [_platt(column_N, known_N) for column_N, known_N in zip(log_odds(logs_NK).T, known_NK.T, strict=True)]
        scale, bias = zip(*pairs, strict=True)
        return Calibration("sigmoid", scale, bias)
    columns = zip(np.exp(logs_NK).T, known_NK.T, strict=True)
    return Calibration("isotonic", steps=tuple(_isotonic(column_N, known_N) for column_N, known_N in columns))


def bins(confidence_N: Floats, right_N: NDArray[Any]) -> tuple[CalibrationBin, ...]:
    """Return accuracy and mean confidence in each bin. confidence: the top probability; right: 1 where it is right."""
    places_N, by_bin = places(confidence_N), []
    for place in range(BINS):
        inside = places_N == place
        rows = int(inside.sum())
        means = (float(confidence_N[inside].mean()), float(right_N[inside].mean())) if rows else (None, None)
        by_bin.append(CalibrationBin(place / BINS, (place + 1) / BINS, rows, *means))
    return tuple(by_bin)


def places(confidence_N: Floats) -> Places:
    """Return the bin of each row."""
    return np.asarray(np.searchsorted(np.arange(1, BINS) / BINS, confidence_N, side="left"), dtype=np.intp)


def ece(by_bin: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by rows."""
    gaps = [each.count * abs((each.confidence or 0) - (each.accuracy or 0)) for each in by_bin]
    return sum(gaps) / sum(each.count for each in by_bin)


def log_softmax(logits_NK: Floats) -> Floats:
    """Return log-probabilities."""
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    return np.asarray(shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True)), dtype=np.float64)


def log_odds(logs_NK: Floats) -> Floats:
    """Return the log-odds of each label against all others, from log-probabilities."""
    others_NK = -np.expm1(np.minimum(logs_NK, -SMALLEST))
    return np.asarray(logs_NK - np.log(np.maximum(others_NK, SMALLEST)), dtype=np.float64)


def _too_few(gold_N: Places, K: int) -> str | None:
    if len(gold_N) < FEWEST_ROWS:
        return f"{len(gold_N)} validation rows are too few to calibrate ({FEWEST_ROWS} at least)"
    counts = Counter(gold_N.tolist())
    rare = sum(counts[k] < FEWEST_OF_A_LABEL for k in range(K))
    few = f"fewer than {FEWEST_OF_A_LABEL} validation rows: only a temperature can be fitted"
    return f"{rare} of {K} labels have {few}" if rare else None


def _folds(gold_N: Places, seed: int) -> Places:
    """Return the fold of each row; every label is spread over all folds."""
    order_N = np.random.default_rng(seed).permutation(len(gold_N))
    order_N = order_N[np.argsort(gold_N[order_N], kind="stable")]
    folds_N = np.empty(len(gold_N), dtype=np.intp)
    folds_N[order_N] = np.arange(len(gold_N)) % FOLDS
    return folds_N


def _log_loss(probabilities_NK: Floats, gold_N: Places) -> float:
    of_gold_N = probabilities_NK[np.arange(len(gold_N)), gold_N]
    return float(-np.log(np.clip(of_gold_N, np.finfo(np.float64).eps, 1)).mean())


def _temperature(logs_NK: Floats, gold_N: Places) -> float:
    """Return 1 / T. Its logarithm is drawn to 0 as by one row: rows that are all right would make it infinite."""
    from scipy.optimize import minimize_scalar

    def loss(log_scale: float) -> float:
        scaled_NK = log_softmax(logs_NK * np.exp(log_scale))
        return float(-scaled_NK[np.arange(len(gold_N)), gold_N].sum() + log_scale**2 / 2)

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))


def _vector(logs_NK: Floats, gold_N: Places) -> Calibration:
    """Fit a factor and a summand for each label, drawn to 1 and 0 as by one row."""
    from scipy.optimize import minimize

    K = logs_NK.shape[1]
    known_NK = (gold_N[:, None] == np.arange(K)).astype(np.float64)

    def loss(values_2K: Floats) -> tuple[float, Floats]:
        scale_K, bias_K = values_2K[:K], values_2K[K:]
        scaled_NK = log_softmax(logs_NK * scale_K + bias_K)
        gap_NK = np.exp(scaled_NK) - known_NK
        drawn_2K = np.concatenate([scale_K - 1, bias_K])
        gradient_2K = np.concatenate([(gap_NK * logs_NK).sum(axis=0), gap_NK.sum(axis=0)]) + drawn_2K
        return float(-(scaled_NK * known_NK).sum() + (drawn_2K**2).sum() / 2), gradient_2K

    found = minimize(loss, np.concatenate([np.ones(K), np.zeros(K)]), jac=True, method="L-BFGS-B").x
    return Calibration("vector", tuple(found[:K].tolist()), tuple(found[K:].tolist()))


def _platt(log_odds_N: Floats, known_N: NDArray[np.bool_]) -> tuple[float, float]:
    """Return factor and summand of Platt's sigmoid, with his targets for few rows (Platt 1999)."""
    from scipy.optimize import minimize

    with_it = int(known_N.sum())
    without = len(known_N) - with_it
    target_N = np.where(known_N, (with_it + 1) / (with_it + 2), 1 / (without + 2))

    def loss(values: Floats) -> tuple[float, Floats]:
        z_N = values[0] * log_odds_N + values[1]
        gap_N = _sigmoid(z_N) - target_N
        return float((np.logaddexp(0, z_N) - target_N * z_N).sum()), np.array([(gap_N * log_odds_N).sum(), gap_N.sum()])

    start = np.array([1.0, 0.0])
    scale, bias = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).x
    return float(scale), float(bias)


def _isotonic(probability_N: Floats, known_N: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return the ends of the steps of isotonic regression (Zadrozny & Elkan 2002)."""
    from scipy.optimize import isotonic_regression

    values_V, inverse_N, rows_V = np.unique(probability_N, return_inverse=True, return_counts=True)
    shares_V = np.bincount(inverse_N, known_N) / rows_V
    heights_V = isotonic_regression(shares_V, weights=rows_V).x
    rises = np.flatnonzero(np.diff(heights_V) > 0)
    ends = np.unique(np.concatenate([[0], rises, rises + 1, [len(values_V) - 1]]))
    return tuple(zip(values_V[ends].tolist(), heights_V[ends].tolist(), strict=True))


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -700, 700))), dtype=np.float64)
