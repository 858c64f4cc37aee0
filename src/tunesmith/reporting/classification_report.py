"""The report on classifiers, one or several: an HTML page and its Markdown twin. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.evaluation.metrics import ClassificationScores, Confusion
from tunesmith.reporting import (
    clean_report,
    curve_report,
    decision_report,
    page,
    prediction_notes,
    price_report,
    slice_report,
)
from tunesmith.reporting.format import (
    NAMES,
    chance,
    columns,
    directed,
    estimate,
    metric,
    percent,
    predicted,
    signed_estimate,
)
from tunesmith.reporting.markdown import cost_table, data_parts, differing_tables, plain, quote, sign, table
from tunesmith.reporting.schema import ClassificationReport
from tunesmith.types import DataSummary

FULL_MATRIX = 25
"""With more classes than this a confusion matrix cannot be read: its largest cells are listed instead."""
LISTED = 15
"""How many confusions, or classes, such a list has."""
DOMINANT = 0.8
"""With a larger share of the training rows than this in one label, tables begin with the rarest labels."""


def html(report: ClassificationReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    from tunesmith.reporting import charts

    scores = [method.scores.headline[name] for method in report.methods for name in ("accuracy", "macro_f1")]
    gaps = [gap for pair in report.pairs for gap in (pair.accuracy_difference, pair.macro_f1_difference)]
    curves = [method.curve for method in report.methods]
    validation = [method.validation for method in report.methods]
    return page.render(
        "report.html.j2",
        report=report,
        columns=columns(method.scores.headline for method in report.methods),
        full_matrix=FULL_MATRIX,
        confusions=confusions,
        weakest=weakest,
        majority=majority,
        slice_report=slice_report,
        clean_report=clean_report,
        rarest_first=rarest_first,
        dominance=dominance_sentence(report.data),
        pictures=charts.laid_over(curves, validation) if len(list(filter(None, curves))) > 1 else [],
        score_axis=charts.axis([end for s in scores for end in (s.low, s.high)], least=0.04, low=0, high=1),
        gap_axis=charts.axis([0.0, *(end for g in gaps for end in (g.low, g.high))], least=0.02, low=-1, high=1),
    )


def markdown(report: ClassificationReport) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    metrics = columns(m.scores.headline for m in report.methods)
    scores = (
        [plain(m.name), *(estimate(name, m.scores.headline.get(name)) for name in metrics)] for m in report.methods
    )
    by_split = []
    for m in report.methods:
        if m.train:
            seen = [metric(known["accuracy"] if known else None) for known in (m.train, m.validation)]
            by_split.append([plain(m.name), *seen, metric(m.scores.headline["accuracy"].value)])
    parts = [
        f"# {plain(report.title)}",
        f"**{plain(report.verdict)}**",
        f"## {'Comparison' if len(report.methods) > 1 else 'Scores and costs'}",
        table(["Method", *map(directed, metrics)], scores),
        *map(plain, prediction_notes.sentences(report.methods)),
        *clean_report.markdown(report.methods, ("accuracy", "macro_f1")),
        majority_sentence(report.data),
        *([table(["Accuracy", "Train", "Validation", "Test"], by_split)] if by_split else []),
        cost_table(report.methods),
        *differing_tables(report),
        *price_report.markdown(report),
        *curve_report.markdown(report),
    ]
    parts += _recall_parts(report)
    parts += _pair_parts(report)
    for m in report.methods:
        if m.decision and m.scores.decisions:
            parts.append(f"## Decisions of {plain(m.name)}")
            parts += [f"- {plain(line)}" for line in decision_report.lines(m.decision, m.scores.decisions)]
    parts += slice_report.markdown(report.methods)
    parts += _sample_parts(report)
    return "\n\n".join([*parts, "## Data", *data_parts(report.data), sign(report)]) + "\n"


def _pair_parts(report: ClassificationReport) -> list[str]:
    """Return the tests of every two methods: by accuracy, and by the metric that ranks them."""
    parts = []
    if report.pairs:
        head = ["Pair", "Accuracy difference", "p", "p (Holm)", "Macro F1 difference", "p", "p (Holm)", "Significant"]
        pairs = (
            [
                f"{plain(pair.a)} − {plain(pair.b)}",
                signed_estimate("accuracy", pair.accuracy_difference),
                chance(pair.mcnemar.p),
                chance(pair.mcnemar.p_holm),
                signed_estimate("macro_f1", pair.macro_f1_difference),
                chance(pair.macro_f1_difference.p),
                chance(pair.macro_f1_difference.p_holm),
                "yes" if pair.distinguishable else "no",
            ]
            for pair in report.pairs
        )
        parts += ["## Pairs", table(head, pairs)]
    if report.ranked_by and report.ranked_pairs:
        name = report.ranked_by
        tests = ((pair, pair.differences[name]) for pair in report.ranked_pairs)
        ranked = (
            [
                f"{plain(pair.a)} − {plain(pair.b)}",
                signed_estimate(name, test),
                *map(chance, (test.p, test.p_holm)),
                "yes" if pair.distinguishable else "no",
            ]
            for pair, test in tests
        )
        parts.append(table(["Pair", f"{NAMES[name]} difference", "p", "p (Holm)", "Significant"], ranked))
    return parts


def _sample_parts(report: ClassificationReport) -> list[str]:
    """Return a section of a few predictions of a single method."""
    samples = report.methods[0].sample_predictions
    if len(report.methods) > 1 or samples is None:
        return []
    parts = [f"## Sample predictions ({samples.split})"]
    for row in samples.rows:
        labels = ", ".join(plain(predicted(*each)) for each in row.labels)
        parts.append(f"- {quote(row.text)}\n  - {plain(row.gold)}, predicted: {labels}")
    return parts


def confusions(scores: ClassificationScores) -> list[Confusion]:
    """Return the most frequent mistakes, largest first."""
    if scores.confusions is not None:
        return list(scores.confusions[:LISTED])
    cells = [
        Confusion(gold, predicted, cell, cell / sum(row))
        for gold, row in zip(scores.labels, scores.confusion, strict=True)
        for predicted, cell in zip(scores.labels, row, strict=True)
        if cell and gold != predicted
    ]
    return sorted(cells, key=lambda cell: -cell.count)[:LISTED]


def weakest(scores: ClassificationScores) -> list[str]:
    """Return the labels with the lowest F1 among those that the test split has."""
    tested = [label for label in scores.labels if scores.per_class[label].support]
    return sorted(tested, key=lambda label: scores.per_class[label].f1)[:LISTED]


def dominant(data: DataSummary) -> tuple[str, float] | None:
    """Return the label with more than DOMINANT of the training rows, and its share; None without one."""
    train = data.splits.get("train")
    if not (train and train.per_label):
        return None
    label = max(train.per_label, key=train.per_label.__getitem__)
    share = train.per_label[label] / train.rows
    return (label, share) if share > DOMINANT else None


def dominance_sentence(data: DataSummary) -> str:
    """Return what a dominant label does to the scores; empty without one."""
    known = dominant(data)
    if known is None:
        return ""
    return f"{known[0]} has {percent(known[1])} of the training rows, so accuracy says little about the other labels."


def rarest_first(labels: Sequence[str], data: DataSummary) -> list[str]:
    """Return labels by their training rows where one label is dominant; else as they are."""
    per_label = data.splits["train"].per_label if dominant(data) else {}
    return sorted(labels, key=lambda label: per_label.get(label, 0))


def _recall_parts(report: ClassificationReport) -> list[str]:
    """Return a section on the recall of the rarest labels by every method, where one label is dominant."""
    if not (dominance := dominance_sentence(report.data)):
        return []
    rows = []
    for label in rarest_first(report.data.labels, report.data)[:LISTED]:
        scores = [method.scores.per_class[label] for method in report.methods]
        sizes = report.data.splits["train"].per_label.get(label, 0), scores[0].support
        recalls = [metric(of_label.recall if of_label.support else None) for of_label in scores]
        rows.append([plain(label), *(f"{size:,}" for size in sizes), *recalls])
    head = ["Label", "Train rows", "Test rows", *(plain(method.name) for method in report.methods)]
    return ["## Recall per label, rarest first", plain(dominance), table(head, rows)]


def majority(data: DataSummary) -> tuple[str, float] | None:
    """Return the most frequent label of train, and the accuracy on test of always answering it."""
    train, test = (data.splits.get(name) for name in ("train", "test"))
    if not (train and test and train.per_label and test.rows):
        return None
    label = max(train.per_label, key=train.per_label.__getitem__)
    return label, test.per_label.get(label, 0) / test.rows


def majority_sentence(data: DataSummary) -> str:
    """Return what always giving the most frequent label would reach; empty where that is not known."""
    known = majority(data)
    return f"Always answering {plain(known[0])} would reach an accuracy of {metric(known[1])}." if known else ""
