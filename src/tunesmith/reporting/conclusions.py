"""What paired tests, scores and costs come to, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.label_pairs import LabelPair
from tunesmith.evaluation.metric_pairs import MetricPair
from tunesmith.evaluation.prediction_costs import BreakEven
from tunesmith.evaluation.response_pairs import ResponseComparison, ResponsePair
from tunesmith.reporting.format import (
    LOWER_IS_BETTER,
    NAMES,
    approximate,
    counted,
    figure,
    in_a_sentence,
    level,
    p_value,
    part,
    share,
)
from tunesmith.reporting.schema import ClassificationResult, GenerationResult, MethodResult

NOTABLE = 1.2
"""A cost this many times another's is called different; less is the noise of a busy machine."""
PairTest = tuple[str, str, bool, float]
"""Two methods, whether they differ significantly, and the Holm-adjusted p."""


# All tasks.


def _against(best: str, tests: Iterable[PairTest]) -> tuple[dict[str, float], dict[str, float]]:
    """Return {name: p} of the methods that `best` beats, and of those it is not significantly different from."""
    beaten: dict[str, float] = {}
    equals: dict[str, float] = {}
    for a, b, distinguishable, p in tests:
        if best in (a, b):
            (beaten if distinguishable else equals)[b if a == best else a] = p
    return beaten, equals


def _with_p(p_values: Mapping[str, float], outermost: Callable[[Iterable[float]], float]) -> str:
    """Return the names, each with its p; beyond three names only the p that bounds them all."""
    if len(p_values) <= 3:
        return _join([f"{name} ({p_value(p)})" for name, p in p_values.items()])
    which = "largest" if outermost is max else "smallest"
    return f"{_join(list(p_values))} ({which} {p_value(outermost(p_values.values()))})"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _faster(ours: float | None, theirs: float | None, than: str) -> str:
    return f"trained {_times(theirs / ours)} faster{than}" if ours and theirs else "needed no training"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def of_prices(break_evens: Sequence[BreakEven]) -> str:
    """Return from how many predictions on each method pays against each endpoint; nothing without such numbers."""
    sentences = []
    for endpoint in dict.fromkeys(pair.endpoint for pair in break_evens):
        clauses = [_pays(pair) for pair in break_evens if pair.endpoint == endpoint]
        sentences.append(f"Against {endpoint}, {_join(clauses)}.")
    return " ".join(sentences)


def _pays(pair: BreakEven) -> str:
    if pair.predictions is None:
        return f"{pair.method} never pays"
    start = f"{approximate(pair.predictions)} predictions" if pair.predictions > 1 else "the first prediction"
    return f"{pair.method} pays from {start} on"


# Classifiers and regressions.


def of_labels(methods: Sequence[ClassificationResult], pairs: Sequence[LabelPair]) -> str:
    """Return which method is best, what that is worth on these rows, and what it costs.

    The most accurate method, the cheapest of equals, is held against each other one. Every p is McNemar's,
    Holm-adjusted over all pairs. The share of the most common label is named where the best is not clearly above it,
    and always for a single method.
    """
    highest = max(_accuracy(method) for method in methods)
    leaders = sorted((method for method in methods if _accuracy(method) == highest), key=_training_seconds)
    best, alone, scores = leaders[0], len(methods) == 1, leaders[0].scores
    tests = ((pair.a, pair.b, pair.distinguishable, pair.mcnemar.p_holm) for pair in pairs)
    beaten, equals = _against(best.name, tests)
    rivals = [method for method in methods if method.name in equals]
    accuracy = scores.headline["accuracy"]
    interval = f"{level(scores.confidence)} interval {_percent(accuracy.low)} to {_percent(accuracy.high)}"
    right = f"{_percent(accuracy.value)} of {counted(scores.rows, 'test row')} right ({interval})"
    if len(leaders) > 1:
        sentences = [f"{_join([method.name for method in leaders])} share the highest accuracy: each gets {right}."]
    else:
        sentences = [f"{best.name} gets {right}{'' if alone else ', the highest accuracy'}."]
    if beaten:
        sentences.append(f"{best.name} beats {_with_p(beaten, max)}.")
    if rivals:
        sentences.append(_not_different(best, rivals, equals))
    label = max(scores.per_class, key=lambda name: scores.per_class[name].support)
    majority = scores.per_class[label].support / scores.rows
    always = f"Always answering {label!r} would get {_percent(majority)}"
    if accuracy.low <= majority:
        does_better = f"{best.name} does" if alone else "any method does"
        sentences.append(f"{always}: nothing here shows that {does_better} better.")
    elif alone:
        sentences.append(f"{always}.")
    return " ".join(sentences)


