"""What judges' choices between two answers say: who wins, and how much the order of the answers matters.

A pair is won only where both orders say so; where they disagree, it is a tie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.evaluation.intervals import Confidence, Estimate, holm, mcnemar_exact, wilson
from tunesmith.evaluation.judge_scores import (
    MAX_WRONG,
    ControlResult,
    JudgeReliability,
    Turn,
    Unscored,
    Verdict,
    unscored,
)

TIE = "tie"
Choices = tuple[str | None, str | None]
"""The choice in the order ab, and in the order ba; None where unscored."""


@dataclass(frozen=True, slots=True)
class PairWins:
    """How often `a` was preferred to `b`, per row and turn."""

    a: str
    b: str
    rows: int
    decided: int
    """Rows with a verdict."""
    wins: int
    losses: int
    ties: int
    rate: Estimate | None
    """Share won by `a`, a tie counted as half a win; None where it is withheld."""
    p: float
    p_holm: float
    distinguishable: bool


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often the answer shown first won, the second, or neither; and how often both orders agree."""

    first: int
    second: int
    ties: int
    first_share: Estimate | None
    consistent: Estimate | None
    p: float | None


@dataclass(frozen=True)
class JudgePairs:
    """Everything that a report says about pairs."""

    confidence: float
    pairs: tuple[PairWins, ...]
    position: PositionBias
    reliability: JudgeReliability
    unscored: Unscored


def summarize(verdicts: Sequence[Verdict], confidence: Confidence) -> JudgePairs:
    """Return everything that a report says about pairs."""
    answers = [verdict for verdict in verdicts if not verdict.control]
    missing = unscored(answers)
    by_models: dict[tuple[str, ...], list[Verdict]] = defaultdict(list)
    for verdict in answers:
        by_models[verdict.models].append(verdict)
    pairs = [_pair(group, confidence.level, missing.withheld) for group in by_models.values()]
    adjusted = holm([pair.p for pair in pairs])
    return JudgePairs(
        confidence.level,
        tuple(
            replace(pair, p_holm=p, distinguishable=p < 1 - confidence.level and not missing.withheld)
            for pair, p in zip(pairs, adjusted, strict=True)
        ),
        position_bias(answers, confidence.level),
        reliability([verdict for verdict in verdicts if verdict.control]),
        missing,
    )


def position_bias(verdicts: Sequence[Verdict], confidence: float) -> PositionBias:
    """Return how much the order in which two answers are shown matters."""
    scored = [verdict for verdict in verdicts if verdict.choice is not None]
    first = sum(verdict.choice == verdict.models[verdict.order == "ba"] for verdict in scored)
    ties = sum(verdict.choice == TIE for verdict in scored)
    second = len(scored) - first - ties
    both = [choices for by_judge in _choices(verdicts).values() for choices in by_judge if None not in choices]
    return PositionBias(
        first,
        second,
        ties,
        Estimate.share(first, first + second, confidence) if first + second else None,
        Estimate.share(sum(a == b for a, b in both), len(both), confidence) if both else None,
        mcnemar_exact(first, second) if first + second else None,
    )


def reliability(verdicts: Sequence[Verdict]) -> JudgeReliability:
    """Return whether the judge prefers the reference to nonsense, whichever is shown first."""
    results = []
    for name in dict.fromkeys(verdict.control for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.control == name]
        missing = sum(verdict.choice is None for verdict in group)
        wrong = sum(verdict.choice not in (None, verdict.models[0]) for verdict in group)
        results.append(ControlResult(name, len(group), missing, wrong, None))
    rows, failed = sum(result.verdicts for result in results), sum(result.wrong + result.unscored for result in results)
    reasons: tuple[str, ...] = ()
    if rows and failed > MAX_WRONG * rows:
        reasons = (f"in {failed} of {rows} verdicts it did not prefer the reference to a nonsense answer",)
    return JudgeReliability(False if reasons else True if rows else None, reasons, tuple(results))


def wilson_of(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval where halves count: between those of the whole numbers on either side."""
    below, above = int(successes), int(successes + 0.5)
    return wilson(below, n, confidence)[0], wilson(above, n, confidence)[1]


def _pair(verdicts: Sequence[Verdict], confidence: float, withheld: bool) -> PairWins:
    """Count wins by row and turn, each won by the side that more judges and seeds prefer."""
    a, b = verdicts[0].models
    winners: list[str | None] = []
    for by_judge in _choices(verdicts).values():
        votes = [None if None in choices else choices[0] if choices[0] == choices[1] else TIE for choices in by_judge]
        ahead = votes.count(a) - votes.count(b)
        decided = any(vote is not None for vote in votes)
        winners.append((a if ahead > 0 else b if ahead < 0 else TIE) if decided else None)
    wins, losses, ties = (winners.count(side) for side in (a, b, TIE))
    rows = wins + losses + ties
    points = wins + ties / 2
    rate = Estimate(points / rows, *wilson_of(points, rows, confidence)) if rows and not withheld else None
    p = mcnemar_exact(wins, losses) if wins + losses else 1.0
    return PairWins(a, b, len(winners), rows, wins, losses, ties, rate, p, p, False)


def _choices(verdicts: Sequence[Verdict]) -> dict[tuple[tuple[str, ...], Turn], list[Choices]]:
    """Return the choices in both orders of every judge and seed, by models and turn."""
    orders: dict[tuple[tuple[str, ...], Turn, str, int], dict[str, str | None]] = defaultdict(dict)
    for verdict in verdicts:
        place = (verdict.models, (verdict.id, verdict.turn), verdict.judge, verdict.seed)
        orders[place][verdict.order] = verdict.choice
    by_turn: dict[tuple[tuple[str, ...], Turn], list[Choices]] = defaultdict(list)
    for (models, turn, _, _), choices in orders.items():
        by_turn[models, turn].append((choices.get("ab"), choices.get("ba")))
    return by_turn
