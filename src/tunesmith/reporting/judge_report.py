"""The report on what judges decided: an HTML page, its Markdown twin, and one or two sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.evaluation.correlation import NAMES
from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.judge_scores import JudgeAgreement, ScoreDifference
from tunesmith.reporting import page
from tunesmith.reporting.format import NOTHING, chance, counted, level, metric, p_value, points, share
from tunesmith.reporting.judge_schema import JudgePairReport, JudgeScoreReport
from tunesmith.reporting.markdown import plain, quote, sign, table

Report = JudgeScoreReport | JudgePairReport
NO_VERDICTS = "Nothing was judged."
CONTROLS = {
    "empty": "an empty answer",
    "sure": "“Sure!”",
    "shuffled": "another row's reference",
    "reference": "the reference itself",
}


@dataclass(frozen=True)
class JudgeSection:
    """What `judge_section.html.j2` shows: the body of judge.html, and a section of a run's own report."""

    report: Report
    headline: str
    reliability: str
    control_names: Mapping[str, str]


def html(report: Report) -> str:
    """Return the report as one self-contained page."""
    return page.render("judge.html.j2", report=report, judge=section(report))


def section(report: Report) -> JudgeSection:
    """Return what the templates show of a report."""
    return JudgeSection(report, headline(report), reliability(report), CONTROLS)


def markdown(report: Report) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    missing, costs = report.unscored, report.costs
    parts = [f"# Judged: {plain(report.title)}", f"**{plain(headline(report))}**"]
    parts += _score_parts(report) if isinstance(report, JudgeScoreReport) else _pair_parts(report)
    parts += ["## Can the judge be trusted?", reliability(report)]
    if report.reliability.controls:
        head = ["Control", "Mean score", "Interval", "Judged wrongly", "Unscored"]
        rows = []
        for control in report.reliability.controls:
            mean = mean_cells(control.mean) if control.mean else [NOTHING, NOTHING]
            wrong = f"{control.wrong:,} of {control.verdicts:,}"
            rows.append([CONTROLS[control.control], *mean, wrong, f"{control.unscored:,}"])
        parts.append(table(head, rows))
    reasons = "".join(f"\n- {plain(reason)}: {count:,}" for reason, count in missing.reasons.items())
    counts = f"{missing.count:,} of {missing.verdicts:,} verdicts on answers ({share(missing.share)})"
    parts.append(f"Unscored: {counts}.{reasons}")
    for name, prompts in report.shown.items():
        if prompts:
            parts += [f"## {name.capitalize()} answers"]
        for prompt in prompts:
            lines = [f"- {quote(prompt.prompt)}"]
            if prompt.reference:
                lines.append(f"  - reference: {quote(prompt.reference)}")
            lines += [f"  - {plain(a.name)} ({points(a.score)}): {quote(a.response)}" for a in prompt.answers]
            parts.append("\n".join(lines))
    price = f", price {costs.price:.4f}" if costs.price is not None else ""
    requests = f"{counted(costs.questions, 'question')} in {counted(costs.tries, 'request')}"
    tokens = f"{counted(costs.read, 'prompt token')} and {counted(costs.written, 'completion token')}"
    return "\n\n".join([*parts, "## Costs", f"{requests}, {tokens}{price}.", sign(report)]) + "\n"


def headline(report: Report) -> str:
    """Return the result in one or two sentences; that a judge cannot be trusted comes first."""
    missing, verdict = report.unscored, report.reliability
    warning = f"The judge cannot be trusted: {'; '.join(verdict.reasons)}. " if verdict.trusted is False else ""
    if missing.withheld:
        return (
            f"{warning}No headline: {missing.count:,} of {missing.verdicts:,} verdicts ({share(missing.share)}) "
            f"are unscored, more than {share(missing.limit)}."
        )
    lines = []
    if isinstance(report, JudgeScoreReport):
        means = {model.name: model.headline for model in report.models if model.headline}
        if means:
            scores = ", ".join(f"{name} {points(mean.value)} {_interval(mean)}" for name, mean in means.items())
            most = counted(max(model.scored for model in report.models), "answer")
            gives = "gives" if len(report.judges) == 1 else "give"
            lines.append(f"{_judges(report)} {gives} {scores} of 100 points on {most}.")
        for difference in report.pairs:
            a, b = difference.a, difference.b
            if difference.distinguishable:
                above, below = (a, b) if difference.value > 0 else (b, a)
                lines.append(f"{above} is rated above {below} by {points(abs(difference.value))} points.")
            else:
                lines.append(f"{a} and {b} are not significantly different ({p_value(difference.p_holm)}).")
        return warning + (" ".join(lines) or NO_VERDICTS)
    for pair in report.pairs:
        if pair.rate:
            equal = "" if pair.distinguishable else f"; they are not significantly different ({p_value(pair.p_holm)})"
            lines.append(
                f"{pair.a} wins {share(pair.rate.value)} against {pair.b}, ties counted half, in "
                f"{counted(pair.decided, 'pair')}{equal}."
            )
    return warning + (" ".join(lines) or NO_VERDICTS)


