"""The report on what judges decided: an HTML page, its Markdown twin, and one or two sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.evaluation.correlation import NAMES
from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.judge_pairs import PairWins, PositionBias
from tunesmith.evaluation.judge_scores import ControlResult, JudgeAgreement, ScoreDifference, Unscored
from tunesmith.reporting import page
from tunesmith.reporting.format import NOTHING, chance, level, metric, points, share
from tunesmith.reporting.markdown import plain, quote, sign, table
from tunesmith.reporting.schema import JudgeCosts, JudgePairReport, JudgeScoreReport, ScoredPrompt

Report = JudgeScoreReport | JudgePairReport
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
    parts = [f"# Judged: {plain(report.title)}", f"**{plain(headline(report))}**"]
    if isinstance(report, JudgeScoreReport):
        parts += ["## Scores", _score_table(report)]
        if report.pairs:
            parts += ["## Differences", _difference_table(report.pairs)]
        if report.agreement:
            parts += ["## Agreement between judges", agreement_table(report.agreement)]
    else:
        parts += ["## Pairs", _pair_table(report.pairs), _position(report.position)]
    parts += ["## Can the judge be trusted?", reliability(report)]
    if report.reliability.controls:
        parts.append(_control_table(report.reliability.controls))
    parts.append(_unscored(report.unscored))
    for name, prompts in report.shown.items():
        if prompts:
            parts += [f"## {name.capitalize()} answers", *(_quotation(prompt) for prompt in prompts)]
    return "\n\n".join([*parts, "## Costs", _costs(report.costs), sign(report)]) + "\n"


def headline(report: Report) -> str:
    """Return the result in one or two sentences; that a judge cannot be trusted comes first."""
    missing, found = report.unscored, report.reliability
    warning = f"The judge cannot be trusted: {'; '.join(found.reasons)}. " if found.trusted is False else ""
    if missing.withheld:
        return (
            f"{warning}No headline: {missing.count:,} of {missing.verdicts:,} verdicts ({share(missing.share)}) "
            f"are unscored, more than {share(missing.limit)}."
        )
    lines = _score_sentences(report) if isinstance(report, JudgeScoreReport) else _pair_sentences(report)
    return warning + " ".join(lines or ["Nothing was judged."])


def trusted_headline(report: Report | None) -> str:
    """Return the headline where the judge passed its controls and the means are not withheld; else nothing."""
    if report is None or not report.reliability.trusted or report.unscored.withheld:
        return ""
    judges = f" ({_judges(report)})" if isinstance(report, JudgePairReport) else ""
    return f"By a judge{judges}: {headline(report)}"


def reliability(report: Report) -> str:
    """Return what the controls show, in words."""
    found = report.reliability
    if found.trusted is None:
        return "Unknown: testing the judge needs both nonsense and reference answers."
    if not found.trusted:
        return f"No: {'; '.join(found.reasons)}."
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


def _score_sentences(report: JudgeScoreReport) -> list[str]:
    means = {model.name: model.headline for model in report.models if model.headline}
    if not means:
        return []
    scores = ", ".join(f"{name} {points(mean.value)} {_interval(mean)}" for name, mean in means.items())
    most = max(model.scored for model in report.models)
    gives = "gives" if len(report.judges) == 1 else "give"
    lines = [f"{_judges(report)} {gives} {scores} of 100 points on {most:,} answers."]
    for pair in report.pairs:
        if pair.distinguishable:
            above, below = (pair.a, pair.b) if pair.value > 0 else (pair.b, pair.a)
            lines.append(f"{above} is rated above {below} by {points(abs(pair.value))} points.")
        else:
            lines.append(f"{pair.a} and {pair.b} are not significantly different (p {_p(pair.p_holm)}).")
    return lines


def _pair_sentences(report: JudgePairReport) -> list[str]:
    lines = []
    for pair in report.pairs:
        if pair.rate:
            equal = "" if pair.distinguishable else f"; they are not significantly different (p {_p(pair.p_holm)})"
            lines.append(
                f"{pair.a} wins {share(pair.rate.value)} against {pair.b}, ties counted half, in "
                f"{pair.decided:,} pairs{equal}."
            )
    return lines


def _judges(report: Report) -> str:
    return " and ".join(judge["name"] for judge in report.judges)


def _p(value: float | None) -> str:
    text = chance(value)
    return text if text.startswith("<") else f"= {text}"


def _interval(estimate: Estimate | ScoreDifference) -> str:
    return f"[{points(estimate.low)}, {points(estimate.high)}]"


def _correlation(estimate: Estimate | None) -> str:
    return f"{metric(estimate.value)} [{metric(estimate.low)}, {metric(estimate.high)}]" if estimate else NOTHING


def _score_table(report: JudgeScoreReport) -> str:
    interval = f"{level(report.confidence)} interval"
    head = ["Model", "Mean score", interval, "Median", "Scored", "Rows", "Spread", "Score and length"]
    rows = []
    for model in report.models:
        counts = [points(model.median), f"{model.scored:,}", f"{model.rows:,}", points(model.spread)]
        rows.append([plain(model.name), *mean_cells(model.headline), *counts, _correlation(model.length.spearman)])
        for turn, mean in model.turns.items():
            rows.append([f"{plain(model.name)}, turn {turn}", *mean_cells(mean), *[""] * 5])
    return table(head, rows)


def _difference_table(pairs: Sequence[ScoreDifference]) -> str:
    rows = (
        [
            f"{plain(pair.a)} − {plain(pair.b)}",
            f"{points(pair.value)} {_interval(pair)}",
            chance(pair.p),
            chance(pair.p_holm),
            *(f"{count:,}" for count in (pair.higher, pair.lower, pair.rows)),
        ]
        for pair in pairs
    )
    return table(["Pair", "Difference", "p", "p (Holm)", "Higher", "Lower", "Rows"], rows)


def _pair_table(pairs: Sequence[PairWins]) -> str:
    head = ["Pair", "Won by the first", "By the second", "Ties", "Rate of the first", "p (Holm)"]
    rows = []
    for pair in pairs:
        rate = pair.rate
        cell = f"{share(rate.value)} [{share(rate.low)}, {share(rate.high)}]" if rate else "withheld"
        counts = (f"{count:,}" for count in (pair.wins, pair.losses, pair.ties))
        rows.append([f"{plain(pair.a)} and {plain(pair.b)}", *counts, cell, chance(pair.p_holm)])
    return table(head, rows)


def _position(bias: PositionBias) -> str:
    text = f"The answer shown first won {bias.first:,} times, the second {bias.second:,} times"
    text += f" ({share(bias.first_share.value)} for the first, p {_p(bias.p)})." if bias.first_share else "."
    if bias.consistent:
        text += f" Both orders gave the same verdict in {share(bias.consistent.value)} of pairs."
    return text


def _control_table(controls: Sequence[ControlResult]) -> str:
    rows = [
        [
            CONTROLS[control.control],
            *(mean_cells(control.mean) if control.mean else [NOTHING, NOTHING]),
            f"{control.wrong:,} of {control.verdicts:,}",
            f"{control.unscored:,}",
        ]
        for control in controls
    ]
    return table(["Control", "Mean score", "Interval", "Judged wrongly", "Unscored"], rows)


def _unscored(missing: Unscored) -> str:
    reasons = "".join(f"\n- {plain(reason)}: {count:,}" for reason, count in missing.reasons.items())
    counts = f"{missing.count:,} of {missing.verdicts:,} verdicts on answers ({share(missing.share)})"
    return f"Unscored: {counts}.{reasons}"


def _costs(costs: JudgeCosts) -> str:
    price = f", price {costs.price:.4f}" if costs.price is not None else ""
    return (
        f"{costs.questions:,} questions in {costs.tries:,} requests, {costs.read:,} prompt tokens and "
        f"{costs.written:,} completion tokens{price}."
    )


def _quotation(prompt: ScoredPrompt) -> str:
    lines = [f"- {quote(prompt.prompt)}"]
    if prompt.reference:
        lines.append(f"  - reference: {quote(prompt.reference)}")
    answers = (f"  - {plain(a.name)} ({points(a.score)}): {quote(a.response)}" for a in prompt.answers)
    return "\n".join([*lines, *answers])
