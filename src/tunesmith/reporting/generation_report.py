"""The report on models that answer instructions: a page and its Markdown twin. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from tunesmith.evaluation.responses import SHARES, GenerationScores
from tunesmith.reporting import clean_report, curve_report, format, judge_report, page, price_report
from tunesmith.reporting.format import NAMES, NOTHING, chance, signed_estimate
from tunesmith.reporting.markdown import code, cost_table, data_parts, differing_tables, plain, quote, sign, table
from tunesmith.reporting.schema import GenerationReport, StepResponse
from tunesmith.types import DataSummary

STEPS = 6
"""Of more evaluations than this the page shows the answers of some, the first and the last among them."""


def html(report: GenerationReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    from tunesmith.reporting import charts

    decides, closeness = report.compared.decided_by, report.compared.closeness
    strips = (closeness, "answer_only") if report.is_of_files else ("loss", "ended")
    others = [name for name in ("rougeL", "chrf", "exact_match", "answer_only", "empty") if name not in strips]
    scores = _scores(report)
    axes = {}
    for name in strips:
        estimates = [model.headline[name] for model in scores.values() if name in model.headline]
        ends = [end for known in estimates for end in (known.low, known.high)]
        high = inf if name == "loss" else 100 if name == "chrf" else 1
        axes[name] = charts.axis(ends, steps=3, least=4 if name == "chrf" else 0.04, low=0, high=high)
    differences = [pair.difference(decides) for pair in report.pairs]
    gaps = [end for known in differences if known for end in (known.low, known.high)]
    return page.render(
        "answers.files.html.j2" if report.is_of_files else "answers.html.j2",
        report=report,
        better=format.better,
        difference=format.difference,
        directed=format.directed,
        figure=format.figure,
        interval=format.interval,
        probability=format.probability,
        signed=format.signed_figure,
        shares=SHARES,
        shown_figures=format.shown(scores.values()),
        short_answers_note=format.short_answers_note(scores.values()),
        scores=scores,
        flaws=format.flaws(scores.values()),
        spread=spread,
        judge_report=judge_report.section,
        clean_report=clean_report,
        seen=[row.id for group in report.shown for row in group.rows],
        most_steps=STEPS,
        strips=strips,
        columns=others[:4],
        decides=decides,
        gap_name=f"Loss per {report.compared.unit}" if decides == "loss" else NAMES[decides],
        pictures=charts.laid_over([m.curve for m in report.methods], [m.validation for m in report.methods]),
        axes=axes,
        gap_axis=charts.axis([0.0, *gaps], steps=3, least=0.02),
    )


def markdown(report: GenerationReport) -> str:
    """Return the tables that matter and a few answers, for a terminal, a pull request or an issue."""
    methods, decides = report.methods, report.compared.decided_by
    parts = [f"# {plain(report.title)}", f"**{plain(report.verdict)}**", "## Scores", figure_table(report)]
    parts += filter(None, [format.short_answers_note(method.scores for method in methods)])
    parts += clean_report.markdown(report.methods, (decides, report.compared.closeness))
    if not report.is_of_files:
        parts += ["## Costs", cost_table(methods, "answers")]
    parts += [*differing_tables(report), *price_report.markdown(report), *curve_report.markdown(report)]
    if report.pairs:
        head = ["Pair", f"{NAMES[decides]} difference", "p", "p (Holm)", "Exact match: p (Holm)", "Significant"]
        rows = []
        for pair in report.pairs:
            test = pair.difference(decides)
            tested = [signed_estimate(decides, test), chance(test.p), chance(test.p_holm)] if test else [NOTHING] * 3
            apart = [format.probability("exact_match", pair), "yes" if pair.distinguishable else "no"]
            rows.append([f"{plain(pair.a)} − {plain(pair.b)}", *tested, *apart])
        parts += ["## Pairs", table(head, rows)]
    if report.shown:
        group = report.shown[-1]
        parts += ["## Answers", f"{group.title}:"]
        for row in group.rows:
            lines = [f"- {code(row.id)} {quote(row.prompt)}", f"  - reference: {quote(row.reference or '')}"]
            lines += [f"  - {plain(answer.name)}: {quote(answer.response or '')}" for answer in row.answers]
            parts.append("\n".join(lines))
    for method in methods:
        if method.judged:
            parts += [f"## A judge of {plain(method.name)}", plain(judge_report.headline(method.judged))]
    flaws = []
    for name in format.flaws(method.scores for method in methods):
        known = [method.scores.flaws.get(name) for method in methods]
        flaws.append([name.capitalize(), *(f"{flaw.count:,}" if flaw else NOTHING for flaw in known)])
    parts += ["## Form", table(["Flaw of form", *(plain(method.name) for method in methods)], flaws)]
    if isinstance(report.data, DataSummary):
        parts += ["## Data", *data_parts(report.data)]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def spread(samples: Sequence[StepResponse], best_step: int | None) -> list[StepResponse]:
    """Return at most STEPS answers to a prompt, evenly spread over the evaluations, the best step's among them."""
    last = len(samples) - 1
    places = range(len(samples)) if last < STEPS else [round(n * last / (STEPS - 1)) for n in range(STEPS)]
    best = next((place for place, sample in enumerate(samples) if sample.step == best_step), None)
    if best is not None and best not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - best))
        places = [best if place == nearest else place for place in places]
    return [samples[place] for place in places]


def figure_table(report: GenerationReport) -> str:
    """Return every figure of every model, and of two models their difference, for Markdown."""
    head, *rows = format.figure_rows(_scores(report), report.pairs)
    return table(list(map(plain, head)), rows)


def _scores(report: GenerationReport) -> dict[str, GenerationScores]:
    """Return the scores of each model by its name."""
    return {method.name: method.scores for method in report.methods}
