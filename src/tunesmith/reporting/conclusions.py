"""What paired tests, scores and costs come to, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.label_pairs import LabelPair
from tunesmith.evaluation.metrics import ClassScores
from tunesmith.evaluation.response_pairs import ResponseComparison, ResponsePair
from tunesmith.reporting.format import NAMES, chance, figure, level, part, share
from tunesmith.reporting.schema import ClassificationResult, GenerationResult, MethodResult

NOTABLE = 1.2
"""A cost this many times another's is called different; less is the noise of a busy machine."""
PairTest = tuple[str, str, bool, float]
"""Two methods, whether they differ significantly, and the Holm-adjusted p."""


# Both tasks.


def _against(best: str, tests: Iterable[PairTest]) -> tuple[dict[str, float], dict[str, float]]:
    """{name: p} of the methods that `best` beats, and of those it is not significantly different from."""
    beaten: dict[str, float] = {}
    equals: dict[str, float] = {}
    for a, b, distinguishable, p in tests:
        if best in (a, b):
            (beaten if distinguishable else equals)[b if a == best else a] = p
    return beaten, equals


def _with_p(p_values: Mapping[str, float], outermost: Callable[[Iterable[float]], float]) -> str:
    """Names, each with its p; beyond three names only the p that bounds them all."""
    if len(p_values) <= 3:
        return _join([f"{name} ({_p(p)})" for name, p in p_values.items()])
    which = "largest" if outermost is max else "smallest"
    return f"{_join(list(p_values))} ({which} {_p(outermost(p_values.values()))})"


def _p(p: float) -> str:
    if p >= 0.995:
        return "p > 0.99"
    return f"p {chance(p)}" if p < 0.001 else f"p = {chance(p)}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _faster(ours: float | None, theirs: float | None, than: str) -> str:
    return f"trained {_times(theirs / ours)} faster{than}" if ours and theirs else "needed no training"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


# Classifiers.


def of_labels(methods: Sequence[ClassificationResult], pairs: Sequence[LabelPair]) -> str:
    """Return which method is best, what that is worth on so many rows, and what it costs.

    The most accurate method, the cheapest of equals, is held against each other one. Every p is McNemar's,
    Holm-adjusted over all pairs.
    """
    highest = max(_accuracy(method) for method in methods)
    leaders = sorted((method for method in methods if _accuracy(method) == highest), key=_training_seconds)
    best, alone = leaders[0], len(methods) == 1
    tests = ((pair.a, pair.b, pair.distinguishable, pair.mcnemar.p_holm) for pair in pairs)
    beaten, equals = _against(best.name, tests)
    rivals = [method for method in methods if method.name in equals]
    sentences = [
        _lead(leaders, alone=alone),
        f"{best.name} beats {_with_p(beaten, max)}." if beaten else "",
        _not_different(best, rivals, equals) if rivals else "",
        _majority(best, methods[0].scores.per_class, alone=alone),
    ]
    return " ".join(filter(None, sentences))


def _accuracy(method: ClassificationResult) -> float:
    return method.scores.headline["accuracy"].value


def _training_seconds(method: ClassificationResult) -> float:
    seconds = method.costs.train_seconds
    return float("inf") if seconds is None else seconds


def _lead(leaders: Sequence[ClassificationResult], *, alone: bool) -> str:
    best = leaders[0]
    scores, accuracy = best.scores, best.scores.headline["accuracy"]
    interval = f"{level(scores.confidence)} interval {_percent(accuracy.low)} to {_percent(accuracy.high)}"
    right = f"{_percent(accuracy.value)} of {scores.rows:,} test rows right ({interval})"
    if len(leaders) > 1:
        return f"{_join([method.name for method in leaders])} share the highest accuracy: each gets {right}."
    return f"{best.name} gets {right}{'' if alone else ', the highest accuracy'}."


def _not_different(
    best: ClassificationResult, rivals: Sequence[ClassificationResult], p_values: Mapping[str, float]
) -> str:
    where = f"on these {best.scores.rows:,} test rows"
    if len(rivals) == 1:
        (rival,) = rivals
        p = _p(p_values[rival.name])
        verdict = f"{rival.name} and {best.name} are not significantly different {where} ({p})"
    else:
        verdict = f"{best.name} is not significantly different from {_with_p(p_values, min)} {where}"
    clause, advice = _saving(best, rivals)
    return "; ".join(filter(None, [verdict, clause])) + "." + advice


