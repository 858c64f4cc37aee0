"""What judges' scores say: means with intervals, differences between models, and whether the judge is reliable.

Unscored verdicts are counted, and never enter a mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median, pstdev

import numpy as np

from tunesmith.evaluation.correlation import Correlations, correlate
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, bootstrap, bootstrap_p, holm, percentile

Turn = tuple[str, int]
"""Row id and turn: what a model is judged on once per judge and seed."""
MAX_UNSCORED = 0.02
"""With a larger share of unscored verdicts than this there is no headline."""
PASS_SCORE = 50
"""Nonsense must score below it, a reference at least as much."""
MAX_WRONG = 0.1
"""A judge that gets more of the nonsense or of the references wrong than this is not reliable."""
BINS = 20
SHOWN = 5
"""Best and worst answers that a report shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeDecision:
    """What a judge decided on one item, with one seed and in one order."""

    id: str
    models: tuple[str, ...]
    """The model that was scored, or the two that were compared."""
    turn: int
    control: str
    """Empty for a model's answer; else the kind of control."""
    seed: int
    order: str
    """`ab`, or `ba` where the second model's answer was shown first."""
    score: int | None
    choice: str | None
    """Of a pair, what won, or `tie`."""
    reason: str
    """Why there is neither score nor choice."""
    reply: str

    @property
    def scored(self) -> bool:
        """Whether there is a score or a choice."""
        return self.score is not None or self.choice is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(JudgeDecision):
    """A decision by one of several judges; `choice` is the name of a model."""

    judge: str
    length: int
    """Words of the (first) answer."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """How many verdicts are unscored, why, and whether that is too many for a headline."""

    verdicts: int
    count: int
    share: float
    limit: float
    withheld: bool
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class ControlResult:
    """One kind of control, whose worth is known."""

    control: str
    verdicts: int
    unscored: int
    wrong: int
    mean: Estimate | None


@dataclass(frozen=True, slots=True)
class JudgeReliability:
    """What the controls say of the judge."""

    trusted: bool | None
    """None where there are no controls for or against it."""
    reasons: tuple[str, ...]
    controls: tuple[ControlResult, ...]


@dataclass(frozen=True, slots=True)
class LengthCorrelation:
    """Spearman's correlation of score and words of the answer."""

    rows: int
    spearman: Estimate | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model's scores, each the mean over judges and seeds."""

    name: str
    rows: int
    scored: int
    headline: Estimate | None
    """The mean; None where it is withheld."""
    median: float | None
    spread: float | None
    """Mean standard deviation between judges and seeds on one answer."""
    histogram: tuple[int, ...]
    length: LengthCorrelation
    turns: dict[int, Estimate | None]
    """The mean by turn, where there are several."""


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """Scores of `a` minus those of `b`, paired by row and turn."""

    a: str
    b: str
    rows: int
    higher: int
    lower: int
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    distinguishable: bool


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """Correlations of two judges over the answers that both scored."""

    a: str
    b: str
    rows: int
    pearson: Estimate | None
    spearman: Estimate | None
    kendall: Estimate | None

    @classmethod
    def of(cls, a: str, b: str, correlations: Correlations) -> JudgeAgreement:
        """Return the correlations as the agreement of two judges."""
        return cls(a, b, correlations.rows, correlations.pearson, correlations.spearman, correlations.kendall)


@dataclass(frozen=True)
class JudgeScores:
    """Everything that a report says about single scores."""

    confidence: float
    models: tuple[ModelScores, ...]
    pairs: tuple[ScoreDifference, ...]
    agreement: tuple[JudgeAgreement, ...]
    reliability: JudgeReliability
    unscored: Unscored


@dataclass(frozen=True, slots=True)
class RankedTurn:
    """A row and turn among the best or worst, with each model's score."""

    id: str
    turn: int
    scores: dict[str, float]


