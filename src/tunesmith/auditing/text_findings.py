"""What a profile of texts comes to: the findings, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.auditing.boilerplate import SharedText
from tunesmith.auditing.drift import Drift, LabelShift
from tunesmith.auditing.encoding_problems import MOJIBAKE
from tunesmith.auditing.findings import Finding, Severity
from tunesmith.auditing.label_leaks import LabelLeaks, TellingWord
from tunesmith.auditing.row_counts import SHOWN, RowCount
from tunesmith.auditing.text_profile import VERY_LONG, ColumnProfile, TextAudit
from tunesmith.auditing.time_order import TimeColumn

MOST_NAMES, MANY_NAMES = 0.5, 0.05
"""Shares of texts with their label's name from which on that is severe or a warning, where it is not by chance."""
SURE_NAME = 0.95
"""Share of the texts with a label's name that must have the label, for it to be severe."""
LARGE_LABEL = 0.1
"""Share of the rows that a label must have, for a word that tells it to be severe."""
MOST_ROWS, HALF = 0.9, 0.5
"""Shares of a label's rows that a word tells from which on that is severe or a warning."""
CLEAR_DRIFT = 0.6
"""AUC from which on drift is a warning."""
SHIFTED = 0.05
"""Share of rows that would need another label, from which on labels are called shifted."""
OTHER_LANGUAGES = (0.01, 0.05)
"""Share of texts in another language that is a note, and a warning."""
MANY_PROBLEMS = 0.01
SHARED_BY_MANY, TIED = 0.05, 0.95
"""Shares of texts that begin alike, and of these with one label."""
WRONG = {MOJIBAKE, "lost characters", "control characters"}
"""Problems of encodings that make other words of words."""
REPAIRS = {
    MOJIBAKE: "Read the file in its own encoding (data.encoding), or repair the texts with ftfy.fix_text.",
    "lost characters": "Lost characters cannot be repaired: read the original again (data.encoding).",
    "control characters": "Remove control characters.",
    "invisible characters": "Remove invisible characters, which split words in two for most tokenizers.",
    "HTML entities": "Decode entities with html.unescape, here and where the model will be used.",
    "HTML tags": "Remove tags that say nothing, here and where the model will be used.",
    "escaped characters": "Decode what is escaped, or write the file again without escaping twice.",
    "stray backslashes": "Replace backslashes by what they stand for, mostly line breaks.",
}
KINDS = {"email": "e-mail addresses", "phone": "phone numbers", "card": "card numbers", "key": "API or private keys"}
SECRETS = {
    "card": "Replace them: nobody should learn or keep them.",
    "key": "Replace them, and revoke them: whoever has the data, or a generator trained on it, can use them.",
}
"""Kinds of personal data that give access, with what to do."""


def of(audit: TextAudit, rows_by_label: dict[str, int], *, made: bool = False) -> tuple[Finding, ...]:
    """Return the findings of a profile. rows_by_label: of train. made: whether test was cut from train at random."""
    found: list[Finding] = []
    if audit.leaks is not None:
        found += _names(audit.leaks)
        found += _words(audit.leaks, rows_by_label)
    if audit.drift is not None:
        found += _drift(audit.drift, audit.label_shift, made)
    if audit.label_shift is not None:
        found += _label_shift(audit.label_shift)
    for time in audit.times:
        found += _times(time)
    several = len(audit.columns) > 1
    for column in audit.columns:
        texts = {"text": "texts", "text_pair": "second texts"}.get(column.column, f"{column.column}s")
        if several and column.column == "text":
            texts = "first texts"
        found += [*_languages(column, texts), *_problems(column, texts), *_personal(column, texts)]
        found += [*_shared(column, texts), *_lengths(column, texts)]
    return tuple(found)


def percent(share: float) -> str:
    """Return 38%, 0.4%, 99.2%, less than 0.1%: only 0 and 1 are written as 0% and 100%."""
    if 0.1 <= share <= 0.9 or share in (0, 1):
        return f"{100 * share:.0f}%"
    if share < 0.001:
        return "less than 0.1%"
    return f"{min(99.9, 100 * share):.1f}%".replace(".0%", "%")


def counted(number: int, nouns: str) -> str:
    """Return 1 text, 1,200 texts."""
    return f"{number:,} {nouns.removesuffix('s') if number == 1 else nouns}"


def quoted(text: str) -> str:
    """Return a text in quotation marks that it does not have itself."""
    return f"“{text}”"


def _finding(severity: Severity, headline: str, do: str, count: RowCount | None = None) -> Finding:
    if count is None:
        return Finding(headline=headline, severity=severity, do=do)
    return Finding(headline=headline, severity=severity, rows=count.rows, where=count.where, do=do)