def of_metric(
    methods: Sequence[MethodResult], pairs: Sequence[MetricPair], name: str, baseline: tuple[str, float] | None = None
) -> str:
    """Return which method is best by a metric, what that is worth on these rows, and what it costs.

    Every p is that of the paired bootstrap, Holm-adjusted over all pairs. baseline: what a rule without a model would
    do ("Always answering the mean"), and its score; named where the best is not clearly better, and always for a
    single method.
    """
    sign = 1 if name in LOWER_IS_BETTER else -1
    best = min(methods, key=lambda method: (sign * method.scores.headline[name].value, _training_seconds(method)))
    alone, scores, estimate = len(methods) == 1, best.scores, best.scores.headline[name]
    tests = ((pair.a, pair.b, pair.distinguishable, pair.differences[name].p_holm) for pair in pairs)
    beaten, equals = _against(best.name, tests)
    low, value, high = (figure(name, end) for end in (estimate.low, estimate.value, estimate.high))
    spoken = in_a_sentence(name)
    interval = f"{level(scores.confidence)} interval {low} to {high}"
    article = "an" if spoken.startswith("RMSE") else "a"
    has = f"{article} {spoken} of" if alone else f"the {'lowest' if sign == 1 else 'highest'} {spoken},"
    sentences = [f"{best.name} has {has} {value} on {counted(scores.rows, 'test row')} ({interval})."]
    if beaten:
        sentences.append(f"{best.name} beats {_with_p(beaten, max)}.")
    if equals:
        sentences.append(_not_different(best, [method for method in methods if method.name in equals], equals))
    if baseline:
        always = f"{baseline[0]} would have {figure(name, baseline[1])}"
        if max(sign * estimate.low, sign * estimate.high) >= sign * baseline[1]:  # its worse end is no better
            does_better = f"{best.name} does" if alone else "any method does"
            sentences.append(f"{always}: nothing here shows that {does_better} better.")
        elif alone:
            sentences.append(f"{always}.")
    return " ".join(sentences)


def _accuracy(method: ClassificationResult) -> float:
    return method.scores.headline["accuracy"].value


def _training_seconds(method: MethodResult) -> float:
    seconds = method.costs.train_seconds
    return float("inf") if seconds is None else seconds


def _not_different(best: MethodResult, rivals: Sequence[MethodResult], p_values: Mapping[str, float]) -> str:
    """Name the methods that do not differ from the best, what the cheapest of them saves, and what follows."""
    where = f"on these {counted(best.scores.rows, 'test row')}"
    verdict = f"{best.name} is not significantly different from {_with_p(p_values, min)} {where}"
    if len(rivals) == 1:
        (rival,) = rivals
        p = p_value(p_values[rival.name])
        verdict = f"{rival.name} and {best.name} are not significantly different {where} ({p})"
    if any(method.costs.endpoint for method in (best, *rivals)):  # seconds do not say which costs less
        return f"{verdict}."
    cheap = min([best, *rivals], key=_training_seconds)
    if cheap is best and len(rivals) > 1:
        fastest = all(_is_more(rival.costs.train_seconds, best.costs.train_seconds) for rival in rivals)
        return f"{verdict}; {best.name} trained fastest of them." if fastest else f"{verdict}."
    dear = rivals[0] if cheap is best else best
    if not _is_more(dear.costs.train_seconds, cheap.costs.train_seconds):
        return f"{verdict}."
    than = "" if len(rivals) == 1 else f" than {dear.name}"
    verdict += f"; {cheap.name} {_faster(cheap.costs.train_seconds, dear.costs.train_seconds, than)}"
    ours, theirs = cheap.costs.seconds_per_1000, dear.costs.seconds_per_1000
    if ours and theirs and _is_more(ours, theirs):
        return f"{verdict} but predicts {_times(ours / theirs)} slower."
    if ours and theirs and _is_more(theirs, ours):
        verdict += f" and predicts {_times(theirs / ours)} faster"
    return f"{verdict}. Nothing here shows that {dear.name} is worth its cost."