def summarize(verdicts: Sequence[Verdict], confidence: Confidence) -> JudgeScores:
    """Return everything that a report says about single scores; equal inputs give equal bits.

    A row's score is the mean over judges and seeds of its scored verdicts. Intervals are percentile bootstrap over
    questions, whose turns stay together; differences between models are paired by row and turn.
    """
    answers = [verdict for verdict in verdicts if not verdict.control]
    by_model: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in answers:
        by_model[verdict.models[0]].append(verdict)
    scores = {
        model: {turn: fmean(values) for turn, values in _scores_by_turn(group).items()}
        for model, group in by_model.items()
    }
    pairs = []
    for (a, first), (b, second) in combinations(scores.items(), 2):
        gaps = {turn: first[turn] - second[turn] for turn in first if turn in second}
        if gaps:
            values = list(gaps.values())
            resampled = _resampled_means(values, [row for row, _ in gaps], confidence)
            value, p = fmean(values), bootstrap_p(resampled)
            low, high = percentile(value, resampled, confidence.level)
            higher, lower = sum(gap > 0 for gap in values), sum(gap < 0 for gap in values)
            pairs.append(ScoreDifference(a, b, len(gaps), higher, lower, value, low, high, p, p, False))
    adjusted = zip(pairs, holm([pair.p for pair in pairs]), strict=True)
    missing = unscored(answers)
    models = [_model(model, by_model[model], means, confidence) for model, means in scores.items()]
    return JudgeScores(
        confidence.level,
        tuple(replace(model, headline=None) if missing.withheld else model for model in models),
        tuple(replace(pair, p_holm=p, distinguishable=p < 1 - confidence.level) for pair, p in adjusted),
        between_judges(answers, confidence),
        reliability([verdict for verdict in verdicts if verdict.control], confidence),
        missing,
    )


def unscored(verdicts: Sequence[Verdict]) -> Unscored:
    """Count the unscored verdicts by reason."""
    reasons = Counter(verdict.reason for verdict in verdicts if not verdict.scored)
    count = reasons.total()
    share = count / len(verdicts) if verdicts else 0.0
    return Unscored(len(verdicts), count, share, MAX_UNSCORED, share > MAX_UNSCORED, dict(reasons.most_common()))


def reliability(verdicts: Sequence[Verdict], confidence: Confidence) -> JudgeReliability:
    """Return how the judge scored the controls, and whether it can be trusted.

    Nonsense must score below PASS_SCORE and references at least as much, in all but a share MAX_WRONG of the verdicts
    each; a control without a verdict counts as one that the judge got wrong.
    """
    by_control: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_control[verdict.control].append(verdict)
    results = []
    for name, group in by_control.items():
        scored = [(verdict.id, verdict.score) for verdict in group if verdict.score is not None]
        scores = [score for _, score in scored]
        wrong = sum((score < PASS_SCORE) == (name == "reference") for score in scores)
        estimate = mean(scores, [row for row, _ in scored], confidence) if scored else None
        results.append(ControlResult(name, len(group), len(group) - len(scored), wrong, estimate))
    kinds = {
        "nonsense answers": [result for result in results if result.control != "reference"],
        "reference answers": [result for result in results if result.control == "reference"],
    }
    reasons = []
    for kind, same in kinds.items():
        total, wrong = sum(result.verdicts for result in same), sum(result.wrong for result in same)
        missing = sum(result.unscored for result in same)
        if total and wrong + missing > MAX_WRONG * total:
            side = f"less than {PASS_SCORE}" if kind == "reference answers" else f"{PASS_SCORE} or more"
            counts = {side: wrong, "no score": missing}
            reasons += [f"it gave {score} to {count} of {total} {kind}" for score, count in counts.items() if count]
    known = all(any(result.verdicts for result in same) for same in kinds.values())
    return JudgeReliability(False if reasons else True if known else None, tuple(reasons), tuple(results))