def _names(leaks: LabelLeaks) -> Iterator[Finding]:
    names = leaks.names
    if names is None or names.share < MANY_NAMES or names.share < 2 * names.by_chance:
        return
    top = names.labels[0]
    others = max((name.elsewhere for name in names.labels), default=0)
    severe = names.share >= MOST_NAMES and others <= 1 - SURE_NAME
    example = f"{quoted(top.label)} is in {percent(top.share)} of its texts and {percent(top.elsewhere)} of the others"
    yield _finding(
        "severe" if severe else "warning",
        f"The text contains its label's name in {percent(names.share)} of the rows. By chance it would be "
        f"{percent(names.by_chance)}; {example}.",
        "Check how the labels were made. Where the text was written before its label was known, this is how people "
        "speak; where it was not, take the names out.",
        names.count,
    )


def _words(leaks: LabelLeaks, rows_by_label: dict[str, int]) -> Iterator[Finding]:
    total = max(1, sum(rows_by_label.values()))

    def severity(word: TellingWord) -> Severity:
        if word.label is None:
            return "warning"
        if rows_by_label.get(word.label, 0) < LARGE_LABEL * total or word.covered < HALF:
            return "note"
        return "severe" if word.covered >= MOST_ROWS else "warning"

    do = "Check that such words will be there when the model is used, and were not added with the label. If they were, "
    do += "take them out of the texts."
    serious = [word for word in leaks.words if severity(word) != "note"][:3]
    for word in serious:
        yield _finding(severity(word), _telling(word), do, RowCount(word.rows, word.where))
    others = [word for word in leaks.words if word not in serious]
    if others:
        more = leaks.found - len(serious) - 1
        also = f" {more:,} more {'word does' if more == 1 else 'words do'} so too." if more else ""
        first = others[0]
        yield _finding(severity(first), _telling(first) + also, do, RowCount(first.rows, first.where))


def _telling(word: TellingWord) -> str:
    where = " in the second text" if word.second else ""
    if word.label is None:
        return (
            f"The word {quoted(word.word)}{where} alone explains {percent(word.share)} of the variance. Texts with it "
            f"have {word.mean:.4g} on average."
        )
    checked = "" if word.held_out is None else f", {percent(word.held_out)} of the held-out ones"
    return (
        f"The word {quoted(word.word)}{where} alone tells label {quoted(word.label)}. {percent(word.share)} of the "
        f"{word.rows:,} training texts with it have the label{checked}. {percent(word.covered)} of the label's texts "
        "have the word."
    )


def _drift(drift: Drift, shift: LabelShift | None, made: bool) -> Iterator[Finding]:
    if not drift.detected:
        return
    auc = f"AUC {drift.auc.value:.2f} [{drift.auc.low:.2f}, {drift.auc.high:.2f}]"
    words = ", ".join(quoted(word.word) for word in drift.words[:5])
    if made:
        yield _finding(
            "note",
            f"Train and test can be told apart with {auc}, although test was cut from train at random here. Words that "
            f"do it: {words}.",
            "The split is random but for groups, equal texts and near-duplicates, which stay on one side: this is "
            "chance, as in one of 40 splits, or those rows are others on each side. Nothing is wrong with how the rows "
            "were collected; split.seed makes another split.",
        )
        return
    too = " The shares of the labels differ too, which can be the reason." if shift and _is_shifted(shift) else ""
    yield _finding(
        "warning" if drift.auc.value >= CLEAR_DRIFT else "note",
        f"Train and test can be told apart with {auc}. Words that do it: {words}.{too}",
        "Find out how the two were collected. If test is what the model will meet, train on texts like these; if not, "
        "cut test from the same rows (split.test=none).",
    )


def _is_shifted(shift: LabelShift) -> bool:
    return shift.distance >= SHIFTED and shift.p < 0.01


def _label_shift(shift: LabelShift) -> Iterator[Finding]:
    if _is_shifted(shift):
        train, test = map(percent, shift.shares)
        yield _finding(
            "warning",
            f"Labels have other shares in test than in train. {quoted(shift.label)} has {test} instead of {train}; "
            f"{percent(shift.distance)} of the rows would need another label.",
            "Probabilities that are learned from train follow its shares. Train on rows as they come in use, or weight "
            "the labels (train.class_weights) and calibrate (decide.calibration).",
        )


def _times(time: TimeColumn) -> Iterator[Finding]:
    if not time.mixed:
        return
    first, last = (fold(day for span in time.spans.values() for day in span) for fold in (min, max))
    change = ""
    if time.drift is not None and time.drift.detected:
        change = f" Older and newer texts can be told apart with AUC {time.drift.auc.value:.2f}."
    how = "the split was cut at random" if time.made else "the splits are not in its order"
    yield _finding(
        "warning" if time.made else "note",
        f"Column {quoted(time.column)} says when a row is from, but {how}. The rows are from {first} to {last}, and "
        f"{percent(time.older)} of the test rows are older than the middle training row.{change}",
        "If the model is to judge texts that come later, these scores are too good: put the newest rows into a file of "
        "their own and give it as data.test.",
    )


