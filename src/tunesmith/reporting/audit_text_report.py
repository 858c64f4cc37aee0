"""What the report of an audit says of texts."""

from __future__ import annotations

from tunesmith.auditing.drift import Drift, DriftWord
from tunesmith.auditing.label_leaks import LabelLeaks
from tunesmith.auditing.languages import FEWEST_LETTERS
from tunesmith.auditing.text_profile import ColumnProfile, TextAudit
from tunesmith.reporting.format import NOTHING, counted, share
from tunesmith.reporting.markdown import code, plain, table

TITLES = {"text": "Texts", "text_pair": "Second texts", "prompt": "Prompts", "response": "Responses"}
MOST_LANGUAGES = 6
FEWEST_NAMES = 0.01
"""Share of the texts with their label's name from which on a table of the names is shown."""
MOST_SHARED = 10
"""Beginnings and ends that are shown."""


def title(column: str) -> str:
    """Return what the texts of a column are called."""
    return TITLES.get(column, column.capitalize())


def drift_sentence(drift: Drift) -> str:
    """Return how well train and test can be told apart."""
    interval = f"AUC {drift.auc.value:.2f}, 95% interval {drift.auc.low:.2f} to {drift.auc.high:.2f}"
    drawn = "drawn " if drift.drawn else ""
    basis = f"a linear model of their words, cross-validated on {drift.rows[0]:,} and {drift.rows[1]:,} {drawn}texts"
    if not drift.detected:
        return f"Train and test cannot be told apart by {basis} ({interval}; 0.5 is chance)."
    return f"Train and test can be told apart by {basis} ({interval}; 0.5 is chance, 1 is certainty)."


def drift_words(drift: Drift) -> list[tuple[str, list[DriftWord]]]:
    """Return the words that tell two sets apart, by the set that has more of them; the second set first."""
    more = [word for word in drift.words if word.shares[1] >= word.shares[0]]
    fewer = [word for word in drift.words if word.shares[1] < word.shares[0]]
    return [(f"More in {name}", words) for name, words in zip(drift.sets[::-1], (more, fewer), strict=True) if words]


def shows_names(leaks: LabelLeaks) -> bool:
    """Return whether texts have the names of their labels often enough for a table."""
    return leaks.names is not None and leaks.names.share >= FEWEST_NAMES


def language_sentence(column: ColumnProfile) -> str:
    """Return the languages of a column, and on how many texts that rests."""
    spoken = column.languages
    parts = [f"{name} {share(rows / spoken.known)}" for name, rows in list(spoken.rows.items())[:MOST_LANGUAGES]]
    if more := len(spoken.rows) - len(parts):
        parts.append(f"{more} more")
    texts = counted(spoken.texts, "text") + (" drawn at random" if spoken.drawn else "")
    reasons = [
        f"{spoken.short:,} have fewer than {FEWEST_LETTERS} letters, too few to tell" if spoken.short else "",
        f"{spoken.undecided:,} are undecided" if spoken.undecided else "",
    ]
    basis = "; ".join([f"{spoken.known:,} of {texts}", *filter(None, reasons)])
    return f"{', '.join(parts) or 'not known'} ({basis})"


def personal_sentence(column: ColumnProfile) -> str:
    """Return how often each kind of personal data occurs."""
    kinds = [f"{data.kind} {data.matches:,} times in {counted(data.count.rows, 'text')}" for data in column.personal]
    return ", ".join(kinds) or "none of e-mail addresses, phone numbers, card numbers and keys"


def markdown(audit: TextAudit) -> list[str]:
    """Return paragraphs and tables on what the texts are made of."""
    parts = ["## What the texts are made of"]
    if audit.drift is not None:
        parts.append(plain(drift_sentence(audit.drift)))
        if audit.drift.detected:
            words = [[code(word.word), *map(share, word.shares)] for word in audit.drift.words]
            parts.append(table(["Word", "In train", "In test"], words))
    if audit.times:
        times = [
            [
                code(time.column),
                *(" to ".join(time.spans[split]) if split in time.spans else NOTHING for split in ("train", "test")),
                share(time.older),
            ]
            for time in audit.times
        ]
        parts.append(table(["Column", "Train", "Test", "Test rows older than the middle of train"], times))
    parts += _leak_tables(audit)
    for column in audit.columns:
        parts += _column(column, named=len(audit.columns) > 1)
    return parts


def _leak_tables(audit: TextAudit) -> list[str]:
    leaks, parts = audit.leaks, []
    if leaks is not None and leaks.words:
        head = ["Word", "Label", "Training texts", "Have the label (or explained)", "Held out", "Of the label's texts"]
        rows = [
            [code(word.word), plain(word.label or NOTHING), f"{word.rows:,}", *map(share, shares)]
            for word in leaks.words
            for shares in [(word.share, word.held_out, word.covered)]
        ]
        parts.append(table(head, rows))
    if leaks is not None and leaks.names is not None and shows_names(leaks):
        names = [
            [plain(name.label), f"{name.rows:,}", share(name.share), share(name.elsewhere)]
            for name in leaks.names.labels
        ]
        parts.append(table(["Label", "Texts with its name", "Of its texts", "Of other texts"], names))
    return parts


def _column(column: ColumnProfile, named: bool) -> list[str]:
    parts = [f"### {title(column.column)}"] if named else []
    parts.append(
        f"- Languages: {plain(language_sentence(column))}\n- Personal data: {plain(personal_sentence(column))}"
    )
    if column.problems:
        problems = [
            [plain(problem.kind), f"{problem.count.rows:,}", code(problem.example)] for problem in column.problems
        ]
        parts.append(table(["Wrong characters", "Texts", "For instance"], problems))
    if column.shared:
        shared = [[code(part.text), part.place, f"{part.count.rows:,}", share(part.share)] for part in column.shared]
        parts.append(table(["Shared text", "Place", "Texts", "Share"], shared[:MOST_SHARED]))
    return parts
