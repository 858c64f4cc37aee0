"""The report on predicted sets of labels, of one method or several. Pure functions, no files."""

from __future__ import annotations

from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.reporting import metric_report, prediction_notes
from tunesmith.reporting.format import metric
from tunesmith.reporting.markdown import plain, quote, table
from tunesmith.reporting.schema import MultilabelReport

LISTED = 40
"""With more labels than this, a table shows the labels with the lowest F1."""


def html(report: MultilabelReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    return metric_report.html(
        report, "multilabel.html.j2", ("macro_f1", "micro_f1"), (0.04, 0.04), listed=listed, most=LISTED
    )


def markdown(report: MultilabelReport) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    details = []
    if len(report.methods) == 1:
        (method,) = report.methods
        head = ["Label", "Precision", "Recall", "F1", "Average precision", "Threshold", "Rows"]
        rows = []
        for label in listed(method.scores):
            s = method.scores.per_label[label]
            figures = map(metric, (s.precision, s.recall, s.f1, s.average_precision, s.threshold))
            rows.append([plain(label), *figures, f"{s.support:,}"])
        details += ["## Labels", table(head, rows)]
        if method.worst:
            details.append(f"## {prediction_notes.worst_title(method.worst)}")
        for row in method.worst[:3]:
            gold, predicted = (", ".join(map(plain, labels)) or "none" for labels in (row.gold, row.predicted))
            details.append(f"- {quote(row.text)}\n  - {gold}; predicted: {predicted}")
    return metric_report.markdown(report, "macro_f1", details=details)


def listed(scores: MultilabelScores) -> list[str]:
    """Return all labels; of more than LISTED, those with the lowest F1 among those that the test split has."""
    if len(scores.labels) <= LISTED:
        return list(scores.labels)
    tested = [label for label in scores.labels if scores.per_label[label].support]
    return sorted(tested, key=lambda label: scores.per_label[label].f1)[:LISTED]