def _is_more(cost: float | None, other: float | None) -> bool:
    """Notably more; False where either is not known."""
    return cost is not None and other is not None and cost > NOTABLE * other


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


# Generators.


def of_responses(
    methods: Sequence[GenerationResult], compared: ResponseComparison, pairs: Sequence[ResponsePair]
) -> str:
    """Return whose answers come closest to the references, by how much, what that is worth, and what it costs."""
    best, base = rank(methods, compared)
    by_name = {method.name: method for method in methods}
    beaten, equals = _against(best, ((pair.a, pair.b, pair.distinguishable, pair.p_holm) for pair in pairs))
    if compared.decided_by != "loss":
        return _by_closeness(by_name[best], len(methods), compared, beaten, equals)
    if len(methods) == 1:
        scores = methods[0].scores
        loss = scores.headline["loss"]
        interval = f"{level(scores.confidence)} interval {loss.low:.2f} to {loss.high:.2f}"
        where = f"per token on {counted(scores.rows, 'test answer')} ({interval})"
        return f"{best} has a loss of {loss.value:.2f} {where}{_ends(methods[0])}."
    answers = counted(compared.rows, "test answer")
    sentences = [
        f"{best} has the lowest loss on {answers}, {compared.losses[best]:.2f} per "
        f"{compared.unit}{_ends(by_name[best])}."
    ]
    against_base = next((pair for pair in pairs if {pair.a, pair.b} == {best, base}), None)
    if against_base and against_base.loss_ratio and base in beaten:
        ratio = against_base.loss_ratio
        if against_base.a != best:
            ratio = Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
        before, after = (compared.losses[name] for name in (base, best))
        interval = f"{level(by_name[best].scores.confidence)} interval {_change(ratio.low)} to {_change(ratio.high)}"
        sentences = [
            f"{best} lowers the loss on {answers} from {before:.2f} ({base}) to {after:.2f} "
            f"({_change(ratio.value)}, {interval}){_ends(by_name[best], by_name[base])}."
        ]
    if others := {name: p for name, p in beaten.items() if name != base}:
        sentences.append(f"{best} {'also ' if base in beaten else ''}beats {_with_p(others, max)}.")
    if equals:
        sentences.append(_not_better(by_name, best, equals, compared.rows))
    if against_base and base and compared.closeness in against_base.differences:
        sentences.append(_closeness(by_name[best], by_name[base], compared.closeness, against_base))
    if base in equals:
        sentences.append(f"Nothing here shows that training was worth its cost: {base} did not train.")
    if by_name[best].costs.trainable == 0:
        sentences.append("No training lowered the loss.")
    if compared.unit == "character":
        sentences.append("The models tokenize differently, so losses are compared per character.")
    if compared.left_out:
        sentences.append(f"Left out as too long for one of the models: {counted(compared.left_out, 'row')}.")
    return " ".join(sentences)


def rank(methods: Sequence[GenerationResult], compared: ResponseComparison) -> tuple[str, str | None]:
    """Return the method with the lowest loss (of equals the one that trained fastest), and the untuned one beside it.

    Without an untuned method, or where that one is best, there is nothing to hold it against: None. Where there are no
    losses the highest figure of `decided_by` counts.
    """
    losses = compared.losses
    if compared.decided_by != "loss":
        return max(methods, key=lambda m: m.scores.headline[compared.decided_by].value).name, None
    best = min(methods, key=lambda m: (losses[m.name], m.costs.train_seconds or 0)).name
    untuned = [m.name for m in methods if m.costs.trainable == 0]
    return best, next((name for name in untuned if name != best and best not in untuned), None)


