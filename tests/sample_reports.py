"""A made-up report with hostile texts, and what a page of it must hold to."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np

from tunesmith.evaluation import label_pairs, metrics
from tunesmith.evaluation.intervals import Confidence
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
