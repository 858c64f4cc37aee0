"""What metrics are called, and how numbers are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, isfinite, log10

from tunesmith.evaluation import decision_scores, metrics, multilabel_scores, responses, value_scores
from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.paired_tests import PairedDifference
from tunesmith.evaluation.response_pairs import ResponsePair
from tunesmith.evaluation.responses import NEITHER, SHARES, GenerationScores
from tunesmith.manifest import Costs

AnyEstimate = Estimate | PairedDifference

NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "mcc": "Matthews correlation",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error",
    "qwk": "Quadratic weighted kappa",
    "within_one": "At most one off",
    "cost": "Cost per 1,000 rows",
    "micro_f1": "Micro F1",
    "weighted_f1": "Weighted F1",
    "micro_precision": "Micro precision",
    "micro_recall": "Micro recall",
    "subset_accuracy": "Subset accuracy",
    "hamming_loss": "Hamming loss",
    "label_ranking_ap": "Label-ranking AP",
    "mean_average_precision": "Mean average precision",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "pearson": "Pearson",
    "spearman": "Spearman",
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
HIGHER_IS_BETTER = (
    metrics.HIGHER_IS_BETTER
    | decision_scores.HIGHER_IS_BETTER
    | multilabel_scores.HIGHER_IS_BETTER
    | value_scores.HIGHER_IS_BETTER
    | responses.HIGHER_IS_BETTER
)
LOWER_IS_BETTER = [name for name, higher in HIGHER_IS_BETTER.items() if not higher]
NOTHING = "–"
"""Shown for a number that is not known."""
QUANTITIES = ("rmse", "mae", "cost")
"""Metrics in the unit of the data, of any size."""
OF_PEOPLE = ("mcc", "brier", "pearson", "spearman")
"""Metrics whose names begin with somebody's."""
DIGITS = {"bleu": 1, "chrf": 1, "length_ratio": 2}
"""Decimals, where not three (losses and scores up to 1), or as many as three digits need (perplexity, tokens)."""


def metric(value: float | None) -> str:
    """0.975; a true minus sign where it is negative."""
    return NOTHING if value is None else f"{value:.3f}".replace("-", "−")


def in_a_sentence(name: str) -> str:
    """The name of a metric as a sentence has it: macro F1, RMSE, Matthews correlation."""
    words = NAMES[name]
    return words if words.split()[0].isupper() or name in OF_PEOPLE else words[0].lower() + words[1:]


def points(value: float | None) -> str:
    """A judge's score: 71.3."""
    return NOTHING if value is None else f"{value:.1f}".replace("-", "−")


def quantity(value: float | None) -> str:
    """A number of any size with four digits: 0.03141, 3.142, 3,142, 31,416."""
    if value is None:
        return NOTHING
    digits = 3 - floor(log10(abs(value))) if value else 3
    return f"{value:,.{min(6, max(0, digits))}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A difference: +0.012, −0.003, 0.000."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def chance(p: float | None) -> str:
    """A p-value: 0.31, 0.042, < 0.001."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_value(p: float | None) -> str:
    """p = 0.31, p < 0.001, p > 0.99"""
    if p is not None and p >= 0.995:
        return "p > 0.99"
    return f"p {chance(p)}" if p is not None and p < 0.001 else f"p = {chance(p)}"


def counted(number: float, noun: str) -> str:
    """1 row, 1,200 rows, 0.5 epochs."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def percent(share: float) -> str:
    """98%, 0.4%; only 0 is shown as 0%."""
    return f"{100 * share:.0f}%" if share >= 0.0095 or share == 0 else f"{100 * share:.1g}%"


def share(value: float | None) -> str:
    """99.1%; only 0 and 1 are shown as 0% and 100%."""
    if value is None:
        return NOTHING
    return f"{min(99.9, max(0.1, 100 * value)):.1f}%" if 0 < value < 1 else f"{100 * value:.0f}%"


def level(confidence: float) -> str:
    """95%, 99.5%: never rounded."""
    return f"{100 * confidence:g}%"


def seconds(value: float | None) -> str:
    """40 ms, 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if value is None or not isfinite(value):
        return NOTHING
    if value < 0.095:
        return f"{1000 * value:.1g} ms" if value < 0.001 else f"{1000 * value:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return _two_units(whole, "min", "s") if whole >= 60 else f"{whole} s"
    return _two_units(round(whole / 60), "h", "min")


def _two_units(small: int, unit: str, subunit: str) -> str:
    large, remainder = divmod(small, 60)
    return f"{large:,} {unit} {remainder} {subunit}" if remainder else f"{large:,} {unit}"


def count(value: float | None) -> str:
    """512; 50,000; 120 k; 22.7 M; 1.3 B."""
    if value is None:
        return NOTHING
    for limit, unit, size in ((99_999.5, "", 1), (999_500, " k", 1e3), (999.5e6, " M", 1e6)):
        if value < limit:
            return f"{value / size:,.{1 if unit == ' M' and value < 99.95e6 else 0}f}{unit}"
    return f"{value / 1e9:,.1f} B"


def approximate(number: float) -> str:
    """A number of which two digits are worth saying: 7, 41,000, 1,200,000, 23.0 M."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded < 1e7 else count(rounded)


def price(value: float | None, currency: str | None = None) -> str:
    """Two digits of a small price, and two decimals of others: 0.000019, 0.12, 4.20 USD, 1,234.50."""
    if value is None:
        return NOTHING
    digits = 1 - floor(log10(float(f"{value:.2g}"))) if value else 0
    amount = "0" if value == 0 else "< 0.000001" if value < 1e-6 else f"{value:,.{max(2, digits)}f}"
    return f"{amount} {currency}" if currency else amount


