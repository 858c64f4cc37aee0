"""`tunesmith audit --paraphrases`: every text is embedded once for the whole audit, whatever the task."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import write_csv
from tests.random_texts import text
from tests.sample_reports import Balance
from tunesmith import cli
from tunesmith.errors import RecipeError
from tunesmith.pipeline.audit_sections import duplicate_section, label_section, paraphrase_section
from tunesmith.pipeline.commands import audit as command
from tunesmith.prediction.classify import Encoder

Models = Callable[[str], Path]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that go through an encoder; of the parts of an audit those that embed are made."""
    parts = {
        "duplicates": duplicate_section.audit,
        "paraphrases": paraphrase_section.audit,
        "labels": label_section.audit,
    }
    monkeypatch.setattr(command, "SECTIONS", parts)
    seen: list[str] = []
    plain = Encoder.rows

    def rows(self: Encoder, examples: Sequence[Any], *more: Any) -> Any:
        seen.extend(example.text for example in examples)
        return plain(self, examples, *more)

    monkeypatch.setattr(Encoder, "rows", rows)
    return seen


def test_texts_are_embedded_once_for_all_parts_of_an_audit(
    tiny_models: Models, tmp_path: Path, embedded: list[str]
) -> None:
    texts = tiny.texts(150)
    pool = tmp_path / "pool.csv"
    write_csv(pool, [(text, "") for text, _ in tiny.texts(180)[140:]])
    words = [f"model.name_or_path={tiny_models('bert')}", "split.test_size=30"]
    source = str(write_csv(tmp_path / "texts.csv", texts))
    result = command.audit(
        source, words, output=tmp_path / "out", paraphrases=0.999, unlabelled=str(pool), learning_curve=True
    )
    assert sorted(embedded) == sorted(text for text, _ in tiny.texts(180))
    report = result.report
    assert report.paraphrases is not None
    assert report.paraphrases.threshold == 0.999
    assert report.labels is not None
    assert report.labels.method == "probe"
    assert report.active_labelling is not None


def test_the_page_audit_json_and_the_file_of_pairs(tiny_models: Models, tmp_path: Path, embedded: list[str]) -> None:
    rows = [(text(n), "y") for n in range(15)]  # of words that the model does not know, and cannot tell apart
    source = str(write_csv(tmp_path / "texts.csv", [*tiny.texts(60), *rows]))
    words = ["audit", source, f"model.name_or_path={tiny_models('bert')}", "--method", "linear", "--output", "out"]
    assert cli.main([*words, "--paraphrases", "--paraphrase-threshold", "0.99999"]) == 0
    folder = tmp_path / "out"
    part = json.loads((folder / "audit.json").read_text())["paraphrases"]
    with (folder / part["file"]).open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert {pair["grade"] for pair in pairs} == {"paraphrase"}
    assert len(pairs) == sum(count["paraphrases"] for count in part["counts"]) > 12
    assert part["model"] == "bert"
    page = (folder / "report.html").read_text()
    begin = page.index('<section id="paraphrases"')
    section = page[begin : page.index("<section", begin + 1)]
    parser = Balance()
    parser.feed(section)
    assert parser.open == []
    assert "paraphrase, 1.00" in section
    assert "similar in meaning to a row of train, and no copy by words" in page
    assert "## Similar in meaning" in (folder / "report.md").read_text()
    assert json.loads((folder / "plan.json").read_text())["paraphrases"] == 0.99999


def test_without_being_asked_for_nothing_is_embedded(tmp_path: Path, embedded: list[str]) -> None:
    source = str(write_csv(tmp_path / "texts.csv", tiny.texts(60)))
    assert command.audit(source, output=tmp_path / "out", method="linear").report.paraphrases is None
    assert embedded == []


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["task=regression"], [{"text": text(n), "label": n} for n in range(40)]),
        (["task=multilabel"], [{"text": text(n), "label": ["a", "b"][: n % 3]} for n in range(40)]),
        (["data.text_pair=b"], [{"text": text(n // 2), "b": text(n + 100), "label": "xy"[n % 2]} for n in range(40)]),
    ],
)
def test_every_task(
    words: list[str], rows: list[dict[str, Any]], tiny_models: Models, tmp_path: Path, embedded: list[str]
) -> None:
    """The model knows no word of these texts, and takes all for one."""
    model = f"model.name_or_path={tiny_models('bert')}"
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["split.test_size=10", "split.validation_size=0"]
    result = command.audit(
        str(path), [model, *words, *more], output=tmp_path / "out", method="linear", paraphrases=True
    )
    part = result.report.paraphrases
    assert part is not None
    counts = {(count.split, count.other): count.paraphrases for count in part.counts}
    assert counts == {("test", "train"): 10, ("train", "train"): 29, ("test", "test"): 9}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_is_none(threshold: float, reviews: Path) -> None:
    with pytest.raises(RecipeError, match="--paraphrase-threshold is"):
        command.audit(str(reviews), paraphrases=threshold)


def test_a_threshold_alone_is_refused(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(reviews), "--paraphrase-threshold", "0.8"]) == 2
    assert "add --paraphrases" in capsys.readouterr().err


SENTENCES = [
    "The company's shares fell sharply after the profit warning.",
    "Stocks of the firm dropped steeply following the warning about its profits.",
    "How do I reset the password of my account?",
    "What can I do to reset my account's password?",
    "The striker scored two late goals to win the match.",
    "It will rain in the north on Monday.",
    "She bakes bread every Sunday morning.",
    "The parliament voted against the new treaty.",
    "My phone's battery is empty after an hour.",
    "Whales are mammals that live in the sea.",
    "The museum opens at ten and is free for children.",
    "A fast train now connects both cities.",
]


@pytest.mark.real
@pytest.mark.parametrize("task", ["classification", "instruction"])
def test_paraphrases_are_found_and_other_texts_are_not(task: str, tmp_path: Path, embedded: list[str]) -> None:
    names = ("instruction", "output") if task == "instruction" else ("text", "label")
    source = str(write_csv(tmp_path / "texts.csv", [(each, "ab"[n % 2]) for n, each in enumerate(SENTENCES)], names))
    words = [f"task={task}", "split.test_size=0", "split.validation_size=0"]
    part = command.audit(source, words, output=tmp_path / "out", method="linear", paraphrases=0.7).report.paraphrases
    assert part is not None
    assert {(pair.other_text, pair.text) for pair in part.pairs} == {tuple(SENTENCES[:2]), tuple(SENTENCES[2:4])}
    assert part.usual < 0.3
