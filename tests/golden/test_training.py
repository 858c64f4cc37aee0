"""Every method and task through `train`: what is said, scored, predicted and reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.golden.cases import BYTES, CASES
from tests.golden.record import Record
from tests.golden.workspace import DATA, Workspace, real_rows

Golden = Callable[[str], Record]
PAGES = ("linear", "instruction_full")
"""Runs whose page is recorded as well as its Markdown twin."""
CARDS = (*PAGES, "encoder", "generator_lora", "instruction_lora", "instruction_untuned")
"""Runs whose model card is recorded."""
REAL = {
    "real_sms_spam": (
        "sms_spam/SMSSpamCollection.csv.gz",
        120,
        [
            "classification.yaml",
            "method=linear",
            "label_texts={}",
        ],
    ),
    "real_ag_news": (
        "ag_news/test_even.csv.gz",
        120,
        [
            "classification.yaml",
            "label_texts={}",
            "data.label_names=[World, Sports, Business, Science]",
        ],
    ),
    "real_alpaca": ("alpaca_gpt4_1k/train.jsonl.gz", 30, ["instruction.yaml", *BYTES]),
    "real_book": ("llms_from_scratch_ch07/instruction-data.json", 30, ["instruction.yaml", *BYTES, "template=alpaca"]),
}
"""Source, rows and words of runs on real rows."""


def whole(record: Record, workspace: Workspace, name: str, words: list[str]) -> None:
    """Train, and record what was said and everything that the run directory holds."""
    run = workspace.train(name, words)
    record.add(f"tunesmith train {' '.join(words)}", str(workspace.said[name]))
    predictions = sorted(f"predictions/{path.name}" for path in (run / "predictions").iterdir() if path.stat().st_size)
    names = ["manifest.json", "scores.json", "metrics.jsonl", *predictions, "report.md"]
    names += ["worst.json", "README.md"] if name in CARDS else []
    names += ["report.html"] if name in PAGES else []
    record.files(run, *(each for each in names if (run / each).exists()))
    record.add("files", "\n".join(sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())))
    record.check()


@pytest.mark.parametrize("name", CASES)
def test_train(name: str, workspace: Workspace, golden: Golden) -> None:
    whole(golden(f"train_{name}"), workspace, name, CASES[name])


@pytest.mark.parametrize("name", REAL)
def test_train_on_real_rows(name: str, workspace: Workspace, golden: Golden) -> None:
    source, rows, words = REAL[name]
    if not (DATA / source).exists():
        pytest.skip("the shared data sets are not here")
    path = real_rows(source, workspace.folder / name, rows)
    whole(golden(f"train_{name}"), workspace, name, [*words, f"data.path={path.name}"])
