"""Which words made some predictions: an HTML page, and text for a terminal."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tunesmith.console import printable
from tunesmith.reporting import page, terminal, word_marks
from tunesmith.reporting.format import quantity, share
from tunesmith.reporting.header import Header
from tunesmith.types import Explanation

SHOWN = 10
"""Rows of a table of the strongest words, or n-grams."""
FOR, AGAINST, BOLD, PLAIN = "\033[34m", "\033[31m", "\033[1m", "\033[0m"
"""Terminal colours of words that speak for a label and against it, of strong words, and the way back."""
STRONG, WEAK = 0.5, 0.25
"""Shares of the strongest contribution from which a word is bold, and from which it is marked without colours."""
SEEN = 0.0005
"""A gap that is worth showing."""
SCORES = {
    "exact": ("logit", "bias"),
    "integrated-gradients": ("log-odds", "without words"),
    "occlusion": ("log-odds", ""),
}
"""Method -> what its score is called, and the score without any word."""
METHODS = {
    "exact": "exact: value times weight of each n-gram, divided among its words",
    "integrated-gradients": "integrated gradients, beginning with a text of masks",
    "occlusion": "occlusion: the difference that leaving the word out makes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationReport(Header):
    """A page of explanations. Its title is the run's name."""

    description: str
    """Of what predicts."""
    explanations: tuple[Explanation, ...]


def html(report: ExplanationReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    used = {explanation.method for explanation in report.explanations}
    return page.render(
        "explanations.html.j2",
        report=report,
        methods=[METHODS[name] for name in METHODS if name in used],
        heading=heading,
        sum_of=sum_of,
        tables=tables,
    )


def text(explanation: Explanation, *, colours: bool = False) -> str:
    """Return an explanation as printable text. Without colours the contributions of strong words follow them."""
    lines = [f"{printable(explanation.id)}: {printable(heading(explanation))}", printable(sum_of(explanation))]
    for number, content in enumerate(filter(None, (explanation.text, explanation.text_pair))):
        lines += ["", "".join(_marked(content, explanation, bool(number), colours))]
    drawn = [printable(terminal.drawn(head, rows)) for head, rows in tables(explanation) if rows]
    return "\n".join([*lines, *drawn])


def _marked(content: str, explanation: Explanation, second: bool, colours: bool) -> list[str]:
    parts = []
    for piece, contribution, part in word_marks.pieces(content, explanation.words, second):
        piece = printable(piece)
        if colours and part:
            piece = f"{BOLD if abs(part) >= STRONG else ''}{FOR if part > 0 else AGAINST}{piece}{PLAIN}"
        elif abs(part) >= WEAK:
            piece = f"{piece}[{contribution:+.3g}]"
        parts.append(piece)
    return parts


def heading(explanation: Explanation) -> str:
    """Return what is predicted, and which label is explained where that is another."""
    predicted = explanation.predicted
    if explanation.label is None or explanation.probability is None or isinstance(predicted, float):
        return f"predicted: {quantity(float(str(predicted)))}"
    label = f"{explanation.label} {share(explanation.probability)}"
    if predicted == explanation.label:
        return f"predicted: {label}"
    names = predicted if isinstance(predicted, str) else ", ".join(predicted)
    return f"explained: {label}; predicted: {names or 'no label'}"


def sum_of(explanation: Explanation) -> str:
    """Return the score that the words add to, as a sum where it is one."""
    score, baseline = SCORES[explanation.method]
    score = f"{'value' if explanation.label is None else score} {quantity(explanation.score)}"
    if explanation.baseline is None or explanation.gap is None:
        return f"{score}; of each word, by how much less it is without the word"
    words = explanation.score - explanation.baseline - explanation.gap
    gap = f" (gap {quantity(abs(explanation.gap))})" if abs(explanation.gap) >= SEEN else ""
    sign = "−" if words < 0 else "+"
    return f"{score} = {baseline} {quantity(explanation.baseline)} {sign} words {quantity(abs(words))}{gap}"


def tables(explanation: Explanation) -> list[tuple[list[str], list[list[str]]]]:
    """Return the head and the rows of tables: the strongest words, and of a bag of words the strongest n-grams."""
    places: defaultdict[str, list[float]] = defaultdict(list)
    for word in explanation.words:
        places[_named(word.word.lower(), word.second)].append(word.contribution)
    sums = sorted(((name, len(each), sum(each)) for name, each in places.items()), key=lambda row: -abs(row[2]))
    words = [[name, f"{count:,}", signed(contribution)] for name, count, contribution in sums[:SHOWN] if contribution]
    shown = [(["word", "count", "contribution"], words)]
    if explanation.ngrams is not None:
        ngrams = [
            [
                _named(repr(ngram.ngram) if ngram.characters else ngram.ngram, ngram.second),
                f"{ngram.count:,}",
                quantity(ngram.value),
                signed(ngram.weight),
                signed(ngram.contribution),
            ]
            for ngram in explanation.ngrams[:SHOWN]
        ]
        shown.append((["n-gram", "count", "value", "weight", "contribution"], ngrams))
    return shown


def signed(value: float) -> str:
    """Return a contribution with its sign: +1.234, −0.05678."""
    return f"+{quantity(value)}" if value > 0 else quantity(value)


def _named(name: str, second: bool | None) -> str:
    return f"{name} (second text)" if second else name
