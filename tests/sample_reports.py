"""A made-up report with hostile texts, and what a page of it must hold to."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

import tunesmith
from tunesmith.evaluation import label_pairs, metrics
from tunesmith.evaluation.intervals import Confidence
from tunesmith.manifest import Costs, TrainingNotes
from tunesmith.reporting import conclusions
from tunesmith.reporting.schema import ClassificationReport, ClassificationResult, Curve, Mistake, SeededEnvironment
from tunesmith.types import DataNote, DataSummary, Prediction, Quantiles, SplitSummary

HOSTILE = '<script>alert("x")</script> | [a](http://evil) **b** {{ 7 * 7 }}'
VOID = {"meta", "br", "hr", "img", "link", "input", "col", "wbr"}


def content(
    num_methods: int = 2, labels: tuple[str, ...] = ("a", "b", "ü & <i>"), rows: int = 60
) -> ClassificationReport:
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
        methods.append(
            ClassificationResult(
                name=name,
                run=f"runs/{number}",
                description=HOSTILE,
                scores=metrics.score(gold, stored[name], labels, Confidence(resamples=100, seed=0)),
                validation=None if number else metrics.headline(gold, stored[name], labels),
                costs=Costs(
                    train_seconds=0.0123 * 50**number,
                    seconds_per_1000=0.2,
                    peak_memory_mb=310.0,
                    parameters=22_700_000,
                    trainable=1925,
                    size_mb=0.04,
                ),
                curve=Curve(((1, 1.0), (10, 0.5)), ((10, 0.7),), "macro_f1") if number else None,
                worst=(Mistake("x:1", HOSTILE * 20, HOSTILE if number else None, labels[0], labels[1], 0.98),),
                notes=TrainingNotes(device="cpu", cut=3),
            )
        )
    pairs = label_pairs.compare(gold, stored, labels, Confidence(resamples=100, seed=0)) if num_methods > 1 else []
    split = SplitSummary(rows, "ab" * 32, dict.fromkeys(labels, rows // len(labels)), Quantiles(20, 50, 90))
    return ClassificationReport(
        title=HOSTILE,
        created="2026-11-21 12:30",
        command=f"tunesmith compare {HOSTILE}",
        version="0.1.0",
        verdict=conclusions.of_labels(methods, pairs),
        methods=tuple(methods),
        pairs=tuple(pairs),
        data=DataSummary(
            source=HOSTILE,
            labels=labels,
            fingerprint="cd" * 32,
            made=("test",),
            splits={"train": split, "validation": split, "test": split},
            changes=(DataNote("dropped: empty text", 7, ("a.csv:3", HOSTILE)),),
        ),
        environment=SeededEnvironment(
            python="3.11",
            platform="x",
            cpu="y",
            cores=2,
            memory_gb=23.5,
            device="cpu",
            packages={"torch": "2.13.0"},
            git=None,
            seed=42,
        ),
    )


STYLES = Path(tunesmith.__file__).parent / "reporting" / "templates" / "report.css"
STYLED = set(re.findall(r"\.([a-z][a-z0-9]*)", STYLES.read_text(encoding="utf-8"))) | {"d0"}
"""Classes that the style sheet knows, and that of lines without dashes."""


class Balance(HTMLParser):
    """Fails on tags that are not closed in order, and collects what a browser would fetch or run.

    Fails too on a class without a style, and on a table that would be cut on a phone as it cannot be scrolled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[set[str]] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag in ("script", "iframe", "object", "embed"):
            self.fetched.append(tag)
        classes = set((dict(attrs).get("class") or "").split())
        assert classes <= STYLED, f"no style for {classes - STYLED}"
        if tag == "table" and classes & {"numbers", "matrix"}:
            assert any("scroll" in around for around in self.classes), f"a table outside a scroll region: {classes}"
        if tag not in VOID:
            self.open.append(tag)
            self.classes.append(classes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.classes.pop()
