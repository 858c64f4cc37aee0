"""The report on models that answer instructions: a page and its Markdown twin. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from tunesmith.evaluation.responses import SHARES
from tunesmith.reporting import format, judge_report, page
from tunesmith.reporting.format import NAMES, NOTHING, chance, directed, estimate, signed_estimate
from tunesmith.reporting.markdown import code, cost_table, data_parts, plain, quote, sign, table
from tunesmith.reporting.schema import GenerationReport, GenerationResult
from tunesmith.types import DataSummary

STEPS = 6
"""Of more evaluations than this the page shows the answers of some, the first and the last among them."""


def html(report: GenerationReport) -> str:
    """One self-contained page, without scripts and without any request to the outside."""
    template = "answers.html.j2" if report.task == "instruction" else "answers.files.html.j2"
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
        "seen": [row["id"] for group in report.shown for row in group["rows"]],
        "most_steps": STEPS,
    }
    return page.render(template, report=report, **given, **_axes(report))


def markdown(report: GenerationReport) -> str:
    """The tables that matter and a few answers, for a terminal, a pull request or an issue."""
    methods = report.methods
    parts = [f"# {plain(report.title)}", f"**{plain(report.verdict)}**", "## Scores", figure_table(report)]
    if report.task == "instruction":
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


def spread(samples: Sequence[Mapping[str, Any]], best_step: int | None) -> list[Mapping[str, Any]]:
    """At most STEPS of the answers to one prompt, evenly spread over the evaluations, the best step's among them."""
    last = len(samples) - 1
    places = range(len(samples)) if last < STEPS else [round(n * last / (STEPS - 1)) for n in range(STEPS)]
    best = next((place for place, one in enumerate(samples) if one["step"] == best_step), None)
    if best is not None and best not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - best))
        places = [best if place == nearest else place for place in places]
    return [samples[place] for place in places]


def figure_table(report: GenerationReport) -> str:
    """Every figure of every model, and of two models their difference, for Markdown."""
    methods, pairs = report.methods, report.pairs
    one = pairs[0] if len(pairs) == 1 else None
    head = [f"{methods[0].scores['answered']:,} answers", *(plain(method.name) for method in methods)]
    rows = []
    for name in format.shown(method.scores for method in methods):
        found = [estimate(name, method.scores["headline"].get(name)) for method in methods]
        tested = [format.difference(name, one, _scores(report)), format.probability(name, one)] if one else []
        rows.append([directed(name), *found, *tested])
    return table([*head, *([f"{plain(one['a'])} − {plain(one['b'])}", "p"] if one else [])], rows)


def _scores(report: GenerationReport) -> dict[str, Any]:
    """The scores of each model by its name."""
    return {method.name: method.scores for method in report.methods}


def _axes(report: GenerationReport) -> dict[str, Any]:
    from tunesmith.reporting import charts

    decides, closeness = report.compared["decided_by"], report.compared["closeness"]
    strips = ("loss", "ended") if report.task == "instruction" else (closeness, "answer_only")
    others = [name for name in ("rougeL", "chrf", "exact_match", "answer_only", "empty") if name not in strips]
    found = [method.scores["headline"] for method in report.methods]
    ends = {name: [head[name][end] for head in found if name in head for end in ("low", "high")] for name in strips}
    least = {name: 4 if name == "chrf" else 0.04 for name in strips}
    gaps = [_deciding(pair, decides)[end] for pair in report.pairs for end in ("low", "high")]
    return {
        "strips": strips,
        "columns": others[:4],
        "decides": decides,
        "gap_name": f"Loss per {report.compared['unit']}" if decides == "loss" else NAMES[decides],
        "pictures": charts.laid_over(report.methods),
        "axes": {name: charts.axis(ends[name], steps=3, least=least[name], low=0, high=_most(name)) for name in strips},
        "gap_axis": charts.axis([0.0, *gaps], steps=3, least=0.02),
    }


def _most(name: str) -> float:
    return inf if name == "loss" else 100 if name == "chrf" else 1


def _deciding(pair: Mapping[str, Any], decides: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pair["loss_difference"] if decides == "loss" else pair["differences"][decides]
    return found


# Markdown.


def _pair_table(report: GenerationReport) -> str:
    decides = report.compared["decided_by"]
    head = ["Pair", f"{NAMES[decides]} difference", "p", "p (Holm)", "Exact match: p (Holm)", "Told apart"]
    return table(head, [_pair_row(pair, decides) for pair in report.pairs])


def _pair_row(pair: Mapping[str, Any], decides: str) -> list[str]:
    found = _deciding(pair, decides)
    return [
        f"{plain(pair['a'])} − {plain(pair['b'])}",
        signed_estimate(decides, found),
        chance(found["p"]),
        chance(found["p_holm"]),
        chance(pair["exact_match"]["p_holm"]) if pair["exact_match"]["rows"] else NOTHING,
        "yes" if pair["distinguishable"] else "no",
    ]


def _flaw_table(methods: Sequence[GenerationResult]) -> str:
    found = [method.scores["flaws"] for method in methods]
    rows = (
        [name.capitalize(), *(f"{one[name]['count']:,}" if name in one else NOTHING for one in found)]
        for name in format.flaws(method.scores for method in methods)
    )
    return table(["Flaw of form", *(plain(method.name) for method in methods)], rows)


def _quotations(group: Mapping[str, Any]) -> list[str]:
    return [f"{group['title']}:", *(_quotation(row) for row in group["rows"])]


def _quotation(row: Mapping[str, Any]) -> str:
    lines = [f"- {code(row['id'])} {quote(row['prompt'])}", f"  - reference: {quote(row['reference'])}"]
    lines += [f"  - {plain(answer['name'])}: {quote(answer['response'])}" for answer in row["answers"]]
    return "\n".join(lines)