def between_judges(verdicts: Sequence[Verdict], confidence: Confidence) -> tuple[JudgeAgreement, ...]:
    """Return the agreement of each two judges over the answers that both scored."""
    scores: dict[str, dict[tuple[str, Turn], list[int]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        by_answer = scores[verdict.judge]
        if verdict.score is not None:
            by_answer[verdict.models[0], (verdict.id, verdict.turn)].append(verdict.score)
    pairs = []
    for (a, first), (b, second) in combinations(scores.items(), 2):
        shared = sorted(first.keys() & second.keys(), key=lambda place: (place[1], place[0]))
        ours, theirs = ([fmean(side[place]) for place in shared] for side in (first, second))
        pairs.append(JudgeAgreement.of(a, b, correlate(ours, theirs, confidence)))
    return tuple(pairs)


def best_and_worst(verdicts: Sequence[Verdict], number: int = SHOWN) -> tuple[list[RankedTurn], list[RankedTurn]]:
    """Return the rows and turns with the best and with the worst answers, by the mean over models."""
    scores: dict[Turn, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        if not verdict.control and verdict.score is not None:
            scores[verdict.id, verdict.turn][verdict.models[0]].append(verdict.score)
    turns = [
        RankedTurn(row, turn, {model: fmean(values) for model, values in by_model.items()})
        for (row, turn), by_model in scores.items()
    ]
    ranked = sorted(turns, key=lambda turn: (-fmean(turn.scores.values()), turn.id, turn.turn))
    best, worst = ranked[: min(number, (len(ranked) + 1) // 2)], ranked[::-1][: min(number, len(ranked) // 2)]
    return best, worst


def mean(values: Sequence[float], groups: Sequence[str], confidence: Confidence) -> Estimate:
    """Return a mean with its interval; values of one group (the turns of a question) are resampled together."""
    return Estimate.of(fmean(values), _resampled_means(values, groups, confidence), confidence.level)


def _resampled_means(values: Sequence[float], groups: Sequence[str], confidence: Confidence) -> Floats:
    names = sorted(set(groups))
    index = {name: number for number, name in enumerate(names)}
    sums_G, counts_G = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums_G[index[group]] += value
        counts_G[index[group]] += 1
    return bootstrap(
        lambda draws_BG: {"mean": sums_G[draws_BG].sum(1) / counts_G[draws_BG].sum(1)},
        len(names),
        confidence.resamples,
        confidence.seed,
    )["mean"]


def _model(name: str, verdicts: Sequence[Verdict], scores: Mapping[Turn, float], confidence: Confidence) -> ModelScores:
    values = list(scores.values())
    words = {(verdict.id, verdict.turn): verdict.length for verdict in verdicts}
    spreads = [pstdev(group) for group in _scores_by_turn(verdicts).values() if len(group) > 1]
    turns = sorted({turn for _, turn in words})
    several = len(turns) > 1
    histogram = [0] * BINS
    for value in values:
        histogram[min(BINS - 1, int(value * BINS / 100))] += 1

    def estimate(of: Mapping[Turn, float]) -> Estimate | None:
        return mean(list(of.values()), [row for row, _ in of], confidence) if of else None

    by_length = correlate([words[turn] for turn in scores], values, confidence, ["spearman"])

    return ModelScores(
        name=name,
        rows=len(words),
        scored=len(values),
        headline=estimate(scores),
        median=median(values) if values else None,
        spread=fmean(spreads) if spreads else None,
        histogram=tuple(histogram),
        length=LengthCorrelation(by_length.rows, by_length.spearman),
        turns={n: estimate({turn: scores[turn] for turn in scores if turn[1] == n}) for n in turns} if several else {},
    )


def _scores_by_turn(verdicts: Iterable[Verdict]) -> dict[Turn, list[int]]:
    """Return the scores of each row and turn, in order of appearance."""
    scores: dict[Turn, list[int]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.score is not None:
            scores[verdict.id, verdict.turn].append(verdict.score)
    return scores
