"""The counts, pairs and findings of the duplicate part of an audit."""

from __future__ import annotations

from dataclasses import replace

from tests.random_texts import text
from tunesmith.auditing import duplicate_audit
from tunesmith.auditing.duplicate_audit import DuplicateAudit, DuplicatePair
from tunesmith.data import near_duplicates
from tunesmith.reporting import duplicate_report
from tunesmith.types import Example


def rows(prefix: str, *texts: str) -> list[Example]:
    return [Example(f"{prefix}{n}", each, label="xy"[n % 2]) for n, each in enumerate(texts)]


def audited(threshold: float = 0.7) -> tuple[DuplicateAudit, list[DuplicatePair]]:
    """Test has 100 rows, of which 1 is copied exactly, 2 normalised and 3 nearly; validation repeats one of test."""
    test = rows("test", *(text(1000 + n) for n in range(100)))
    copies = [
        test[0].text,
        test[1].text.upper(),
        f"<p>{test[2].text}</p>",
        *(f"{test[n].text} and more" for n in (3, 4, 5)),
        f"and {test[5].text} more",
    ]
    train = rows("train", *(text(n) for n in range(60)), *copies)
    validation = rows("val", *(text(500 + n) for n in range(20)), test[7].text)
    splits = {"train": train, "validation": validation, "test": test}
    return duplicate_audit.audit(splits, near_duplicates.find([*splits.values()], threshold), threshold)


def test_rows_are_counted_by_split_and_grade() -> None:
    audit, pairs = audited()
    leak, other, within = audit.counts
    assert (leak.split, leak.other, leak.rows, leak.exact, leak.normalised, leak.near) == (
        "test",
        "train",
        100,
        1,
        2,
        3,
    )
    assert (leak.copies, leak.share, leak.others) == (6, 0.06, 7)
    assert (other.split, other.other, other.copies, other.others) == ("test", "validation", 1, 1)
    assert (within.split, within.other, within.copies, within.others, within.within) == ("train", "train", 1, 1, True)
    assert len(pairs) == 8
    assert audit.folds == {"html": 1, "case": 1}
    assert {pair.id: pair.folds for pair in pairs if pair.grade == "normalised"} == {
        "test1": ("case",),
        "test2": ("html",),
    }


def test_findings_are_graded_and_name_the_setting() -> None:
    findings = audited()[0].findings
    assert [finding.severity for finding in findings] == ["severe", "warning", "note", "warning"]
    leak = findings[0]
    assert leak.headline == "6 of 100 test rows (6.0%) have a copy in train: 1 exact, 2 normalised, 3 near."
    assert leak.rows == 6
    assert leak.where == ("test0", "test1", "test2", "test3", "test4")
    assert "the other 94 rows" in leak.do
    assert "split.leaks=remove takes 7 rows out of train" in leak.do
    assert findings[-1].headline == "2 rows say the same as another row and have another label."


def test_at_threshold_1_near_copies_are_not_sought() -> None:
    audit, _ = audited(1.0)
    assert [(each.exact, each.normalised, each.near) for each in audit.counts] == [(1, 2, 0), (1, 0, 0)]
    assert "not sought" in duplicate_report.note(audit)


def test_no_copies_give_no_findings() -> None:
    train, test = rows("a", *(text(n) for n in range(30))), rows("b", *(text(100 + n) for n in range(10)))
    audit, pairs = duplicate_audit.audit(
        {"train": train, "test": test}, near_duplicates.find([train, test], 0.7), threshold=0.7
    )
    assert (audit.counts, audit.findings, audit.pairs, pairs) == ((), (), (), [])
    assert duplicate_report.markdown(audit) == []


def test_rows_of_a_template_are_a_note() -> None:
    alike = rows("a", *(f"Your order {n} has been shipped to you today." for n in range(40)))
    audit, _ = duplicate_audit.audit({"train": alike}, near_duplicates.find([alike], 0.7), 0.7)
    assert [finding.severity for finding in audit.findings] == ["warning", "warning", "note"]
    assert audit.findings[-1].rows == 40


def test_a_report_shows_a_few_pairs_of_each_grade_with_texts_of_bounded_length() -> None:
    base = [f"{text(n, 600)}" for n in range(40)]
    train, test = rows("a", *base), rows("b", *(f"{each} end" for each in base))
    audit, pairs = duplicate_audit.audit(
        {"train": train, "test": test}, near_duplicates.find([train, test], 0.7), threshold=0.7
    )
    assert len(pairs) == 40
    assert len(audit.pairs) == duplicate_audit.PAIRS_SHOWN
    assert max(len(pair.text) for pair in audit.pairs) == duplicate_audit.MOST_CHARACTERS + 1


def test_differences_are_marked_word_by_word() -> None:
    first, second = duplicate_report.differences("The cat sat on the mat.", "The dog sat on the mat!")
    assert first == [("The ", False), ("cat", True), (" sat on the mat", False), (".", True)]
    assert second == [("The ", False), ("dog", True), (" sat on the mat", False), ("!", True)]
    assert duplicate_report.differences("a b", "a b") == ([("a b", False)], [("a b", False)])
    assert duplicate_report.differences("", "new") == ([], [("new", True)])
    long = text(1, 100)
    (before, _), (changed, differs) = duplicate_report.differences(long, f"{long} end")[1]
    assert (len(before) < 130, " … " in before, changed.strip(), differs) == (True, True, "end", True)


def test_markdown_shows_counts_and_marks_differences() -> None:
    audit, _ = audited()
    audit = replace(audit, file="duplicates.csv")
    page = "\n\n".join(duplicate_report.markdown(audit))
    assert "| test, copied in train | 100 | 1 | 2 | 3 | 6.0% | 7 |" in page
    assert "- normalised (case)" in page
    assert "**and more**" in page
    assert "`duplicates.csv`" in page


def test_all_parts_of_a_row_are_shown() -> None:
    one = [Example("a", text(1), text_pair="is it so"), Example("b", text(1).upper(), text_pair="Is it so?")]
    audit, _ = duplicate_audit.audit({"train": one}, near_duplicates.find([one], 0.7), 0.7)
    (pair,) = audit.pairs
    assert pair.folds == ("case", "punctuation")
    assert pair.text == f"{text(1).upper()}\n\nIs it so?"
