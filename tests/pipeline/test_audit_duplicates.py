"""`tunesmith audit` on copies: pages, audit.json, duplicates.csv, exit codes, and data nobody prepared."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.random_texts import text
from tests.sample_reports import Balance
from tunesmith import cli
from tunesmith.auditing.duplicate_audit import DuplicateAudit
from tunesmith.pipeline.audit_sections import duplicate_section
from tunesmith.pipeline.audit_sections.audit_input import AuditInput, AuditPlan
from tunesmith.pipeline.commands import audit as command
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import load
from tunesmith.reporting import audit_report
from tunesmith.runs import Run


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the part under test is made."""
    monkeypatch.setattr(command, "SECTIONS", {"duplicates": duplicate_section.audit})


def leaking() -> pd.DataFrame:
    texts = [text(n) for n in range(60)]
    texts[50:53] = [texts[0].upper(), texts[1] + " indeed", texts[2]]
    split = ["train"] * 40 + ["test"] * 20
    return pd.DataFrame({"text": texts, "label": [["x", "y"][n % 2] for n in range(60)], "part": split})


def test_an_audit_writes_its_pages_and_all_pairs(tmp_path: Path) -> None:
    result = command.audit(leaking(), ["split.column=part", "split.validation_size=0"], output=tmp_path / "out")
    found = result.report.duplicates
    assert found is not None
    assert [(c.split, c.other, c.exact, c.normalised, c.near) for c in found.counts] == [("test", "train", 1, 1, 1)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "3 of 20 test rows (15.0%) have a copy in train" in page
    assert '<mark class="against" style="--part:40%">' in page or '<mark style="--part:40%">' in page
    assert "<script" not in page
    parser = Balance()
    parser.feed(
        page[
            page.index('<section id="duplicates" aria-labelledby="duplicates-title">') : page.index(
                '<h2 id="data-title">'
            )
        ]
    )
    assert parser.open == ["section"]  # the next one has begun
    assert "## Duplicates and leaks" in (tmp_path / "out" / "report.md").read_text()
    stored = json.loads((tmp_path / "out" / "audit.json").read_text())["duplicates"]
    assert stored["counts"][0]["near"] == 1
    with (tmp_path / "out" / "duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["grade"], row["folds"], row["other_split"]) for row in rows] == [
        ("normalised", "case", "train"),
        ("near", "", "train"),
        ("exact", "", "train"),
    ]
    assert rows[1]["text"] == text(1) + " indeed"
    assert audit_report.headline(result.report) == "1 severe finding."


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 3)])
def test_strict_ends_with_code_3(tmp_path: Path, strict: list[str], code: int) -> None:
    path = tmp_path / "data.csv"
    leaking().to_csv(path, index=False)
    settings = ["split.column=part", "split.validation_size=0", "--output", str(tmp_path / "out")]
    assert cli.main(["audit", str(path), *settings, *strict]) == code


def test_a_recipe_that_refuses_leaks_is_audited_all_the_same(tmp_path: Path) -> None:
    result = command.audit(leaking(), ["split.column=part", "split.leaks=error"], output=tmp_path / "out")
    assert result.report.duplicates is not None
    assert result.report.duplicates.counts[0].copies == 3


def part(folder: Path, path: Path, *settings: str) -> DuplicateAudit:
    recipe = load({"data": {"path": str(path)}}, settings)
    found = duplicate_section.audit(AuditInput(recipe, read_splits(recipe), Run(folder), AuditPlan(method="linear")))
    assert found is not None
    return found


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_conversations_are_compared_by_their_prompts(tmp_path: Path) -> None:
    rows = [{"instruction": text(n, 12), "output": "yes"} for n in range(30)]
    rows += [{"instruction": text(n, 12).upper(), "output": "no"} for n in range(3)]
    rows += [{"instruction": text(n, 12) + " please", "output": "no"} for n in range(3, 6)]
    found = part(tmp_path, write(tmp_path / "data.jsonl", rows), "task=instruction", "test_size=6")
    assert sum(count.copies for count in found.counts) == 6
    assert all(count.within for count in found.counts)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (["data.text=review", "data.label=stars"], [{"review": text(n // 2), "stars": n // 2 % 2} for n in range(40)]),
        (["task=regression"], [{"text": text(n // 2), "label": n // 2 % 2} for n in range(40)]),
        (["task=multilabel"], [{"text": text(n // 2), "label": ["a", "b"][: n % 3]} for n in range(40)]),
        (
            ["data.text=a", "data.text_pair=b"],
            [{"a": text(n // 2), "b": text(n // 2 + 100), "label": "xy"[n // 2 % 2]} for n in range(40)],
        ),
    ],
)
def test_every_task_and_other_columns(tmp_path: Path, settings: list[str], rows: list[dict[str, Any]]) -> None:
    found = part(tmp_path, write(tmp_path / "data.jsonl", rows), *settings)
    assert sum(count.exact for count in found.counts) == 20
    assert (tmp_path / "duplicates.csv").exists()


def test_tiny_and_odd_texts(tmp_path: Path) -> None:
    texts = ["!", "!!", ":)", ":(", "a" * 50_000, "b " * 20_000, "\u2028x", "=1+1", "z", "y"]
    rows = [{"text": each, "label": "xy"[n % 2]} for n, each in enumerate(texts)]
    found = part(tmp_path, write(tmp_path / "data.jsonl", rows), "test_size=2", "validation_size=0")
    assert found.counts == ()
    assert not (tmp_path / "duplicates.csv").exists()