def _saving(best: ClassificationResult, rivals: Sequence[ClassificationResult]) -> tuple[str, str]:
    """What the cheapest of methods that do not differ saves, as a clause, and advice that follows from it."""
    cheap = min([best, *rivals], key=_training_seconds)
    if cheap is best and len(rivals) > 1:
        fastest = all(_is_more(rival.costs.train_seconds, best.costs.train_seconds) for rival in rivals)
        return (f"{best.name} trained fastest of them" if fastest else ""), ""
    dear = rivals[0] if cheap is best else best
    if not _is_more(dear.costs.train_seconds, cheap.costs.train_seconds):
        return "", ""
    clause = _faster(
        cheap.costs.train_seconds, dear.costs.train_seconds, "" if len(rivals) == 1 else f" than {dear.name}"
    )
    ours, theirs = cheap.costs.seconds_per_1000, dear.costs.seconds_per_1000
    if ours and theirs and _is_more(theirs, ours):
        clause += f" and predicts {_times(theirs / ours)} faster"
    elif ours and theirs and _is_more(ours, theirs):
        return f"{cheap.name} {clause} but predicts {_times(ours / theirs)} slower", ""
    return f"{cheap.name} {clause}", f" Nothing here shows that {dear.name} is worth its cost."


def _is_more(cost: float | None, other: float | None) -> bool:
    """Notably more; False where either is not known."""
    return cost is not None and other is not None and cost > NOTABLE * other


def _majority(best: ClassificationResult, per_class: Mapping[str, ClassScores], *, alone: bool) -> str:
    """The share of the most common label; with several methods only where the best is not clearly above it."""
    label = max(per_class, key=lambda name: per_class[name].support)
    majority = per_class[label].support / best.scores.rows
    if best.scores.headline["accuracy"].low > majority:
        return f"Always answering {label!r} would get {_percent(majority)}." if alone else ""
    does_better = f"{best.name} does" if alone else "any method does"
    return f"Always answering {label!r} would get {_percent(majority)}: nothing here shows that {does_better} better."


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


# Generators.


def of_responses(
    methods: Sequence[GenerationResult], compared: ResponseComparison, pairs: Sequence[ResponsePair]
) -> str:
    """Whose answers come closest to the references, by how much, what that is worth, and what it costs."""
    decide = _by_loss if compared.decided_by == "loss" else _by_answers
    return decide(methods, compared, pairs)


def rank(methods: Sequence[GenerationResult], compared: ResponseComparison) -> tuple[str, str | None]:
    """The method with the lowest loss (of equals the one that trained fastest), and the untuned one it is held against.

    Without an untuned method, or where that one is best, there is nothing to hold it against: None. Where there are no
    losses the highest figure of `decided_by` counts.
    """
    losses = compared.losses
    if compared.decided_by != "loss":
        return max(methods, key=lambda m: m.scores.headline[compared.decided_by].value).name, None
    best = min(methods, key=lambda m: (losses[m.name], m.costs.train_seconds or 0)).name
    untuned = [m.name for m in methods if m.costs.trainable == 0]
    return best, next((name for name in untuned if name != best and best not in untuned), None)


def _tests(pairs: Iterable[ResponsePair]) -> Iterable[PairTest]:
    return ((pair.a, pair.b, pair.distinguishable, pair.p_holm) for pair in pairs)


def _by_loss(methods: Sequence[GenerationResult], compared: ResponseComparison, pairs: Sequence[ResponsePair]) -> str:
    by_name = {method.name: method for method in methods}
    best, base = rank(methods, compared)
    beaten, equals = _against(best, _tests(pairs))
    if len(methods) == 1:
        return _alone(methods[0])
    lead = _gain(by_name, best, base, compared, pairs) if base in beaten else _lowest(by_name[best], compared)
    others = {name: p for name, p in beaten.items() if name != base}
    sentences = [
        lead,
        f"{best} {'also ' if base in beaten else ''}beats {_with_p(others, max)}." if others else "",
        _undecided(by_name, best, equals, compared.rows) if equals else "",
        _closeness(by_name, best, base, compared, pairs) if base else "",
        f"Nothing here shows that training was worth its cost: {base} did not train." if base in equals else "",
        "No training lowered the loss." if by_name[best].costs.trainable == 0 else "",
        _measured(compared),
    ]
    return " ".join(filter(None, sentences))


def _by_answers(
    methods: Sequence[GenerationResult], compared: ResponseComparison, pairs: Sequence[ResponsePair]
) -> str:
    best, _ = rank(methods, compared)
    beaten, equals = _against(best, _tests(pairs))
    (winner,) = (method for method in methods if method.name == best)
    decided_by, headline = compared.decided_by, winner.scores.headline
    estimate = headline[decided_by]
    low, value, high = (figure(decided_by, end) for end in (estimate.low, estimate.value, estimate.high))
    interval = f"{level(winner.scores.confidence)} interval {low} to {high}"
    shape = f"{share(headline['answer_only'].value)} of its responses are an answer and no more"
    name = NAMES[decided_by]
    has = f"the highest {name}, " if len(methods) > 1 else f"a {name} of "
    sentences = [
        f"{best} has {has}{value} on {compared.rows:,} answers ({interval}); {shape}.",
        f"It beats {_with_p(beaten, max)}." if beaten else "",
        f"It is not significantly different from {_with_p(equals, min)} on these {compared.rows:,} rows."
        if equals
        else "",
    ]
    return " ".join(filter(None, sentences))


