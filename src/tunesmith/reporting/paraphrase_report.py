"""What the report of an audit says of rows that are similar in meaning."""

from __future__ import annotations

from tunesmith.auditing.paraphrases import ParaphraseAudit
from tunesmith.reporting import duplicate_report
from tunesmith.reporting.markdown import plain, table

TITLE = "Similar in meaning"


def note(audit: ParaphraseAudit) -> str:
    """Explain what was compared, and that nothing else changes by it."""
    cut = (
        f" Of {audit.cut:,} longer {'text' if audit.cut == 1 else 'texts'} it read the beginning." if audit.cut else ""
    )
    return (
        f"Rows that are no copies by their words (above), but whose embeddings by {audit.model} have a cosine "
        f"similarity of at least {audit.threshold:g}. Each counts once, with the row that it is most alike. Of pairs "
        f"of rows drawn at random, nine in ten are below {audit.usual:.2f}.{cut} A model can take texts for similar "
        "that differ in a number or a “not”. The splits, split.leaks and the scores on the clean part are those of "
        "copies alone."
    )


def markdown(audit: ParaphraseAudit) -> list[str]:
    """Return the part in Markdown; nothing where no rows are similar."""
    if not audit.counts:
        return []
    rows = (
        [
            duplicate_report.place(count, "like rows of"),
            f"{count.rows:,}",
            f"{count.paraphrases:,}",
            f"{count.share:.1%}",
        ]
        for count in audit.counts
    )
    head = ["Rows of", "Rows", TITLE, "Share"]
    return [f"## {TITLE}", table(head, rows), plain(note(audit)), *duplicate_report.pair_parts(audit.pairs, audit.file)]