def trusted_headline(report: Report | None) -> str:
    """Return the headline where the judge passed its controls and the means are not withheld; else nothing."""
    if report is None or not report.reliability.trusted or report.unscored.withheld:
        return ""
    judges = f" ({_judges(report)})" if isinstance(report, JudgePairReport) else ""
    return f"By a judge{judges}: {headline(report)}"


def reliability(report: Report) -> str:
    """Return what the controls show, in words."""
    verdict = report.reliability
    if verdict.trusted is None:
        return "Unknown: testing the judge needs both nonsense and reference answers."
    if not verdict.trusted:
        return f"No: {'; '.join(verdict.reasons)}."
    if isinstance(report, JudgePairReport):
        return "No evidence against it: it preferred references to nonsense."
    return "No evidence against it: it scored nonsense low and references high."


def mean_cells(mean: Estimate | None) -> list[str]:
    """Return the cells of a mean and its interval."""
    return [points(mean.value), _interval(mean)] if mean else ["withheld", NOTHING]


def agreement_table(pairs: Sequence[JudgeAgreement]) -> str:
    """Return the correlations of each two judges as a table."""
    rows = []
    for pair in pairs:
        cells = [_correlation(getattr(pair, name)) for name in NAMES]
        rows.append([f"{plain(pair.a)} and {plain(pair.b)}", f"{pair.rows:,}", *cells])
    return table(["Judges", "Rows", *NAMES.values()], rows)


def _score_parts(report: JudgeScoreReport) -> list[str]:
    """Return the Markdown tables of scores, differences and agreement."""
    interval = f"{level(report.confidence)} interval"
    head = ["Model", "Mean score", interval, "Median", "Scored", "Rows", "Spread", "Score and length"]
    rows = []
    for model in report.models:
        counts = [points(model.median), f"{model.scored:,}", f"{model.rows:,}", points(model.spread)]
        rows.append([plain(model.name), *mean_cells(model.headline), *counts, _correlation(model.length.spearman)])
        for turn, mean in model.turns.items():
            rows.append([f"{plain(model.name)}, turn {turn}", *mean_cells(mean), *[""] * 5])
    parts = ["## Scores", table(head, rows)]
    if report.pairs:
        head, rows = ["Pair", "Difference", "p", "p (Holm)", "Higher", "Lower", "Rows"], []
        for pair in report.pairs:
            tested = [f"{points(pair.value)} {_interval(pair)}", chance(pair.p), chance(pair.p_holm)]
            counts = [f"{count:,}" for count in (pair.higher, pair.lower, pair.rows)]
            rows.append([f"{plain(pair.a)} − {plain(pair.b)}", *tested, *counts])
        parts += ["## Differences", table(head, rows)]
    if report.agreement:
        parts += ["## Agreement between judges", agreement_table(report.agreement)]
    return parts


def _pair_parts(report: JudgePairReport) -> list[str]:
    """Return the Markdown table of pairs, and what the order of two answers does."""
    rows = []
    for pair in report.pairs:
        rate = pair.rate
        cell = f"{share(rate.value)} [{share(rate.low)}, {share(rate.high)}]" if rate else "withheld"
        counts = (f"{count:,}" for count in (pair.wins, pair.losses, pair.ties))
        rows.append([f"{plain(pair.a)} and {plain(pair.b)}", *counts, cell, chance(pair.p_holm)])
    head = ["Pair", "Won by the first", "By the second", "Ties", "Rate of the first", "p (Holm)"]
    bias = report.position
    order = f"The answer shown first won {bias.first:,} times, the second {bias.second:,} times"
    order += f" ({share(bias.first_share.value)} for the first, {p_value(bias.p)})." if bias.first_share else "."
    if bias.consistent:
        order += f" Both orders gave the same verdict in {share(bias.consistent.value)} of pairs."
    return ["## Pairs", table(head, rows), order]


def _judges(report: Report) -> str:
    return " and ".join(judge.name for judge in report.judges)


def _interval(estimate: Estimate | ScoreDifference) -> str:
    return f"[{points(estimate.low)}, {points(estimate.high)}]"


def _correlation(estimate: Estimate | None) -> str:
    return f"{metric(estimate.value)} [{metric(estimate.low)}, {metric(estimate.high)}]" if estimate else NOTHING
