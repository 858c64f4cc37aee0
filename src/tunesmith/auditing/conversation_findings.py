"""What the checks of conversations come to: the findings, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.auditing.conversation_checks import SAME, UNENDED, AnswerFlaw, ConversationAudit
from tunesmith.auditing.findings import Finding, Severity
from tunesmith.auditing.row_counts import RowCount
from tunesmith.auditing.text_findings import counted, percent, quoted

MANY = 0.05
"""Share of the rows with a flaw from which on it is a warning."""
MANY_MIXED = 0.02
DEALS: dict[str, tuple[str, float, str]] = {
    "says nothing": (
        "have an answer that says nothing",
        0.0,
        "Write the answers, or leave these rows out: a model learns to say nothing.",
    ),
    "refusal, or speaks as an AI": (
        "have an answer that refuses, or speaks as an AI",
        MANY,
        "Keep refusals that you want to be learned; leave the others out, or answer them.",
    ),
    "code block without an end": (
        "have an answer whose code block does not end, so that it is probably cut off",
        0.01,
        "Complete the answers or leave these rows out: a model learns to stop there.",
    ),
    UNENDED: (
        "have a long answer that ends without a punctuation mark, so that it may be cut off",
        MANY,
        "Look at their ends; complete those that are cut off, or leave them out: a model learns to stop there.",
    ),
    "template text in the answer": (
        "have text of a prompt template in an answer",
        0.01,
        "Take it out, or read the rows in their own format (data.format): a model learns to write it.",
    ),
    "template text in the prompt": (
        "have text of a prompt template in a prompt",
        0.01,
        "The prompt template (prompt.template) adds its own: take this out, or read the rows in their own format "
        "(data.format).",
    ),
    "repeats the instruction": (
        "have an answer that repeats its instruction",
        MANY,
        "Take the repetition out, unless it is what the answer should do.",
    ),
    "repeats itself": (
        "have an answer that repeats itself over and over",
        0.01,
        "Leave these rows out: a model learns to loop.",
    ),
    SAME: (
        "have the same answer as another prompt",
        MANY,
        "Check that it answers them; answers that fit every prompt teach little.",
    ),
}
"""For each flaw: what is wrong with the rows, the share of them from which on it is a warning, and what to do."""


def of(audit: ConversationAudit) -> tuple[Finding, ...]:
    """Return the findings of an audit of conversations."""
    found = [*_contradictions(audit), *(_flaw(flaw, audit.rows) for flaw in audit.flaws), *_languages(audit)]
    return (*found, *_lengths(audit), *_losses(audit))


def _finding(severity: Severity, headline: str, count: RowCount, do: str) -> Finding:
    return Finding(headline=headline, severity=severity, rows=count.rows, where=count.where, do=do)


def _contradictions(audit: ConversationAudit) -> Iterator[Finding]:
    found = audit.contradictions
    if not found.prompts:
        return
    across = f" {found.across_splits:,} of the prompts stand in two splits." if found.across_splits else ""
    others = found.prompts - found.exact
    spelled = f" {others:,} of the prompts are equal but for case and spaces." if others else ""
    share = found.count.rows / audit.rows
    yield _finding(
        "warning" if share >= MANY or found.across_splits else "note",
        f"{counted(found.prompts, 'prompts')} {'has' if found.prompts == 1 else 'have'} different answers, in "
        f"{counted(found.count.rows, 'rows')} ({percent(share)}).{across}{spelled}",
        found.count,
        "Keep the best answer to each, unless several are right; splits that are cut here keep equal prompts together.",
    )


def _flaw(flaw: AnswerFlaw, rows: int) -> Finding:
    what, many, do = DEALS[flaw.kind]
    share = flaw.count.rows / rows
    example = f" For instance {quoted(flaw.example)}." if flaw.example else ""
    if flaw.count.rows == 1:
        what = what.replace("have", "has", 1)
    headline = f"{counted(flaw.count.rows, 'rows')} ({percent(share)}) {what}.{example}"
    return _finding("warning" if share >= many else "note", headline, flaw.count, do)


def _languages(audit: ConversationAudit) -> Iterator[Finding]:
    mixed = audit.languages
    if mixed.count.rows:
        share = mixed.count.rows / mixed.checked
        listed = ", ".join(f"{pair} {rows:,}" for pair, rows in list(mixed.pairs.items())[:3])
        yield _finding(
            "warning" if share >= MANY_MIXED else "note",
            f"{counted(mixed.count.rows, 'answers')} of {mixed.checked:,} whose language is known "
            f"({percent(share)}) {'is' if mixed.count.rows == 1 else 'are'} in another language than the prompt. "
            f"Translations aside: {listed}.",
            mixed.count,
            "Answer in the language of the prompt, or leave these rows out, unless the model should do this.",
        )


def _lengths(audit: ConversationAudit) -> Iterator[Finding]:
    for count, size in ((audit.short, "short"), (audit.long, "long")):
        if count.rows:
            are = "is" if count.rows == 1 else "are"
            yield _finding(
                "note",
                f"{counted(count.rows, 'answers')} ({percent(count.rows / audit.rows)}) {are} unusually {size}.",
                count,
                "Look at them: they may be cut off, empty of meaning, or several answers in one."
                + (" `tunesmith check` says what model.max_length cuts." if size == "long" else ""),
            )


def _losses(audit: ConversationAudit) -> Iterator[Finding]:
    losses = audit.losses
    if losses is None:
        return
    basis = f"per token, and the median of {counted(losses.rows, 'responses')} is {losses.median:.2f}"
    if losses.high.rows:
        yield _finding(
            "note",
            f"{counted(losses.high.rows, 'responses')} {'surprises' if losses.high.rows == 1 else 'surprise'} the base "
            f"model. Their loss is up to {losses.highest[0].loss:.2f} {basis}.",
            losses.high,
            "Look at them: noise, another language, or an answer to another prompt has such losses.",
        )
    if losses.low.rows:
        yield _finding(
            "note",
            f"The base model predicts {counted(losses.low.rows, 'responses')} nearly word for word. Their loss is down "
            f"to {losses.lowest[0].loss:.2f} {basis}.",
            losses.low,
            "Look at them: they repeat the prompt, or the model has seen them; in a test split they say little.",
        )