def megabytes(value: float | None) -> str:
    """40 kB, 1.2 MB, 310 MB, 1.4 GB."""
    if value is None:
        return NOTHING
    if value < 0.095:
        return f"{1000 * value:.0f} kB"
    if value < 999.5:
        return f"{value:.{1 if value < 9.95 else 0}f} MB"
    return f"{value / 1000:,.1f} GB"


def training(costs: Costs) -> str:
    """How long training took: `none` for what was not trained, however long it took to load."""
    return "none" if costs.trainable == 0 else seconds(costs.train_seconds)


def trained(costs: Costs) -> str:
    """How many parameters training changed: none; 1,925 (0.0085%)."""
    if not (costs.parameters and costs.trainable):
        return "none"
    return f"{count(costs.trainable)} ({part(costs.trainable / costs.parameters)})"


def part(whole: float) -> str:
    """A share of parameters, which may be small: 0.21%, 1.5%, 100%."""
    return f"{100 * whole:.0f}%" if whole >= 0.0995 else f"{100 * whole:.2g}%"


# Numbers whose form depends on the metric.


def figure(name: str, value: float | None) -> str:
    """A loss 1.523, a share 99.1%, BLEU and chrF 23.4, a perplexity or a number of tokens 4.59, 45.9, 459."""
    if value is None:
        return NOTHING
    if name in SHARES:
        return share(value)
    if name in QUANTITIES:
        return quantity(value)
    if name in ("perplexity", "tokens"):
        return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
    return f"{value:.{DIGITS[name]}f}" if name in DIGITS else metric(value)


def value(name: str, known: AnyEstimate | None) -> str:
    """1.523, without its interval"""
    return figure(name, known.value if known else None)


def interval(name: str, estimate: AnyEstimate) -> str:
    """[1.498, 1.552]"""
    return f"[{figure(name, estimate.low)}, {figure(name, estimate.high)}]"


def estimate(name: str, known: AnyEstimate | None) -> str:
    """1.523 [1.498, 1.552]"""
    return f"{figure(name, known.value)} {interval(name, known)}" if known else NOTHING


def directed(name: str) -> str:
    """The name, with an arrow where lower is better."""
    return f"{NAMES[name]} ↓" if name in LOWER_IS_BETTER else NAMES[name]


def columns(headlines: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the metrics that any of several methods has, in the order of the one with most."""
    return list(dict.fromkeys(name for headline in sorted(headlines, key=len, reverse=True) for name in headline))


def predicted(label: str, probability: float | None) -> str:
    """A predicted label: spam 91%; spam where its probability is not known; no label"""
    return (label or "no label") + ("" if probability is None else f" {percent(probability)}")


def shown(scores: Iterable[GenerationScores]) -> list[str]:
    """Return the figures that any of the models has, in order."""
    known = {name for model in scores for name in model.headline}
    return [name for name in NAMES if name in known]


def flaws(scores: Iterable[GenerationScores]) -> list[str]:
    """Return the flaws of form that were looked for in any of the models' answers."""
    return list(dict.fromkeys(name for model in scores for name in model.flaws))


def figure_rows(scores: Mapping[str, GenerationScores], pairs: Sequence[ResponsePair]) -> list[list[str]]:
    """Return the head of a table and a row for each figure: every model's, and of two models their difference and p."""
    pair = pairs[0] if len(pairs) == 1 else None
    answered = next(iter(scores.values())).answered
    rows = [[counted(answered, "answer"), *scores, *([f"{pair.a} − {pair.b}", "p"] if pair else [])]]
    for name in shown(scores.values()):
        tested = [difference(name, pair, scores), probability(name, pair)] if pair else []
        rows.append([directed(name), *(estimate(name, model.headline.get(name)) for model in scores.values()), *tested])
    return rows


def short_answers_note(scores: Iterable[GenerationScores]) -> str:
    """Explain BLEU and ROUGE-2 where they are low although answers match exactly; else nothing."""
    for headline in (model.headline for model in scores):
        if "bleu" in headline and headline["exact_match"].value > headline["bleu"].value / 100 + 0.1:
            return (
                "BLEU counts up to four words in a row, ROUGE-2 pairs of words: answers of one word have neither, so "
                "both figures stay low even where every answer matches."
            )
    return ""


def difference(name: str, pair: ResponsePair, scores: Mapping[str, GenerationScores]) -> str:
    """First minus second: +0.041 [+0.010, +0.072]; of shares in percentage points, without an interval."""
    test = pair.test(name)
    if isinstance(test, PairedDifference):
        return signed_estimate(name, test)
    a, b = (scores[model].headline.get(name) for model in (pair.a, pair.b))
    return signed_figure(name, a.value - b.value) if test and a and b else NOTHING


def probability(name: str, pair: ResponsePair) -> str:
    """The p of a difference, after Holm's correction."""
    test = pair.test(name)
    return chance(test.p_holm) if test else NOTHING


def signed_figure(name: str, value: float) -> str:
    """A difference: +0.012, −2.1, +3.0 points."""
    if name in QUANTITIES:
        return f"+{quantity(value)}" if value > 0 else quantity(value)
    return f"{signed(100 * value, 1)} points" if name in SHARES else signed(value, DIGITS.get(name, 3))


def signed_estimate(name: str, difference: AnyEstimate) -> str:
    """A difference with its interval: +0.041 [+0.010, +0.072]"""
    low, value, high = (signed_figure(name, end) for end in (difference.low, difference.value, difference.high))
    return f"{value} [{low}, {high}]"


def better(name: str) -> str:
    """Which way is better, in a word."""
    return "neither" if name in NEITHER else "lower" if name in LOWER_IS_BETTER else "higher"
