"""What profiles of texts come to: which findings, how severe, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.random_rows import random_rows
from tunesmith import recipe as recipes
from tunesmith.auditing import (
    conversation_findings,
    drift,
    label_leaks,
    reading_findings,
    text_findings,
    text_profile,
    time_order,
)
from tunesmith.auditing.findings import Finding
from tunesmith.auditing.text_profile import TextAudit, TextColumn
from tunesmith.reporting import audit_report
from tunesmith.types import DataNote, Example


def findings(train: Sequence[Example], test: Sequence[Example] = ()) -> tuple[Finding, ...]:
    rows = [*train, *test]
    splits = ["train"] * len(train) + ["test"] * len(test)
    column = TextColumn("text", [row.id for row in rows], [row.text for row in rows], splits)
    labels = sorted({label for row in train for label in row.all_labels})
    audit = TextAudit(
        columns=(text_profile.profile(column, 1),),
        leaks=label_leaks.find(train, test, labels),
        drift=drift.compare(("train", "test"), train, test, 1),
        label_shift=drift.label_shift(train, test),
    )
    return text_findings.of(audit, dict(Counter(label for row in train for label in row.all_labels)))


def changed(rows: Sequence[Example], change: Callable[[int, Example], str]) -> list[Example]:
    return [replace(row, text=change(n, row)) for n, row in enumerate(rows)]


def only(found: Sequence[Finding], part: str) -> Finding:
    (finding,) = (finding for finding in found if part in finding.headline)
    return finding


def test_random_texts_have_no_finding() -> None:
    assert findings(random_rows(300), random_rows(100, seed=1)) == ()


@pytest.mark.parametrize(("share", "severity"), [(1.0, "severe"), (0.6, "warning"), (0.3, "note")])
def test_a_word_is_as_severe_as_the_label_it_gives_away(share: float, severity: str) -> None:
    train = changed(
        random_rows(1000),
        lambda n, row: f"{row.text} leak" if row.label == "yes" and n % 100 < 100 * share else row.text,
    )
    assert only(findings(train), "“leak” alone tells").severity == severity


def test_a_word_of_a_small_label_is_a_note() -> None:
    labels = ["rare", *["a", "b", "c"] * 7]
    rows = changed(
        random_rows(2200, labels=labels), lambda n, row: f"{row.text} leak" if row.label == "rare" else row.text
    )
    assert only(findings(rows), "“leak” alone tells").severity == "note"


@pytest.mark.parametrize(
    ("own", "other", "severity"), [(1.0, 0.0, "severe"), (0.2, 0.0, "warning"), (0.02, 0.0, None), (0.5, 0.5, None)]
)
def test_names_of_labels(own: float, other: float, severity: str | None) -> None:
    def change(n: int, row: Example) -> str:
        others = "no" if row.label == "positive" else "positive"
        name = row.label if n % 100 < 100 * own else others if n % 100 < 100 * (own + other) else ""
        return f"{row.text} {name}"

    found = findings(changed(random_rows(1000, labels=["positive", "negative"]), change))
    assert [finding.severity for finding in found if "label's name" in finding.headline] == (
        [severity] if severity else []
    )


def test_drift_and_shifted_labels_are_told() -> None:
    train = random_rows(400)
    test = changed(random_rows(200, seed=1, labels=("yes", "yes", "yes", "no")), lambda n, row: f"{row.text} new")
    found = findings(train, test)
    told = only(found, "can be told apart")
    assert told.severity == "warning"
    assert "AUC 1.00" in told.headline
    assert "“new”" in told.headline
    assert "shares of the labels differ too" in told.headline
    assert "“no” has 25% instead of 50%" in only(found, "other shares").headline


def test_drift_of_a_split_that_was_made_is_a_note_that_says_so() -> None:
    train = random_rows(400)
    test = changed(random_rows(200, seed=1), lambda n, row: f"{row.text} new")
    part = TextAudit(columns=(), drift=drift.compare(("train", "test"), train, test, 1))
    told = only(text_findings.of(part, {}, made=True), "can be told apart")
    assert told.severity == "note"
    assert "although test was cut from train at random here. Words that do it: “new”" in told.headline
    assert "groups, equal texts and near-duplicates" in told.do
    assert "split.test=none" not in told.do


@pytest.mark.parametrize(("made", "severity"), [(True, "warning"), (False, "note")])
def test_a_random_split_of_rows_with_dates(made: bool, severity: str) -> None:
    rows = random_rows(300)
    days = {row.id: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=n) for n, row in enumerate(rows)}
    column = time_order.compare("when", days, {"train": rows[::2], "test": rows[1::2]}, made, seed=1)
    assert column is not None
    assert column.older == pytest.approx(0.5, abs=0.01)
    assert column.spans["train"] == ("2020-01-01", "2020-10-25")
    (found,) = text_findings.of(TextAudit(columns=(), times=(column,)), {})
    assert (found.severity, "2020-01-01 to 2020-10-26" in found.headline) == (severity, True)


def test_a_split_by_time_is_right() -> None:
    rows = random_rows(300)
    days = {row.id: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=n) for n, row in enumerate(rows)}
    column = time_order.compare("when", days, {"train": rows[:200], "test": rows[200:]}, False, seed=1)
    assert column is not None
    assert column.older == 0
    assert text_findings.of(TextAudit(columns=(), times=(column,)), {}) == ()


def test_wrong_characters_are_a_warning_where_they_are_many() -> None:
    rows = random_rows(200)
    few = findings(changed(rows, lambda n, row: f"{row.text} itâ€™s" if n == 0 else row.text))
    many = findings(changed(rows, lambda n, row: f"{row.text} itâ€™s" if n < 20 else row.text))
    assert only(few, "Wrong encoding in 1 text").severity == "note"
    assert only(many, "Wrong encoding in 20 texts").severity == "warning"
    assert "data.encoding" in only(many, "Wrong encoding").do


def test_kinds_of_markup_are_one_finding() -> None:
    found = findings(changed(random_rows(100), lambda n, row: f"{row.text} &amp; <br>" if n < 30 else row.text))
    assert only(found, "HTML").headline.startswith("HTML entities in 30 texts (30%), HTML tags in 30.")


def test_keys_are_a_warning_and_addresses_a_note() -> None:
    secret = "sk-abcdefghijklmnop1234"
    found = findings(
        changed(random_rows(100), lambda n, row: f"{row.text} a@b.example {secret}" if n < 5 else row.text)
    )
    assert only(found, "API or private keys in 5 texts").severity == "warning"
    assert only(found, "E-mail addresses in 5 texts").severity == "note"
    assert not any(secret in f"{finding}" or "a@b.example" in f"{finding}" for finding in found)


def test_languages_are_a_warning_from_a_twentieth_on() -> None:
    english = "The committee will meet again next week to discuss the results of the survey."
    german = "Der Ausschuss trifft sich nächste Woche wieder, um die Ergebnisse zu besprechen."
    rows = [Example(str(n), f"{german if n < 10 else english} {n}", label="ab"[n % 2]) for n in range(100)]
    found = only(findings(rows), "another language")
    assert (
        found.headline
        == "10% of 100 texts long enough to tell are in another language than English. They are German 10%."
    )
    assert (found.severity, found.rows) == ("warning", 10)


def test_every_setting_in_what_to_do_exists() -> None:
    """`audit_report.marked` finds the names of settings; a name that looks like one and is none is an error."""
    advice = [
        *text_findings.REPAIRS.values(),
        *text_findings.SECRETS.values(),
        *(do for _, _, do in conversation_findings.DEALS.values()),
        *(do for _, do in reading_findings.WORTH_SAYING.values()),
    ]
    sections = {name.split(".")[0] for name, _ in recipes.fields() if "." in name}
    plain = [piece for text in advice for piece, is_code in audit_report.marked(text) if not is_code]
    assert not [piece for piece in plain if any(f"{section}." in piece for section in sections)]


def test_notes_of_reading_that_need_something_to_be_done() -> None:
    notes = [
        DataNote("dropped: empty text", 2, ("a:3", "a:4")),
        DataNote("exact duplicates within train", 9),
        DataNote("labels that differ only by case or spaces: 'A', 'a'", 2),
    ]
    found = list(reading_findings.of(notes))
    assert [(finding.headline, finding.rows) for finding in found] == [
        ("2 rows cannot be used: empty text.", 2),
        ("Labels that differ only by case or spaces: 'A', 'a'.", 2),
    ]