def _languages(column: ColumnProfile, texts: str) -> Iterator[Finding]:
    spoken = column.languages
    share = spoken.others.rows / spoken.known if spoken.known else 0
    if share < OTHER_LANGUAGES[0] or spoken.others.rows < 3:
        return
    main, *others = spoken.rows
    listed = ", ".join(f"{name} {percent(spoken.rows[name] / spoken.known)}" for name in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    basis = f"of {spoken.known:,} {texts} long enough to tell" + (", drawn at random" if spoken.drawn else "")
    yield _finding(
        "warning" if share >= OTHER_LANGUAGES[1] else "note",
        f"{percent(share)} {basis} are in another language than {main}. They are {listed}{more}.",
        "Use a multilingual model (model.name_or_path), or keep to one language; look at the scores of each language "
        "by evaluate.slices, if a column has it.",
        spoken.others,
    )


def _problems(column: ColumnProfile, texts: str) -> Iterator[Finding]:
    frequent = [
        problem
        for problem in column.problems
        if problem.kind in WRONG or problem.count.rows >= max(3, 0.001 * column.rows)
    ]
    serious = [p for p in frequent if p.kind in WRONG and p.count.rows >= MANY_PROBLEMS * column.rows]
    others = [problem for problem in frequent if problem not in serious]
    for severity, problems in [("warning", [problem]) for problem in serious] + [("note", others)]:
        if not problems:
            continue
        first = problems[0]
        share = percent(first.count.rows / column.rows)
        listed = ", ".join(f"{problem.kind} in {problem.count.rows:,}" for problem in problems[1:])
        shown = f"{quoted(first.example)} for {quoted(first.repaired)}" if first.repaired else quoted(first.example)
        where = [row for problem in problems for row in problem.count.where[: 1 + SHOWN // len(problems)]]
        yield _finding(
            "warning" if severity == "warning" else "note",
            f"{first.kind[0].upper()}{first.kind[1:]} in {counted(first.count.rows, texts)} ({share})"
            f"{', ' if listed else ''}{listed}. For instance {shown}.",
            " ".join(REPAIRS[problem.kind] for problem in problems),
            RowCount(first.count.rows, tuple(dict.fromkeys(where))[:SHOWN]),
        )


def _personal(column: ColumnProfile, texts: str) -> Iterator[Finding]:
    secret = [data for data in column.personal if data.kind in SECRETS]
    others = [data for data in column.personal if data.kind not in SECRETS]
    for data in secret:
        name, share = KINDS[data.kind], percent(data.count.rows / column.rows)
        yield _finding(
            "warning",
            f"{name[0].upper()}{name[1:]} in {counted(data.count.rows, texts)} ({share}).",
            SECRETS[data.kind],
            data.count,
        )
    if others:
        listed = " and ".join(f"{KINDS[data.kind]} in {counted(data.count.rows, texts)}" for data in others)
        most = max(others, key=lambda data: data.count.rows)
        share = percent(most.count.rows / column.rows)
        kinds = ", ".join(data.kind for data in others)
        most_of = " at most" if len(others) > 1 and not share.startswith("less") else ""
        yield _finding(
            "note",
            f"{listed[0].upper()}{listed[1:]} ({share}{most_of}).",
            f"Mask them, or leave these rows out, where they must not be learned; serve.guard.mask=[{kinds}] hides "
            "them in what a server reads and answers.",
            RowCount(most.count.rows, tuple(dict.fromkeys(row for data in others for row in data.count.where))[:SHOWN]),
        )


def _shared(column: ColumnProfile, texts: str) -> Iterator[Finding]:
    def is_tied(part: SharedText) -> bool:
        return part.label_share is not None and part.label_share >= TIED

    worth = [part for part in column.shared if part.share >= SHARED_BY_MANY or is_tied(part)]
    for part in worth[:3]:
        tie = (
            f"; {percent(part.label_share or 0)} of them have label {quoted(part.label or '')}" if is_tied(part) else ""
        )
        verb = "begin" if part.place == "beginning" else "end"
        yield _finding(
            "warning" if tie else "note",
            f"{counted(part.count.rows, texts)} ({percent(part.share)}) {verb} with the same {part.words} words{tie}. "
            f"They are {quoted(part.text)}.",
            "Remove it, unless it will be there in use: it takes up model.max_length"
            + (", and a model may go by it instead of the text." if tie else "."),
            part.count,
        )


def _lengths(column: ColumnProfile, texts: str) -> Iterator[Finding]:
    if column.very_long.rows:
        yield _finding(
            "note",
            f"{counted(column.very_long.rows, texts)} with more than {VERY_LONG} times the median length.",
            "See that they are one text each. `tunesmith check` says what model.max_length cuts.",
            column.very_long,
        )