def _alone(method: GenerationResult) -> str:
    scores = method.scores
    loss, rows = scores.headline["loss"], scores.rows
    interval = f"{level(scores.confidence)} interval {loss.low:.2f} to {loss.high:.2f}"
    where = f"per token on {rows:,} test answers ({interval})"
    return f"{method.name} has a loss of {loss.value:.2f} {where}{_ends(method)}."


def _closeness(
    by_name: Mapping[str, GenerationResult],
    best: str,
    base: str,
    compared: ResponseComparison,
    pairs: Sequence[ResponsePair],
) -> str:
    """A lower loss need not show in the responses."""
    name = compared.closeness
    (pair,) = (pair for pair in pairs if {pair.a, pair.b} == {best, base})
    if name not in pair.differences:
        return ""
    before, after = (by_name[model].scores.headline[name].value for model in (base, best))
    p = pair.differences[name].p_holm
    sure = p < 1 - by_name[best].scores.confidence
    way = ("further from" if after < before else "closer to") if sure else "no closer to"
    figures = f"{NAMES[name]} {figure(name, before)} before, {figure(name, after)} after, {_p(p)}"
    return f"Its answers are {way} the references{'' if sure else ' as far as these rows can tell'} ({figures})."


def _lowest(best: GenerationResult, compared: ResponseComparison) -> str:
    where = f"on {compared.rows:,} test answers"
    loss = compared.losses[best.name]
    return f"{best.name} has the lowest loss {where}, {loss:.2f} per {compared.unit}{_ends(best)}."


def _gain(
    by_name: Mapping[str, GenerationResult],
    best: str,
    base: str | None,
    compared: ResponseComparison,
    pairs: Sequence[ResponsePair],
) -> str:
    (pair,) = (pair for pair in pairs if {pair.a, pair.b} == {best, base})
    ratio = pair.loss_ratio
    if ratio is None:
        return _lowest(by_name[best], compared)
    if pair.a != best:
        ratio = Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
    before, after = (compared.losses[name] for name in (str(base), best))
    confidence = level(by_name[best].scores.confidence)
    interval = f"{confidence} interval {_change(ratio.low)} to {_change(ratio.high)}"
    return (
        f"{best} lowers the loss on {compared.rows:,} test answers from {before:.2f} ({base}) to {after:.2f} "
        f"({_change(ratio.value)}, {interval}){_ends(by_name[best], by_name[str(base)])}."
    )


def _change(ratio: float) -> str:
    """−34%, +2.1%."""
    change = 100 * (ratio - 1)
    return f"{change:+.{0 if abs(change) >= 9.95 else 1}f}%".replace("-", "−")


def _ends(method: GenerationResult, base: GenerationResult | None = None) -> str:
    if not method.scores.answered:
        return ""
    held_against = f" ({base.name}: {_ended(base)})" if base and base.scores.answered else ""
    return f", and ends {_ended(method)} of its answers itself{held_against}"


def _ended(method: GenerationResult) -> str:
    return share(method.scores.headline["ended"].value)


def _undecided(by_name: Mapping[str, GenerationResult], best: str, equals: Mapping[str, float], rows: int) -> str:
    verdict = f"{best} is not significantly different from {_with_p(equals, min)} on these {rows:,} rows"
    rivals = [by_name[name] for name in equals if by_name[name].costs.trainable]
    if not rivals or not by_name[best].costs.trainable:
        return f"{verdict}."
    cheap, dear = sorted([by_name[best], min(rivals, key=_seconds)], key=_seconds)
    ours, theirs = cheap.costs, dear.costs
    than = "" if len(equals) == 1 else f" than {dear.name}"
    fewer = theirs.trainable > NOTABLE * ours.trainable
    savings = [
        _faster(ours.train_seconds, theirs.train_seconds, than)
        if 0 < NOTABLE * _seconds(cheap) < _seconds(dear)
        else "",
        f"changed {part(ours.trainable / ours.parameters)} of the parameters" if fewer else "",
    ]
    saved = " and ".join(filter(None, savings))
    return f"{verdict}; {cheap.name} {saved}." if saved else f"{verdict}."


def _seconds(method: MethodResult) -> float:
    return method.costs.train_seconds or 0.0


def _measured(compared: ResponseComparison) -> str:
    """What is unusual about the losses."""
    by_character = "The models cut text into different tokens, so losses are compared per character."
    left_out = f"{compared.left_out:,} rows too long for one of the models are left out."
    sentences = [by_character if compared.unit == "character" else "", left_out if compared.left_out else ""]
    return " ".join(filter(None, sentences))
