"""The folder of an audit: taken by one process, whole or not there, and resumed as it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith import cli, disk
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.pipeline.audit_sections.audit_input import CurveSettings
from tunesmith.pipeline.commands import audit as audits
from tunesmith.pipeline.commands.audit import Audit

QUICK = ["linear.min_df=1", "bootstrap_samples=100"]
PART = "learning_curve/linear/seed-1-rows-*.json"


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_csv(tmp_path / "topics.csv", tiny.texts(120)))


def audit(source: str, *, output: str = "audit", **options: Any) -> Audit:
    return tunesmith.audit(source, QUICK, method="linear", output=output, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_audits_that_begin_at_once_one_gets_the_folder(texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are still reading the data while one has the folder already."""
    reading = threading.Barrier(2)
    read_splits = audits.read_splits

    def slow(recipe: Any) -> Any:
        reading.wait(30)
        return read_splits(recipe)

    monkeypatch.setattr(audits, "read_splits", slow)
    finished, refused = [], []

    def begin() -> None:
        try:
            finished.append(audit(texts))
        except RunError as error:
            refused.append(str(error))
            reading.wait(30)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(finished), len(refused)) == (1, 1)
    assert "audit is not empty" in refused[0]
    assert {"audit.json", "report.html", "review.csv"} <= files(Path("audit")).keys()


def test_an_audit_that_is_running_is_not_resumed_beside_itself(texts: str) -> None:
    audit(texts)
    before = files(Path("audit"))
    with disk.reserved(Path("audit/recipe.yaml")), pytest.raises(RunError, match="another audit is running in audit"):
        tunesmith.audit(resume="audit")
    assert files(Path("audit")) == before
    tunesmith.audit(resume="audit")


def _no_data(source: str) -> None:
    Path(source).write_text("text,label\n")


def _no_column(source: str) -> None:
    Path(source).write_text(Path(source).read_text().replace("label", "topic", 1))


@pytest.mark.parametrize(("damage", "is_there"), [(_no_data, False), (_no_column, True)])
def test_what_cannot_be_audited_leaves_the_folder_as_it_was(
    damage: Callable[[str], None], is_there: bool, texts: str
) -> None:
    whole = Path(texts).read_text()
    damage(texts)
    if is_there:
        Path("audit").mkdir()
    with pytest.raises(DataError):
        audit(texts)
    with pytest.raises(RecipeError, match="no method 'boosting'"):
        tunesmith.audit(texts, QUICK, method="boosting", output="audit")
    assert Path("audit").exists() == is_there
    Path(texts).write_text(whole)
    assert audit(texts).page.is_file()


@pytest.mark.parametrize("name", ["notes.txt", "recipe.yaml", "plan.json"])
def test_a_folder_with_files_is_refused_and_stays_as_it_is(name: str, texts: str) -> None:
    Path("audit").mkdir()
    Path("audit", name).write_text("mine")
    with pytest.raises(RunError, match="audit is not empty") as error:
        audit(texts)
    assert ("tunesmith audit --resume audit" in str(error.value)) == (name == "plan.json")
    assert files(Path("audit")) == {name: b"mine"}


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "another method": ("plan.json", lambda content: content.replace(b'"linear"', b'"probe"', 1)),
    "no hash": ("plan.json", lambda content: json.dumps(json.loads(content) | {"sha256": None}).encode()),
    "cut": ("plan.json", lambda content: content[:40]),
    "a list": ("plan.json", lambda content: b"[]"),
    "a setting": ("recipe.yaml", lambda content: content.replace(b"seed: 42", b"seed: 43", 1)),
    "nothing": ("recipe.yaml", lambda content: b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_refused_and_the_error_says_to_audit_again(damage: str, texts: str) -> None:
    name, make = DAMAGE[damage]
    audit(texts)
    file = Path("audit", name)
    content = file.read_bytes()
    assert make(content) != content
    file.write_bytes(make(content))
    before = files(Path("audit"))
    with pytest.raises(RunError, match=f"audit is damaged: {name} ") as error:
        tunesmith.audit(resume="audit")
    assert "or audit again" in str(error.value)
    assert ("(tunesmith audit audit/recipe.yaml)" in str(error.value)) == (name == "plan.json")
    assert files(Path("audit")) == before


def test_without_verification_a_changed_recipe_is_used(texts: str) -> None:
    audit(texts)
    recipe = Path("audit/recipe.yaml")
    recipe.write_text(recipe.read_text() + "# mine\n")
    assert cli.main(["audit", "--resume", "audit"]) == 2
    assert cli.main(["audit", "--resume", "audit", "--no-verify"]) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda content: content.replace(b'"score": 0.', b'"score": 0.1', 1),
        lambda content: content[: len(content) // 2],
        lambda content: json.dumps({**json.loads(content), "resampled": [0.5]}, indent=2).encode(),
        lambda content: b"",
    ],
    ids=["a digit", "cut", "fewer draws", "empty"],
)
def test_damaged_scores_of_a_learning_curve_are_computed_again(
    make: Callable[[bytes], bytes], texts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = audit(texts, learning_curve=CurveSettings(("linear",), (1, 2))).report.learning_curve
    part = sorted(Path("audit").glob(PART))[0]
    content = part.read_bytes()
    assert "sha256" in json.loads(content)
    assert make(content) != content
    part.write_bytes(make(content))
    capsys.readouterr()
    assert tunesmith.audit(resume="audit").report.learning_curve == whole
    assert part.read_bytes() == content
    assert f"{part.name} " in (said := capsys.readouterr().err)
    assert said.count("this part of the learning curve is trained again") == 1


def test_a_review_that_was_edited_survives_a_resumed_audit(texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    audit(texts, review_jsonl=True)
    untouched = Path("audit/review.jsonl").read_bytes()
    Path("audit/review.csv").write_text("decision\ndrop\n")
    tunesmith.audit(resume="audit")
    assert Path("audit/review.csv").read_text() == "decision\ndrop\n"
    assert Path("audit/review.jsonl").read_bytes() == untouched
    assert "review.csv has been edited and stays as it is" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{}, {"cleaning_gain": True}])
def test_rows_of_which_each_has_a_label_of_its_own_are_audited_without_their_labels(options: dict[str, Any]) -> None:
    rows = [(text, f"label {n}") for n, (text, _) in enumerate(tiny.texts(2))]
    words = [*QUICK, "split.test_size=0", "split.validation_size=0"]
    report = tunesmith.audit(str(write_csv(Path("two.csv"), rows)), words, method="linear", **options).report
    assert report.labels is not None
    assert "learned no training row's label from other rows" in report.labels.findings[0].headline


def test_rows_that_all_have_one_text_are_audited_without_their_labels() -> None:
    rows = [("the goal of the match", label) for label in ("sport", "tech") * 10]
    words = [*QUICK, "split.test_size=0", "split.validation_size=0"]
    report = tunesmith.audit(str(write_csv(Path("same.csv"), rows)), words, method="linear").report
    assert report.labels is not None
    assert report.labels.findings[0].headline.startswith("The labels were not judged")
