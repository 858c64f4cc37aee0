"""What the reports on runs of one deciding metric share: an HTML page and its Markdown twin. Pure functions, no files.

`regression_report` and `multilabel_report` add what their tasks show of each method.
"""

from __future__ import annotations

from typing import Any

from tunesmith.reporting import clean_report, curve_report, page, prediction_notes, price_report, slice_report
from tunesmith.reporting.format import chance, columns, directed, estimate, figure, signed_estimate
from tunesmith.reporting.markdown import cost_table, data_parts, differing_tables, plain, sign, table
from tunesmith.reporting.schema import MultilabelReport, RegressionReport

MetricReport = MultilabelReport | RegressionReport


def html(
    report: MetricReport,
    template: str,
    shown: tuple[str, str],
    least: tuple[float, float] = (1e-6, 0.04),
    **values: Any,
) -> str:
    """Return one self-contained page, without scripts and without any request to the outside.

    shown: the metrics of the first table; tests decide by the first. least: the smallest width of their axes.
    values: what the template shows besides.
    """
    from tunesmith.reporting import charts

    def axis(name: str, width: float) -> charts.Axis:
        known = [method.scores.headline[name] for method in report.methods]
        return charts.axis([end for e in known for end in (e.low, e.high)], least=width)

    gaps = [pair.differences[shown[0]] for pair in report.pairs]
    curves = [method.curve for method in report.methods]
    return page.render(
        template,
        report=report,
        shown=shown,
        columns=columns(method.scores.headline for method in report.methods),
        pictures=charts.laid_over(curves, [method.validation for method in report.methods])
        if len(list(filter(None, curves))) > 1
        else [],
        axes={name: axis(name, width) for name, width in zip(shown, least, strict=True)},
        slice_report=slice_report,
        clean_report=clean_report,
        gap_axis=charts.axis([0.0, *(end for gap in gaps for end in (gap.low, gap.high))]),
        **values,
    )


def markdown(report: MetricReport, deciding: str, baseline: str = "", details: list[str] | None = None) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue.

    baseline: a sentence on what a rule without a model would reach. details: paragraphs on a single method.
    """
    metrics = columns(m.scores.headline for m in report.methods)
    scores = (
        [plain(m.name), *(estimate(name, m.scores.headline.get(name)) for name in metrics)] for m in report.methods
    )
    by_split = [
        [
            plain(m.name),
            *(figure(deciding, known[deciding] if known else None) for known in (m.train, m.validation)),
            figure(deciding, m.scores.headline[deciding].value),
        ]
        for m in report.methods
        if m.train
    ]
    parts = [
        f"# {plain(report.title)}",
        f"**{plain(report.verdict)}**",
        f"## {'Comparison' if len(report.methods) > 1 else 'Scores and costs'}",
        table(["Method", *map(directed, metrics)], scores),
        *map(plain, prediction_notes.sentences(report.methods)),
        *clean_report.markdown(report.methods),
        *([baseline] if baseline else []),
        *([table([directed(deciding), "Train", "Validation", "Test"], by_split)] if by_split else []),
        cost_table(report.methods),
        *differing_tables(report),
        *price_report.markdown(report),
        *curve_report.markdown(report),
    ]
    if report.pairs:
        tested = list(report.pairs[0].differences)
        head = ["Pair", *(f"{directed(name)} difference" for name in tested), "p", "p (Holm)", "Significant"]
        pairs = (
            [
                f"{plain(pair.a)} − {plain(pair.b)}",
                *(signed_estimate(name, pair.differences[name]) for name in tested),
                chance(pair.differences[deciding].p),
                chance(pair.differences[deciding].p_holm),
                "yes" if pair.distinguishable else "no",
            ]
            for pair in report.pairs
        )
        parts += ["## Pairs", table(head, pairs), f"p is that of {directed(deciding)}."]
    parts += slice_report.markdown(report.methods)
    return "\n\n".join([*parts, *(details or []), "## Data", *data_parts(report.data), sign(report)]) + "\n"
