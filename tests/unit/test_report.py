"""The report: whole, self-contained, and proof against what texts and labels may hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import yaml

from tunesmith.evaluation import comparison, metrics, report, terminal
from tunesmith.recipe import Evaluate
from tunesmith.types import Prediction

SETTINGS = Evaluate(bootstrap_samples=100)
HOSTILE = '<script>alert("x")</script> | [a](http://evil) **b** {{ 7 * 7 }}'
VOID = {"meta", "br", "hr", "img", "link", "input", "col", "wbr"}


def content(num_methods: int = 2, labels: tuple[str, ...] = ("a", "b", "ü & <i>"), rows: int = 60) -> dict[str, Any]:
    """A report over made-up predictions."""
    draw = np.random.default_rng(0)
    gold = [labels[i % len(labels)] for i in range(rows)]
    methods, stored = [], {}
    for number in range(num_methods):
        name = f"method {number}"
        probabilities = draw.dirichlet(np.ones(len(labels)), rows)
        for i, label in enumerate(gold):
            probabilities[i, labels.index(label)] += 0.3 * number + 0.2
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        stored[name] = [
            Prediction(str(i), labels[int(row.argmax())], tuple(row.tolist())) for i, row in enumerate(probabilities)
        ]
        wrong = {"id": "x:1", "text": HOSTILE * 20, "text_pair": HOSTILE if number else None, "gold": labels[0],
                 "predicted": labels[1], "probability": 0.98}  # fmt: skip
        methods.append({
            "name": name, "run": f"runs/{number}", "description": HOSTILE,
            "scores": metrics.score(gold, stored[name], labels, SETTINGS, 0),
            "validation": None if number else metrics.headline(gold, stored[name], labels),
            "costs": {"train_seconds": 0.0123 * 50**number, "seconds_per_1000": 0.2, "peak_memory_mb": 310.0,
                      "parameters": 22_700_000, "trainable": 1925, "size_mb": 0.04},
            "curve": {"loss": [[1, 1.0], [10, 0.5]], "validation": [[10, 0.7]], "validation_metric": "macro_f1"}
            if number else None,
            "worst": [wrong], "notes": {"device": "cpu", "cut": 3},
        })  # fmt: skip
    pairs = comparison.compare(gold, stored, labels, SETTINGS, 0) if num_methods > 1 else []
    split = {"rows": rows, "fingerprint": "ab" * 32, "per_label": dict.fromkeys(labels, rows // len(labels)),
             "characters": {"median": 20, "p95": 50, "max": 90}}  # fmt: skip
    return {
        "title": HOSTILE, "created": "2026-11-21 12:30", "command": f"tunesmith compare {HOSTILE}", "version": "0.1.0",
        "verdict": comparison.verdict(methods, pairs), "methods": methods, "pairs": pairs,
        "data": {"source": HOSTILE, "labels": list(labels), "fingerprint": "cd" * 32, "made": ["test"],
                 "splits": {"train": split, "validation": split, "test": split},
                 "changes": [{"what": "dropped: empty text", "count": 7, "where": ["a.csv:3", HOSTILE]}]},
        "environment": {"python": "3.11", "platform": "x", "cpu": "y", "cores": 2, "memory_gb": 23.5, "device": "cpu",
                        "packages": {"torch": "2.13.0"}, "git": None, "seed": 42},
    }  # fmt: skip


class Balance(HTMLParser):
    """Fails on tags that are not closed in order, and collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag in ("script", "iframe", "object", "embed"):
            self.fetched.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


CASES = [(1, 2), (2, 3), (3, 151), (10, 2)]


@pytest.mark.parametrize(("num_methods", "num_labels"), CASES)
def test_the_page_is_whole_self_contained_and_escaped(num_methods: int, num_labels: int) -> None:
    labels = ("a", "b", "ü & <i>", *(f"label {i}" for i in range(200)))[:num_labels]
    made = content(num_methods, labels, rows=max(60, 2 * num_labels))
    page = report.html(made)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert [link for link in parser.fetched if not link.startswith("#")] == []
    assert "url(" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    for method in made["methods"]:
        assert method["name"] in page
        assert f"{method['scores']['headline']['accuracy']['value']:.3f}" in page


def test_markdown_has_the_same_figures_in_whole_tables() -> None:
    made = content(3)
    text = report.markdown(made)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 3
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    for method in made["methods"]:
        value = method["scores"]["headline"]["accuracy"]
        assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in text
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)  # code spans are shown, not read


def test_the_model_card_has_valid_front_matter() -> None:
    text = report.card(content(1))
    front = yaml.safe_load(text.split("---")[1])
    assert "text-classification" in front["tags"]
    assert front["model-index"][0]["results"][0]["metrics"]
    assert "tunesmith predict" in text


def test_the_terminal_table_keeps_each_method_on_one_line() -> None:
    made = content(3)
    lines = terminal.table(made, width=92).splitlines()
    for method in made["methods"]:
        (line,) = [line for line in lines if method["name"] in line]
        assert f"{method['scores']['headline']['macro_f1']['high']:.3f}]" in line


def test_pure() -> None:
    made = content(2)
    assert report.html(made) == report.html(made)
