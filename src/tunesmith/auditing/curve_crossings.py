"""Where one method overtakes another as training rows grow: by their scores, and beyond them by their laws.

Shapes: B draws of test rows and seeds, T numbers of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing.power_law import Errors, FittedLaw, Floats
from tunesmith.evaluation.intervals import Estimate

STEPS = 400
"""Numbers of rows that are looked at."""


@dataclass(frozen=True)
class ErrorPath:
    """What is known of a method's error by the number of training rows."""

    method: str
    start: float
    end: float
    """Nothing is known of fewer rows, and of more."""
    sizes: tuple[float, ...]
    """Numbers of rows that it was trained on; none of a method that learns nothing from them."""
    draws: Callable[[Floats], Floats]
    """T numbers of rows, ascending from `start` to `end` -> B x T."""

    @classmethod
    def of_level(cls, method: str, errors_B: Floats) -> ErrorPath:
        """Return the path of a method that learns nothing from training rows."""
        return cls(method, 0, inf, (), lambda rows_T: np.repeat(errors_B[:, None], len(rows_T), axis=1))

    @classmethod
    def of_curve(cls, method: str, errors: Errors, law: FittedLaw | None, end: float) -> ErrorPath:
        """Return the path through the measured errors; from where a law holds, the law, up to `end`.

        law: None where none is believed, and the path ends with the last size.
        """
        rows_S, drawn_BS = np.log(errors.rows), errors.drawn + errors.spread
        last = float(errors.rows[-1])

        def draws(rows_T: Floats) -> Floats:
            place_T = np.clip(np.log(rows_T), rows_S[0], rows_S[-1])
            left_T = np.clip(np.searchsorted(rows_S, place_T, side="right") - 1, 0, len(rows_S) - 2)
            share_T = (place_T - rows_S[left_T]) / (rows_S[left_T + 1] - rows_S[left_T])
            measured_BT: Floats = drawn_BS[:, left_T] * (1 - share_T) + drawn_BS[:, left_T + 1] * share_T
            if law is None:
                return measured_BT
            return np.where(rows_T >= law.law.from_rows, law.draws.errors(rows_T), measured_BT)

        return cls(method, float(errors.rows[0]), last if law is None else end, tuple(errors.rows.tolist()), draws)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where one method overtakes another as rows grow."""

    method: str
    """The better one from here on."""
    overtaken: str
    rows: Estimate

    def sentence(self, most: float) -> str:
        """Return where that is; beyond the most rows that there are, it is what the laws say."""
        at, low, high = map(_rounded, (self.rows.value, self.rows.low, self.rows.high))
        overtakes = "overtakes" if self.rows.value <= most else "would overtake"
        return f"{self.method} {overtakes} {self.overtaken} at about {at} training rows [{low}, {high}]."


@dataclass(frozen=True, slots=True)
class Lead:
    """Where one of two methods is better that do not overtake each other."""

    method: str
    other: str
    rows: tuple[float, float]
    """The fewest and the most rows with which that is sure."""
    range: tuple[float, float]
    """The fewest and the most rows that were looked at."""

    def sentence(self) -> str:
        """Return where that is."""
        first, last = map(_rounded, self.rows)
        is_first, is_last = (end == of_all for end, of_all in zip(self.rows, self.range, strict=True))
        where = {
            (True, True): f"at every size, from {self.rows[0]:,.0f} training rows to {self.rows[1]:,.0f}",
            (True, False): f"up to about {last} training rows; with more, that may be chance",
            (False, True): f"from about {first} training rows on; with fewer, that may be chance",
            (False, False): f"between about {first} and {last} training rows; elsewhere, that may be chance",
        }
        return f"{self.method} is better than {self.other} {where[is_first, is_last]}."


@dataclass(frozen=True)
class PathComparison:
    """Two methods over the numbers of rows at which both are known, and who leads."""

    first: ErrorPath
    second: ErrorPath
    rows: Floats
    """T numbers of rows."""
    behind: Floats
    """B x T: by how much the first has more errors."""
    leads: NDArray[np.int_]
    """T: 1 where the first surely leads, -1 where the second does, 0 where that is not sure."""

    @classmethod
    def of(cls, first: ErrorPath, second: ErrorPath, level: float) -> PathComparison:
        """Compare two methods, of which one at least learns.

        A lead is sure at `level` over all sizes together (Bonferroni).
        """
        ends = max(first.start, second.start), min(first.end, second.end)
        sizes = {size for path in (first, second) for size in path.sizes if ends[0] < size < ends[1]}
        rows_T = np.array(sorted({*np.geomspace(*ends, STEPS).tolist(), *sizes}))
        behind_BT = first.draws(rows_T) - second.draws(rows_T)
        sure = 1 - (1 - level) / 2 / max(len(first.sizes), len(second.sizes))
        leads_T = ((behind_BT < 0).mean(axis=0) >= sure).astype(int) - ((behind_BT > 0).mean(axis=0) >= sure)
        return cls(first, second, rows_T, behind_BT, leads_T)

    def crossing(self, level: float) -> Crossing | None:
        """Return where one overtakes the other for the last time; None unless each surely leads somewhere."""
        if not {1, -1} <= set(self.leads.tolist()):
            return None
        end = int(np.flatnonzero(self.leads)[-1])
        is_first = bool(self.leads[end] == 1)
        winner, other = (self.first, self.second) if is_first else (self.second, self.first)
        lags_BT = (self.behind >= 0 if is_first else self.behind <= 0)[:, : end + 1]
        after_B = np.where(lags_BT.any(axis=1), end + 1 - lags_BT[:, ::-1].argmax(axis=1), 0)  # the last place, plus 1
        drawn_B = self.rows[np.minimum(after_B, end)]
        low, middle, high = (float(np.quantile(drawn_B, q)) for q in ((1 - level) / 2, 0.5, (1 + level) / 2))
        return Crossing(winner.method, other.method, Estimate(middle, low, high))

    def lead(self, most: float) -> Lead | None:
        """Return where one is better with at most this many rows; None where neither surely is."""
        rows_T = self.rows[self.rows <= most]
        sure = np.flatnonzero(self.leads[: len(rows_T)])
        if not len(sure):
            return None
        better, worse = (self.first, self.second) if self.leads[sure[0]] == 1 else (self.second, self.first)
        # more rows make no model worse, beside one that stays as it is
        first = sure[0] if better.sizes else 0
        last = sure[-1] if worse.sizes else -1
        span, whole = (float(rows_T[first]), float(rows_T[last])), (float(rows_T[0]), float(rows_T[-1]))
        return Lead(better.method, worse.method, span, whole)


def _rounded(rows: float) -> str:
    """Two digits: more than an estimate of rows can mean."""
    return f"{float(f'{rows:.2g}'):,.0f}"
