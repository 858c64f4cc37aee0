"""The report on models that answer instructions: a page and its Markdown twin. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from tunesmith.evaluation.responses import SHARES, GenerationScores
from tunesmith.reporting import format, judge_report, page
from tunesmith.reporting.format import NAMES, NOTHING, chance, directed, estimate, signed_estimate
from tunesmith.reporting.markdown import code, cost_table, data_parts, plain, quote, sign, table
from tunesmith.reporting.schema import GenerationReport, GenerationResult, SampleGroup, StepResponse
from tunesmith.types import DataSummary

STEPS = 6
"""Of more evaluations than this the page shows the answers of some, the first and the last among them."""


def html(report: GenerationReport) -> str:
    """One self-contained page, without scripts and without any request to the outside."""
    template = "answers.files.html.j2" if report.is_of_files else "answers.html.j2"
    given: dict[str, Any] = {
        **{name: getattr(format, name) for name in ("better", "difference", "directed", "figure", "interval")},
        "probability": format.probability,
        "signed": format.signed_figure,
        "shares": SHARES,
        "shown_figures": format.shown(method.scores for method in report.methods),
        "scores": _scores(report),
        "flaws": format.flaws(method.scores for method in report.methods),
        "spread": spread,
        "judge_report": judge_report.section,
        "seen": [row.id for group in report.shown for row in group.rows],
        "most_steps": STEPS,
    }
    return page.render(template, report=report, **given, **_axes(report))


def markdown(report: GenerationReport) -> str:
    """The tables that matter and a few answers, for a terminal, a pull request or an issue."""
    methods = report.methods
    parts = [f"# {plain(report.title)}", f"**{plain(report.verdict)}**", "## Scores", figure_table(report)]
    if not report.is_of_files:
        parts += ["## Costs", cost_table(methods, "answers")]
    if report.pairs:
        parts += ["## Pairs", _pair_table(report)]
    if report.shown:
        parts += ["## Answers", *_quotations(report.shown[-1])]
    for method in methods:
        if method.judged:
            parts += [f"## A judge of {plain(method.name)}", plain(judge_report.headline(method.judged))]
    parts += ["## Form", _flaw_table(methods)]
    if isinstance(report.data, DataSummary):
        parts += ["## Data", *data_parts(report.data)]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def spread(samples: Sequence[StepResponse], best_step: int | None) -> list[StepResponse]:
    """At most STEPS of the answers to one prompt, evenly spread over the evaluations, the best step's among them."""
    last = len(samples) - 1
    places = range(len(samples)) if last < STEPS else [round(n * last / (STEPS - 1)) for n in range(STEPS)]
    best = next((place for place, sample in enumerate(samples) if sample.step == best_step), None)
    if best is not None and best not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - best))
        places = [best if place == nearest else place for place in places]
    return [samples[place] for place in places]


def figure_table(report: GenerationReport) -> str:
    """Every figure of every model, and of two models their difference, for Markdown."""
    methods, pairs = report.methods, report.pairs
    pair = pairs[0] if len(pairs) == 1 else None
    head = [f"{methods[0].scores.answered:,} answers", *(plain(method.name) for method in methods)]
    rows = []
    for name in format.shown(method.scores for method in methods):
        estimates = [estimate(name, method.scores.headline.get(name)) for method in methods]
        tested = [format.difference(name, pair, _scores(report)), format.probability(name, pair)] if pair else []
        rows.append([directed(name), *estimates, *tested])
    return table([*head, *([f"{plain(pair.a)} − {plain(pair.b)}", "p"] if pair else [])], rows)


def _scores(report: GenerationReport) -> dict[str, GenerationScores]:
    """The scores of each model by its name."""
    return {method.name: method.scores for method in report.methods}


def _axes(report: GenerationReport) -> dict[str, Any]:
    from tunesmith.reporting import charts

    decides, closeness = report.compared.decided_by, report.compared.closeness
    strips = (closeness, "answer_only") if report.is_of_files else ("loss", "ended")
    others = [name for name in ("rougeL", "chrf", "exact_match", "answer_only", "empty") if name not in strips]
    headlines = [method.scores.headline for method in report.methods]
    estimates = {name: [headline[name] for headline in headlines if name in headline] for name in strips}
    ends = {name: [end for known in of_one for end in (known.low, known.high)] for name, of_one in estimates.items()}
    least = {name: 4 if name == "chrf" else 0.04 for name in strips}
    differences = [pair.difference(decides) for pair in report.pairs]
    gaps = [end for known in differences if known for end in (known.low, known.high)]
    return {
        "strips": strips,
        "columns": others[:4],
        "decides": decides,
        "gap_name": f"Loss per {report.compared.unit}" if decides == "loss" else NAMES[decides],
        "pictures": charts.laid_over(report.methods),
        "axes": {name: charts.axis(ends[name], steps=3, least=least[name], low=0, high=_most(name)) for name in strips},
        "gap_axis": charts.axis([0.0, *gaps], steps=3, least=0.02),
    }


def _most(name: str) -> float:
    return inf if name == "loss" else 100 if name == "chrf" else 1


# Markdown.


def _pair_table(report: GenerationReport) -> str:
    decides = report.compared.decided_by
    head = ["Pair", f"{NAMES[decides]} difference", "p", "p (Holm)", "Exact match: p (Holm)", "Told apart"]
    rows = []
    for pair in report.pairs:
        test = pair.difference(decides)
        tested = [signed_estimate(decides, test), chance(test.p), chance(test.p_holm)] if test else [NOTHING] * 3
        exact = format.probability("exact_match", pair)
        names = f"{plain(pair.a)} − {plain(pair.b)}"
        rows.append([names, *tested, exact, "yes" if pair.distinguishable else "no"])
    return table(head, rows)


def _flaw_table(methods: Sequence[GenerationResult]) -> str:
    flaws = [method.scores.flaws for method in methods]
    rows = (
        [name.capitalize(), *(f"{of_one[name].count:,}" if name in of_one else NOTHING for of_one in flaws)]
        for name in format.flaws(method.scores for method in methods)
    )
    return table(["Flaw of form", *(plain(method.name) for method in methods)], rows)


def _quotations(group: SampleGroup) -> list[str]:
    quotations = [f"{group.title}:"]
    for row in group.rows:
        lines = [f"- {code(row.id)} {quote(row.prompt)}", f"  - reference: {quote(row.reference or '')}"]
        lines += [f"  - {plain(answer.name)}: {quote(answer.response or '')}" for answer in row.answers]
        quotations.append("\n".join(lines))
    return quotations
