"""The report: whole, self-contained, and proof against what texts and labels may hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import yaml

from tunesmith.evaluation import label_pairs, metrics
from tunesmith.evaluation.intervals import Confidence
from tunesmith.reporting import classification_report, terminal
from tunesmith.types import Prediction

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
        wrong = {
            "id": "x:1",
            "text": HOSTILE * 20,
            "text_pair": HOSTILE if number else None,
            "gold": labels[0],
            "predicted": labels[1],
            "probability": 0.98,
        }
        methods.append(
            {
                "name": name,
                "run": f"runs/{number}",
                "description": HOSTILE,
                "scores": metrics.score(gold, stored[name], labels, Confidence(resamples=100, seed=0)),
                "validation": None if number else metrics.headline(gold, stored[name], labels),
                "costs": {
                    "train_seconds": 0.0123 * 50**number,
                    "seconds_per_1000": 0.2,
                    "peak_memory_mb": 310.0,
                    "parameters": 22_700_000,
                    "trainable": 1925,
                    "size_mb": 0.04,
                },
                "curve": {"loss": [[1, 1.0], [10, 0.5]], "validation": [[10, 0.7]], "validation_metric": "macro_f1"}
                if number
                else None,
                "worst": [wrong],
                "notes": {"device": "cpu", "cut": 3},
            }
        )
    pairs = label_pairs.compare(gold, stored, labels, Confidence(resamples=100, seed=0)) if num_methods > 1 else []
    split = {
        "rows": rows,
        "fingerprint": "ab" * 32,
        "per_label": dict.fromkeys(labels, rows // len(labels)),
        "characters": {"median": 20, "p95": 50, "max": 90},
    }
    return {
        "title": HOSTILE,
        "created": "2026-11-21 12:30",
        "command": f"tunesmith compare {HOSTILE}",
        "version": "0.1.0",
        "verdict": label_pairs.verdict(methods, pairs),
        "methods": methods,
        "pairs": pairs,
        "data": {
            "source": HOSTILE,
            "labels": list(labels),
            "fingerprint": "cd" * 32,
            "made": ["test"],
            "splits": {"train": split, "validation": split, "test": split},
            "changes": [{"what": "dropped: empty text", "count": 7, "where": ["a.csv:3", HOSTILE]}],
        },
        "environment": {
            "python": "3.11",
            "platform": "x",
            "cpu": "y",
            "cores": 2,
            "memory_gb": 23.5,
            "device": "cpu",
            "packages": {"torch": "2.13.0"},
            "git": None,
            "seed": 42,
        },
    }


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
    page = classification_report.html(made)
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
    text = classification_report.markdown(made)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 3
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    for method in made["methods"]:
        value = method["scores"]["headline"]["accuracy"]
        assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in text
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)  # code spans are shown, not read


def test_the_model_card_has_valid_front_matter() -> None:
    text = classification_report.card(content(1))
    front = yaml.safe_load(text.split("---")[1])
    assert "text-classification" in front["tags"]
    assert front["model-index"][0]["results"][0]["metrics"]
    assert "tunesmith predict" in text


def test_the_hub_can_read_the_card() -> None:
    from huggingface_hub import ModelCard

    made = content(1)
    made["methods"][0]["name"] = "encoder"
    data = ModelCard(classification_report.card(made)).data
    assert data.to_dict()["library_name"] == "transformers"
    accuracy = made["methods"][0]["scores"]["headline"]["accuracy"]["value"]
    assert data.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-4)


def test_cut_texts_are_told_on_the_page_and_in_the_card() -> None:
    made = content(1)
    assert re.search(r"<dt>Texts cut to fit</dt><dd>3</dd>", classification_report.html(made))
    assert "3 texts were longer than the model's input and were cut." in classification_report.card(made)


def test_labels_named_like_python_attributes_are_only_labels() -> None:
    made = content(2, labels=("__class__", "items", "values"))
    page = classification_report.html(made)
    assert all(label in page for label in made["data"]["labels"])
    assert "built-in method" not in page


def test_empty_bins_missing_numbers_and_a_single_evaluation_can_be_shown() -> None:
    made = content(2)
    for method in made["methods"]:
        method["scores"]["calibration"][0] |= {"count": 0, "confidence": None, "accuracy": None}
        method["costs"] = dict.fromkeys(method["costs"])
    made["methods"][1]["curve"] = {"loss": [], "validation": [[47, 0.5]], "validation_metric": "macro_f1"}
    made["data"] |= {"changes": [], "made": []}
    page = classification_report.html(made)
    assert "Nothing: no row was dropped" in page
    assert "validation macro F1" in page
    assert "0.500000" not in page  # the axis around one value has short ticks
    assert "–" in classification_report.markdown(made)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (classification_report.seconds(0.04), "40 ms"),
        (classification_report.seconds(0.42), "0.4 s"),
        (classification_report.seconds(12.3), "12 s"),
        (classification_report.seconds(59.7), "1 min"),
        (classification_report.seconds(200), "3 min 20 s"),
        (classification_report.seconds(7500), "2 h 5 min"),
        (classification_report.count(50_000), "50,000"),
        (classification_report.count(120_400), "120 k"),
        (classification_report.count(999_999), "1.0 M"),
        (classification_report.count(22_713_216), "22.7 M"),
        (classification_report.count(1_300_000_000), "1.3 B"),
        (classification_report.megabytes(0.04), "40 kB"),
        (classification_report.megabytes(1.21), "1.2 MB"),
        (classification_report.megabytes(1400), "1.4 GB"),
        (classification_report.chance(0.0001), "< 0.001"),
        (classification_report.chance(0.042), "0.042"),
        (classification_report.chance(0.31), "0.31"),
        (classification_report.signed(-0.0001), "0.000"),
        (classification_report.signed(-0.012), "−0.012"),
        (classification_report.percent(0.004), "0.4%"),
    ],
)
def test_numbers_are_written_for_people(shown: str, text: str) -> None:
    assert shown == text


def test_the_terminal_table_keeps_each_method_on_one_line() -> None:
    made = content(3)
    lines = terminal.table(made, width=92).splitlines()
    for method in made["methods"]:
        (line,) = [line for line in lines if method["name"] in line]
        assert f"{method['scores']['headline']['macro_f1']['high']:.3f}]" in line


def test_pure() -> None:
    made = content(2)
    assert classification_report.html(made) == classification_report.html(made)
