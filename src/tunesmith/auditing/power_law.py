"""Power laws of learning curves: the error with n training rows is floor + scale * n^-exponent.

Hestness et al. (Deep Learning Scaling is Predictable, Empirically, 2017) find such laws over many tasks, from a size on
below which a model hardly learns; Viering and Loog (The Shape of Learning Curves: A Review, 2022) discuss where they
fail. How sure a law is comes from resampling: test rows and seeds are drawn with replacement, and the law is fitted to
every draw. Shapes: S sizes, R seeds, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS: Floats = np.geomspace(0.02, 2, 80)
"""Of which the best is taken. Theory and experiments have 0.05 to 1."""
DECAYS: Floats = np.linspace(0, 1.5, 16)
"""How fast the variance between parts of a size may fall with their size."""
FEWEST_SIZES = 5
"""A law has three parameters; with fewer sizes nothing is left to see whether it holds."""
REJECTED = 0.05
"""A law is rejected where noise alone is as far from a law this rarely."""
TINY = 1e-18


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """error(n) = floor + scale * n^-exponent."""

    floor: float
    """The error that no number of rows gets below."""
    scale: float
    exponent: float
    from_rows: int
    """The smallest size that it was fitted to; below it does not hold."""

    def error(self, rows: float) -> float:
        """Return the error by the number of training rows."""
        return float(self.floor + self.scale * rows**-self.exponent)


@dataclass(frozen=True)
class Errors:
    """Measured errors of one method, and how they vary."""

    rows: Floats
    """Training rows, ascending: S."""
    mean: Floats
    """Mean over seeds: S."""
    drawn: Floats
    """The mean for each draw of test rows and seeds: B x S."""
    spread: Floats
    """What another data set of the same kind would have added to each draw: B x S."""
    weights: Floats
    """1 / variance of the noise that differs between sizes: S."""
    luck: Floats
    """Standard normal numbers, how lucky a single data set is in each draw: B."""
    variance: tuple[float, float]
    """Variance between data sets of n rows: the first times n to the power of minus the second."""

    @classmethod
    def of(cls, rows_S: Floats, errors_RS: Floats, resampled_RSB: Floats, generator: np.random.Generator) -> Errors:
        """Return what scores of several seeds say, each with its own order of nested parts of the same rows.

        errors_RS: with R > 1. resampled_RSB: the same on B draws of the test rows. Parts of the same rows vary less
        than data sets of their size: the variance of a part of share f is that of a data set times 1 - f (as in
        sampling without replacement), and the rest is common to all parts.
        """
        (R, _), B = errors_RS.shape, resampled_RSB.shape[2]
        mean_S = errors_RS.mean(axis=0)
        share_S = rows_S / rows_S[-1]
        deviations_RS = errors_RS - mean_S
        observed_S = (deviations_RS**2).sum(axis=0) / (R - 1)
        few_S = share_S <= 0.75
        variance = _variance(rows_S[few_S], (observed_S / np.maximum(1 - share_S, 0.25))[few_S])
        of_rows_BS = resampled_RSB.mean(axis=0).T - mean_S
        times_BR = generator.multinomial(R, np.full(R, 1 / R), size=B) / R
        of_seeds_BS = np.sqrt(R / (R - 1)) * times_BR @ deviations_RS
        sigma_S = np.sqrt(variance[0] * rows_S ** -variance[1])
        shape_S = (of_rows_BS - of_rows_BS.mean(axis=1, keepdims=True)).var(axis=0)
        noise_S = (sigma_S**2 * (1 - share_S) + observed_S[-1]) / R + shape_S
        return cls(
            rows=rows_S,
            mean=mean_S,
            drawn=mean_S + of_rows_BS + of_seeds_BS,
            spread=generator.standard_normal((B, 1)) * np.sqrt(share_S) * sigma_S,
            weights=1 / np.maximum(noise_S, max(TINY, 1e-6 * float(noise_S.max()))),
            luck=generator.standard_normal(size=(B,)),
            variance=variance,
        )

    def part(self, chosen_S: NDArray[np.bool_]) -> Errors:
        """Return the same of some of the sizes."""
        return replace(
            self,
            rows=self.rows[chosen_S],
            mean=self.mean[chosen_S],
            drawn=self.drawn[:, chosen_S],
            spread=self.spread[:, chosen_S],
            weights=self.weights[chosen_S],
        )

    def sigma(self, rows: float) -> float:
        """Return the standard deviation of the error between data sets of this number of rows."""
        return float(np.sqrt(self.variance[0] * rows ** -self.variance[1]))


def _variance(rows_S: Floats, variance_S: Floats) -> tuple[float, float]:
    """Return (v, d) of the most likely variance v * n^-d, with normal deviations."""
    scaled_DS = variance_S * rows_S ** DECAYS[:, None]
    v_D = scaled_DS.mean(axis=1)
    if not v_D.all():
        return 0.0, 0.0
    loss_D = np.log(v_D) - DECAYS * np.log(rows_S).mean()  # twice the negative log-likelihood but for constants
    best = int(loss_D.argmin())
    return float(v_D[best]), float(DECAYS[best])


@dataclass(frozen=True)
class Laws:
    """Laws fitted to B draws of the errors."""

    floor: Floats
    scale: Floats
    exponent: Floats
    misfit: Floats
    """Weighted sums of squared distances."""

    def errors(self, rows_T: Floats) -> Floats:
        """Return the error of each law by the number of rows: B x T."""
        powers_BT = rows_T[None] ** -self.exponent[:, None]
        return self.floor[:, None] + self.scale[:, None] * powers_BT


def fit(rows_S: Floats, errors_BS: Floats, weights_S: Floats, *, may_rise: bool = False) -> Laws:
    """Fit a law to each draw by weighted least squares; the floor is not negative, the exponent is of EXPONENTS.

    may_rise: the scale may be negative, as it has to be where noise is drawn around a curve that hardly falls.
    """
    powers_CS = (rows_S / rows_S[-1]) ** -EXPONENTS[:, None]
    weights_S = weights_S / weights_S.max()
    w = weights_S.sum()
    wx_C, wxx_C = powers_CS @ weights_S, powers_CS**2 @ weights_S
    wy_B, wyy_B = errors_BS @ weights_S, errors_BS**2 @ weights_S
    wxy_BC = (errors_BS * weights_S) @ powers_CS.T
    scale_BC = (w * wxy_BC - wy_B[:, None] * wx_C) / (w * wxx_C - wx_C**2)
    floor_BC = (wy_B[:, None] - scale_BC * wx_C) / w
    rising_BC = (scale_BC < 0) & (not may_rise)
    floor_BC, scale_BC = (
        np.where(rising_BC, (wy_B / w)[:, None], np.maximum(floor_BC, 0)),
        np.where(rising_BC, 0, np.where(floor_BC < 0, wxy_BC / wxx_C, scale_BC)),
    )
    misfit_BC = (
        wyy_B[:, None]
        - 2 * (floor_BC * wy_B[:, None] + scale_BC * wxy_BC)
        + floor_BC**2 * w
        + 2 * floor_BC * scale_BC * wx_C
        + scale_BC**2 * wxx_C
    )
    best_B = misfit_BC.argmin(axis=1)
    line = np.arange(len(errors_BS))
    exponent_B = EXPONENTS[best_B]
    scale_B = scale_BC[line, best_B] * rows_S[-1] ** exponent_B
    return Laws(floor_BC[line, best_B], scale_B, exponent_B, np.maximum(misfit_BC[line, best_B], 0))


@dataclass(frozen=True)
class FittedLaw:
    """A law, and how sure it is."""

    law: PowerLaw
    draws: Laws
    """Fitted to each draw of test rows, seeds and data set."""
    errors: Errors
    """Of the sizes that it was fitted to."""
    p: float
    """How often noise alone is as far from a law."""

    def band(self, rows: float, level: float) -> tuple[float, float]:
        """Return the interval of the error that a single training on this number of rows will have."""
        drawn_B = self.draws.errors(np.array([rows]))[:, 0] + self.errors.sigma(rows) * self.errors.luck
        low, high = np.quantile(np.maximum(drawn_B, 0), [(1 - level) / 2, (1 + level) / 2])
        value = self.law.error(rows)
        return min(float(low), value), max(float(high), value)

    def gains(self, before: float, after: float) -> Floats:
        """Return how much lower the error of one training with more rows is than that of one with fewer: B.

        Both have luck of their own. That the rows of the first are among those of the second makes it less, if little:
        which of the test rows a model gets wrong by a hair is new with every training.
        """
        errors_B2 = self.draws.errors(np.array([before, after]))
        luck = float(np.hypot(self.errors.sigma(before), self.errors.sigma(after)))
        gains_B: Floats = errors_B2[:, 0] - errors_B2[:, 1] + luck * self.errors.luck
        return gains_B


def fit_from(errors: Errors, fewest: int = FEWEST_SIZES) -> FittedLaw:
    """Fit a law from the smallest size on from which it holds; where it holds from none, to the `fewest` largest sizes.

    Below some size models hardly learn, and there the law is not that of larger ones (Hestness et al. 2017).
    """
    for start in range(max(1, len(errors.rows) - fewest + 1)):
        fitted = _fit(errors.part(np.arange(len(errors.rows)) >= start))
        if fitted.p >= REJECTED:
            break
    return fitted


def _fit(errors: Errors) -> FittedLaw:
    whole = fit(errors.rows, errors.mean[None], errors.weights)
    law = PowerLaw(float(whole.floor[0]), float(whole.scale[0]), float(whole.exponent[0]), int(errors.rows[0]))
    noise_BS = errors.drawn - errors.mean
    under_law = fit(errors.rows, whole.errors(errors.rows) + noise_BS, errors.weights)
    further = int((under_law.misfit >= whole.misfit[0]).sum())
    draws = fit(errors.rows, errors.drawn + errors.spread, errors.weights, may_rise=True)
    return FittedLaw(law, draws, errors, (further + 1) / (len(noise_BS) + 1))