def _by_closeness(
    best: GenerationResult,
    models: int,
    compared: ResponseComparison,
    beaten: Mapping[str, float],
    equals: Mapping[str, float],
) -> str:
    """Say which of the models is best where answers have no losses."""
    decided_by, headline = compared.decided_by, best.scores.headline
    estimate = headline[decided_by]
    low, value, high = (figure(decided_by, end) for end in (estimate.low, estimate.value, estimate.high))
    interval = f"{level(best.scores.confidence)} interval {low} to {high}"
    shape = f"{share(headline['answer_only'].value)} of its responses are an answer and no more"
    name = NAMES[decided_by]
    has = f"the highest {name}, " if models > 1 else f"a {name} of "
    sentences = [f"{best.name} has {has}{value} on {counted(compared.rows, 'answer')} ({interval}); {shape}."]
    if beaten:
        sentences.append(f"It beats {_with_p(beaten, max)}.")
    if equals:
        where = f"on these {counted(compared.rows, 'row')}"
        sentences.append(f"It is not significantly different from {_with_p(equals, min)} {where}.")
    return " ".join(sentences)


def _closeness(best: GenerationResult, base: GenerationResult, name: str, pair: ResponsePair) -> str:
    """Say whether responses came closer to the references too: a lower loss need not show in them."""
    before, after = (method.scores.headline[name].value for method in (base, best))
    p = pair.differences[name].p_holm
    sure = p < 1 - best.scores.confidence
    way = ("further from" if after < before else "closer to") if sure else "no closer to"
    figures = f"{NAMES[name]} {figure(name, before)} before, {figure(name, after)} after, {p_value(p)}"
    return f"Its answers are {way} the references{'' if sure else ' as far as these rows can tell'} ({figures})."


def _change(ratio: float) -> str:
    """−34%, +2.1%."""
    change = 100 * (ratio - 1)
    return f"{change:+.{0 if abs(change) >= 9.95 else 1}f}%".replace("-", "−")


def _ends(method: GenerationResult, base: GenerationResult | None = None) -> str:
    """Say how many answers end before the token limit: nothing to praise where they are empty."""
    if not method.scores.answered:
        return ""
    answers = counted(method.scores.answered, "answer")
    ended, empty = (method.scores.headline[name].value for name in ("ended", "empty"))
    if empty == 1:
        return f", but all of its {answers} are empty"
    held_against = ""
    if base and base.scores.answered:
        held_against = f" ({base.name}: {share(base.scores.headline['ended'].value)})"
    emptied = f"; {share(empty)} are empty" if empty else ""
    return f", and ends {share(ended)} of its {answers} before the token limit{held_against}{emptied}"


def _not_better(by_name: Mapping[str, GenerationResult], best: str, equals: Mapping[str, float], rows: int) -> str:
    """Name the models that do not differ from the best, and what the cheapest of those that trained saves."""
    verdict = f"{best} is not significantly different from {_with_p(equals, min)} on these {counted(rows, 'row')}"
    rivals = [by_name[name] for name in equals if by_name[name].costs.trainable]
    if not rivals or not by_name[best].costs.trainable:
        return f"{verdict}."
    cheap, dear = sorted([by_name[best], min(rivals, key=_seconds)], key=_seconds)
    ours, theirs = cheap.costs, dear.costs
    savings = []
    if 0 < NOTABLE * _seconds(cheap) < _seconds(dear):
        than = "" if len(equals) == 1 else f" than {dear.name}"
        savings.append(_faster(ours.train_seconds, theirs.train_seconds, than))
    if theirs.trainable > NOTABLE * ours.trainable:
        savings.append(f"changed {part(ours.trainable / ours.parameters)} of the parameters")
    return f"{verdict}; {cheap.name} {' and '.join(savings)}." if savings else f"{verdict}."


def _seconds(method: MethodResult) -> float:
    return method.costs.train_seconds or 0.0
