"""What the report of an audit says of instructions and responses."""

from __future__ import annotations

from tunesmith.auditing.conversation_checks import CHECKS, SAME, UNENDED, ConversationAudit
from tunesmith.auditing.row_counts import RowCount
from tunesmith.reporting.format import NOTHING, counted, share
from tunesmith.reporting.markdown import code, plain, table

SHOWN = 3
NONE = RowCount(0, ())
TITLES = {
    "says nothing": "an answer that says nothing",
    "refusal, or speaks as an AI": "a refusal, or an answer that speaks as an AI",
    "code block without an end": "a code block without an end",
    "template text in the answer": "template text in an answer",
    "template text in the prompt": "template text in a prompt",
    "repeats the instruction": "an answer that repeats the instruction",
    "repeats itself": "an answer that repeats itself",
    UNENDED: "a long answer without a last punctuation mark",
    SAME: "the same answer as another prompt",
}


def sentence(audit: ConversationAudit) -> str:
    """Return what kind of conversations there are."""
    turns = f"{audit.several_turns:,} of several turns" if audit.several_turns else "all of one turn"
    systems = counted(audit.systems, "different system message") if audit.systems else "no system message"
    return f"{counted(audit.rows, 'conversation')}, {turns}, with {systems}."


def counts(audit: ConversationAudit) -> list[tuple[str, RowCount, int]]:
    """Return everything that was looked for, how many rows have it, and of how many, the most frequent first."""
    flaws = {flaw.kind: flaw.count for flaw in audit.flaws}
    found = [
        ("a prompt that has different answers", audit.contradictions.count, audit.rows),
        *((TITLES[kind], flaws.get(kind, NONE), audit.rows) for kind in (*CHECKS, UNENDED, SAME)),
        ("an answer in another language than the prompt", audit.languages.count, audit.languages.checked),
        ("an unusually short answer", audit.short, audit.rows),
        ("an unusually long answer", audit.long, audit.rows),
    ]
    return sorted(found, key=lambda entry: -entry[1].rows)


def any_found(audit: ConversationAudit) -> bool:
    """Return whether any row has anything that was looked for."""
    return any(count.rows for _, count, _ in counts(audit))


def absent(audit: ConversationAudit) -> str:
    """Return what was looked for and is in no row."""
    names = [name for name, count, _ in counts(audit) if not count.rows]
    return f"Looked for and in no row: {', '.join(names)}." if names else ""


def markdown(audit: ConversationAudit) -> list[str]:
    """Return paragraphs and tables on instructions and responses."""
    rows = [
        [plain(name), f"{count.rows:,}", share(count.rows / of), _where(count)]
        for name, count, of in counts(audit)
        if count.rows
    ]
    parts = [
        "## Instructions and responses",
        sentence(audit),
        *([table(["Rows with ...", "Rows", "Share", "First ones"], rows)] if rows else []),
        *filter(None, [absent(audit)]),
    ]
    if audit.losses is not None:
        losses = [
            [code(row.id), f"{row.loss:.2f}", f"{row.tokens:,}"]
            for row in (*audit.losses.highest, *reversed(audit.losses.lowest))
        ]
        what = f"Highest and lowest loss per token under {plain(audit.losses.model)}; the median is"
        parts += [f"{what} {audit.losses.median:.2f}.", table(["Row", "Loss", "Tokens"], losses)]
    return parts


def _where(count: RowCount) -> str:
    return ", ".join(map(code, count.where[:SHOWN])) or NOTHING
