"""The report: whole, self-contained, and proof against what texts and labels may hold."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.sample_reports import Balance, content
from tunesmith.evaluation import metrics
from tunesmith.manifest import UNKNOWN_COSTS
from tunesmith.reporting import classification_report, model_card, terminal
from tunesmith.reporting.schema import Curve

CASES = [(1, 2), (2, 3), (3, 151), (10, 2)]


@pytest.mark.parametrize(("num_methods", "num_labels"), CASES)
def test_the_page_is_whole_self_contained_and_escaped(num_methods: int, num_labels: int) -> None:
    labels = ("a", "b", "ü & <i>", *(f"label {i}" for i in range(200)))[:num_labels]
    made = content(num_methods, labels, rows=max(60, 2 * num_labels))
    page = classification_report.html(made)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert [link for link in parser.fetched if not link.startswith("#")] == []
    assert "url(" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    for method in made.methods:
        assert method.name in page
        assert f"{method.scores.headline['accuracy'].value:.3f}" in page


def test_markdown_has_the_same_figures_in_whole_tables() -> None:
    made = content(3)
    text = classification_report.markdown(made)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 3
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    for method in made.methods:
        value = method.scores.headline["accuracy"]
        assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in text
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)  # code spans are shown, not read


def test_cut_texts_are_told_on_the_page_and_in_the_card() -> None:
    made = content(1)
    assert re.search(r"<dt>Texts cut to fit</dt><dd>3</dd>", classification_report.html(made))
    assert "3 texts were longer than the model's input and were cut." in model_card.classification(made)


def test_labels_named_like_python_attributes_are_only_labels() -> None:
    made = content(2, labels=("__class__", "items", "values"))
    page = classification_report.html(made)
    assert all(label in page for label in made.data.labels)
    assert "built-in method" not in page


def test_empty_bins_missing_numbers_and_a_single_evaluation_can_be_shown() -> None:
    made = content(2)
    empty = metrics.CalibrationBin(0.0, 0.1, 0, None, None)
    methods = [
        replace(
            method,
            scores=replace(method.scores, calibration=(empty, *method.scores.calibration[1:])),
            costs=UNKNOWN_COSTS,
        )
        for method in made.methods
    ]
    methods[1] = replace(methods[1], curve=Curve((), ((47, 0.5),), "macro_f1"))
    made = replace(made, methods=tuple(methods), data=replace(made.data, changes=(), made=()))
    page = classification_report.html(made)
    assert "None: no row was dropped" in page
    assert "validation macro F1" in page
    assert "0.500000" not in page  # the axis around one value has short ticks
    assert "–" in classification_report.markdown(made)


def test_the_terminal_table_keeps_each_method_on_one_line() -> None:
    made = content(3)
    lines = terminal.table(made, width=92).splitlines()
    for method in made.methods:
        (line,) = [line for line in lines if method.name in line]
        assert f"{method.scores.headline['macro_f1'].high:.3f}]" in line


def test_pure() -> None:
    made = content(2)
    assert classification_report.html(made) == classification_report.html(made)
