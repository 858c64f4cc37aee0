"""What an audit of labels says in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.auditing.findings import Finding, Severity
from tunesmith.auditing.label_errors import LabelAudit
from tunesmith.evaluation.intervals import Estimate

WHERE = 5
"""Ids that a finding names."""
FEW, MANY = 0.01, 0.1
"""Shares of wrong labels from which they are a warning, and from which scores on them mislead."""
RELIABLE = 0.75
"""A method that agrees with fewer labels finds the task hard: suspect rows are then as likely hard as wrong."""
CONFUSED, CONFUSED_ROWS = 0.25, 10
"""Share of the suspect rows, and rows, from which two labels are worth a line of their own."""


def not_judged(reason: str) -> Finding:
    """Return the finding for labels that no model could be trained to judge."""
    do = "Give more rows, or another method (--method)."
    return Finding(headline=f"The labels were not judged: {reason}.", severity="note", do=do)


def of_labels(audit: LabelAudit, gain_asked: bool) -> tuple[Finding, ...]:
    """Return the findings on the labels of a data set."""
    return tuple(_findings(audit, gain_asked))


def percent(share: float) -> str:
    """Return 4.1%."""
    return f"{100 * share:.1f}%"


def interval(estimate: Estimate) -> str:
    """Return 4.1% [3.7%, 4.5%]."""
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def is_reliable(audit: LabelAudit) -> bool:
    """Return whether the method knows the task well enough that what it suspects is more likely wrong than hard."""
    return audit.agreement is None or audit.agreement.value >= RELIABLE


def _findings(audit: LabelAudit, gain_asked: bool) -> Iterator[Finding]:
    yield from _of_train(audit)
    yield from _of_test(audit)
    total = sum(pair.rows for pair in audit.confusions)
    for pair in audit.confusions[:1]:
        if pair.rows >= CONFUSED_ROWS and pair.rows >= CONFUSED * total and len(audit.confusions) > 2:
            yield Finding(
                headline=f"{pair.rows:,} of {total:,} suspect labels are {pair.given}, and {pair.suggested} is likely.",
                severity="note",
                rows=pair.rows,
                do="Tell the two apart in the instructions of the annotators.",
            )
    yield from _of_votes(audit)
    yield from _of_gain(audit, gain_asked)


def _of_train(audit: LabelAudit) -> Iterator[Finding]:
    train = audit.of_split("train")
    if train is None:
        return
    if train.unjudged:
        headline = f"{train.unjudged:,} training labels could not be judged: no other text has their label."
        yield Finding(headline=headline, severity="note", rows=train.unjudged, do="Label more rows of these labels.")
    ids = tuple(suspect.id for suspect in audit.suspects[:WHERE])
    review = f"Decide about them in {audit.review}, then run `tunesmith audit --apply {audit.review} --output FILE`."
    if train.share is None:
        if train.suspect:
            headline = f"{train.suspect:,} of {train.rows:,} training numbers are far from what {audit.method} expects."
            yield Finding(headline=headline, severity="note", rows=train.suspect, where=ids, do=review)
        return
    severity: Severity = "warning" if train.share.low >= FEW and is_reliable(audit) else "note"
    headline = f"{interval(train.share)} of the training labels look wrong ({train.suspect:,} of {train.rows:,} rows)"
    headline += "." if audit.unexplained is None else f", up to {percent(audit.unexplained.value)} may be."
    if not is_reliable(audit) and audit.agreement is not None:
        headline += (
            f" {audit.method} predicts the labels of only {percent(audit.agreement.value)} of the rows: those that "
            "look wrong may just be hard."
        )
    if train.suspect:
        yield Finding(headline=headline, severity=severity, rows=train.suspect, where=ids, do=review)


def _of_test(audit: LabelAudit) -> Iterator[Finding]:
    test = audit.of_split("test")
    if test is None or not test.suspect:
        return
    ids = tuple(suspect.id for suspect in audit.held_out_suspects if suspect.split == "test")[:WHERE]
    if test.share is None:
        headline = f"{test.suspect:,} of {test.rows:,} test numbers are far from what {audit.method} expects."
        yield Finding(headline=headline, severity="note", rows=test.suspect, where=ids, do=f"See {audit.review}.")
        return
    severity: Severity = "note"
    if is_reliable(audit):
        severity = "severe" if test.share.low >= MANY else "warning" if test.share.low >= FEW else "note"
    headline = (
        f"{test.suspect:,} of {test.rows:,} test labels look wrong ({percent(test.suspect / test.rows)}): "
        "scores are no more exact than that."
    )
    do = f"Correct the test labels first, in {audit.review}: every comparison rests on them."
    yield Finding(headline=headline, severity=severity, rows=test.suspect, where=ids, do=do)


def _of_votes(audit: LabelAudit) -> Iterator[Finding]:
    votes = audit.votes
    if votes is None:
        return
    if votes.contradicted:
        by_votes = [row for row in (*audit.suspects, *audit.held_out_suspects) if "votes" in row.reason]
        headline = f"On {votes.contradicted:,} of {votes.rows:,} rows another label has more votes than the given one."
        do = f"See the rows with reason `votes` in {audit.review}."
        ids = tuple(row.id for row in by_votes[:WHERE])
        yield Finding(headline=headline, severity="warning", rows=votes.contradicted, where=ids, do=do)
    if votes.disagreement:
        agreement = "" if votes.alpha is None else f"; Krippendorff's alpha is {votes.alpha.value:.2f}"
        headline = (
            f"The annotators disagree on {votes.disagreement:,} of {votes.rows:,} rows "
            f"({percent(votes.disagreement / votes.rows)}){agreement}."
        )
        do = "Expect no model to agree with the labels more than the annotators agree with each other."
        yield Finding(headline=headline, severity="note", rows=votes.disagreement, do=do)


def _of_gain(audit: LabelAudit, asked: bool) -> Iterator[Finding]:
    gain = audit.gain
    if gain is None:
        if asked:
            headline = "What cleaning would gain was not measured: it needs suspect training rows, and test rows."
            yield Finding(headline=headline, severity="note", do="Set split.test_size above 0.")
        return
    name = {"rmse": "RMSE", "macro_f1": "macro F1"}.get(gain.metric, gain.metric)
    result = {True: "is better", False: "is worse", None: "is not significantly different"}[gain.helped]
    difference = gain.difference
    headline = (
        f"Without the {gain.removed:,} suspect training rows the {name} of {audit.method} on test rows {result}: "
        f"{gain.after:.4g} instead of {gain.before:.4g} (difference {difference.value:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}])."
    )
    do = (
        f"Decide about the rows in {audit.review}."
        if gain.helped
        else "Do not drop rows only because a model suspects them."
    )
    if gain.test_suspects:
        do += f" Of the test labels, {gain.test_suspects:,} are suspect themselves."
    yield Finding(headline=headline, severity="note", do=do)
