"""Pseudo-labels: votes and what a threshold keeps, by classifiers and by a model that answers."""

from __future__ import annotations

import csv
import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.sample_reports import Balance
from tests.small_runs import TOPICS, learn, tagged
from tunesmith import cli
from tunesmith.errors import RecipeError, RunError
from tunesmith.evaluation.intervals import Estimate, wilson
from tunesmith.evaluation.self_consistency import at_threshold, final_number, normalized_text, threshold_curve, vote
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.prediction.generate import Generator
from tunesmith.runs import Run
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import PredictionRow


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("She makes 9 * 2 = $18 a day.\n#### 18", "18"),
        ("so 1,234.50 dollars", "1234.5"),
        ("It is 3, or 4.0", "4"),
        (r"thus \boxed{-7} holds for 2 of them", "-7"),
        ("The answer is 12. I checked 3 times.", "12"),
        ("$1,000", "1000"),
        ("0.0", "0"),
        ("none", None),
        ("", None),
        ("7 apples. The answer is: unknown", "7"),
    ],
)
def test_the_final_number(answer: str, number: str | None) -> None:
    assert final_number(answer) == number


def test_answers_are_compared_without_case_spaces_and_outer_punctuation() -> None:
    assert normalized_text("  The  Answer.\n") == normalized_text("the answer") == "the answer"
    assert normalized_text("a.b") != normalized_text("ab")
    assert normalized_text(" ... ") is None


def test_votes() -> None:
    found = vote(["b", "a", None, "a"])
    assert (found.index, found.agreement, found.tied, found.counts) == (1, 0.5, False, (("a", 2), ("b", 1)))
    assert vote(["a", "b"]).tied
    assert vote([None, None]).index is None


def test_a_curve_by_hand() -> None:
    rows = [(0.9, True), (0.8, True), (0.8, False), (0.5, False)]
    points = {
        point.threshold: (point.kept, point.coverage, point.precision.value)
        for point in threshold_curve(rows, 0.6, 0.95)
    }
    assert points == {0.5: (4, 1, 0.5), 0.6: (3, 0.75, 2 / 3), 0.8: (3, 0.75, 2 / 3), 0.9: (1, 0.25, 1)}
    low, high = wilson(2, 3, 0.95)
    assert at_threshold(rows, 0.8, 0.95).precision == Estimate(2 / 3, low, high)
    assert at_threshold(rows, 0.95, 0.95).precision is None


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def linear(reviews: Path, folder: str, *overrides: str) -> Run:
    recipe = {"method": "linear", "data": {"path": str(reviews)}}
    return tunesmith.train(recipe, ["evaluate.bootstrap_samples=100", *overrides], run_dir=folder)


def test_a_classifier_keeps_what_it_is_sure_of(reviews: Path, tmp_path: Path) -> None:
    run = linear(reviews, "run")
    new = write_csv(tmp_path / "new.csv", tiny.texts(90, seed=3))
    found = tunesmith.pseudo_label(run.path, source=str(new), threshold=0.8)
    kept, left = lines(found.kept), lines(found.left_out)
    assert found.kept == run.path / "pseudo-labels" / "new.jsonl"
    assert len(kept) + len(left) == found.report.rows == 90
    assert len(kept) == found.report.kept > 0 < len(left)
    assert all(row["agreement"] >= 0.8 for row in kept)
    assert {row["reason"] for row in left} == {"agreement below the threshold"}
    predicted = {row["id"]: row for row in tunesmith.predict(run, source=str(new))}
    for row in kept:
        assert (row["label"], row["text"]) == (predicted[row["id"]]["predicted_label"], predicted[row["id"]]["text"])
        assert row["agreement"] == pytest.approx(predicted[row["id"]]["probability"])
        assert row["from"] == {"run": "run", "model": "linear", "seed": 42}
    gold = {f"new.csv:{n}": row["label"] for n, row in enumerate(csv.DictReader(new.read_text().splitlines()), 2)}
    right = sum(gold[row["id"]] == row["label"] for row in kept)
    chosen = found.report.chosen
    assert (chosen.kept, chosen.precision.value) == (len(kept), right / len(kept))
    assert 0.8 in [point.threshold for point in found.report.curve]
    page = found.page.read_text()
    assert "Precision and coverage" in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    again = linear(found.kept, "again", "split.test_size=10")  # what was kept can be trained on as it is
    assert again.manifest.status == "finished"


def test_the_label_that_was_decided_counts(reviews: Path, tmp_path: Path) -> None:
    """Not the most probable one; and where the model abstains, nothing is kept."""
    costs = "decide.costs={sport: {tech: 20, world: 20}}"
    run = linear(reviews, "run", costs, "decide.abstain={coverage: 0.7}")
    new = write_csv(tmp_path / "new.csv", tiny.texts(90, seed=3))
    found = tunesmith.pseudo_label(run.path, source=str(new), threshold=0)
    kept, left = lines(found.kept), lines(found.left_out)
    predicted = {row["id"]: row for row in tunesmith.predict(run, source=str(new))}
    for row in kept:
        assert row["label"] == predicted[row["id"]]["predicted_label"]
        assert row["agreement"] == pytest.approx(predicted[row["id"]]["probability"])
    assert min(row["agreement"] for row in kept) < 0.5  # a label that is given though another one is more probable
    assert {row["id"] for row in left} == {name for name, row in predicted.items() if row["abstained"]} != set()
    assert {row["reason"] for row in left} == {"the model abstains"}


def test_several_runs_vote(reviews: Path, tmp_path: Path) -> None:
    made = [linear(reviews, f"run{n}", f"seed={n}", "split.max_samples=30") for n in (1, 2, 3)]
    new = write_csv(tmp_path / "new.csv", tiny.texts(60, seed=3))
    found = tunesmith.pseudo_label(
        *(run.path for run in made), source=str(new), threshold=1.0, output=tmp_path / "out.jsonl"
    )
    said = [[row["predicted_label"] for row in tunesmith.predict(run, source=str(new))] for run in made]
    rows = {row["id"]: row for row in [*lines(found.kept), *lines(found.left_out)]}
    for n, votes in enumerate(zip(*said, strict=True), 2):
        row = rows[f"new.csv:{n}"]
        most = max(map(votes.count, votes))
        assert row["agreement"] == most / 3
        assert votes.count(row["label"]) == most
        assert bool(row.get("reason")) == (most < 3)
        assert row["tied"] == (most == 1)
    assert [one["run"] for one in lines(found.kept)[0]["from"]] == [str(run.path) for run in made]
    other = write_csv(tmp_path / "other.csv", [(text, label.upper()) for text, label in tiny.texts(60)])
    with pytest.raises(RunError, match="different labels"):
        tunesmith.pseudo_label(made[0].path, linear(other, "other").path, source=str(new))


def tagging(folder: Path, name: str, path: Path, *overrides: str) -> Run:
    source = {"task": "multilabel", "method": "linear", "data": {"path": str(path)}}
    return tunesmith.train(source, ["bootstrap_samples=100", *overrides], run_dir=folder / name, quiet=True)


@pytest.mark.parametrize("form", ["list", "separator", "columns"])
def test_a_row_is_kept_where_every_label_is_sure(form: str, tmp_path: Path) -> None:
    """It can be trained on as it is, however the labels of the run's own data were written."""
    rows = lines(tagged(tmp_path / "tagged.jsonl"))
    settings, read = {
        "list": (["data.label=labels"], lambda row: {"labels": row["labels"]}),
        "separator": (
            ["data.label=tags", "data.label_separator=|"],
            lambda row: {"tags": "|".join(row["labels"])},
        ),
        "columns": (
            [f"data.label=[{','.join(TOPICS)}]"],
            lambda row: {topic: int(topic in row["labels"]) for topic in TOPICS},
        ),
    }[form]
    for name, part in (("old", rows[:200]), ("new", rows[200:])):
        text = "".join(json.dumps({"text": row["text"], **read(row)}) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(text)
    run = tagging(tmp_path, "run", tmp_path / "old.jsonl", *settings)
    new = tmp_path / "new.jsonl"
    found = tunesmith.pseudo_label(run.path, source=str(new), threshold=0.7, output=tmp_path / "out.jsonl")
    kept, left = lines(found.kept), lines(found.left_out)
    assert 0 < len(kept) < len(kept) + len(left) == 100
    target = load_text_predictor(run).target
    assert isinstance(target, MultiLabel)
    predicted = {row["id"]: row for row in tunesmith.predict(run, source=str(new), top_k=3)}
    right = []
    for row in [*kept, *left]:
        told = predicted[row["id"]]
        labels, known = told["predicted_labels"], rows[200 + int(row["id"].split(":")[1]) - 1]["labels"]
        distance = [
            (p - at) / (1 - at) if p >= at else (at - p) / at
            for label, at in zip(target.labels, target.thresholds, strict=True)
            for p in [told["probabilities"][label]]
        ]
        assert row["agreement"] == pytest.approx(0.5 + min(distance) / 2)
        assert (row["agreement"] >= 0.7) == ("reason" not in row)
        assert list(row["votes"]) == labels
        assert row["right"] == ({*known} == {*labels})
        if form == "columns":
            assert [topic for topic in TOPICS if row[topic]] == [topic for topic in TOPICS if topic in labels]
        else:
            assert row[{"list": "labels", "separator": "tags"}[form]] == labels
        right += [row["right"]] if "reason" not in row else []
    assert found.report.chosen.precision.value == pytest.approx(sum(right) / len(right))
    assert "certainty of the least certain label" in found.page.read_text()
    assert tagging(tmp_path, "again", found.kept, *settings).manifest.status == "finished"


def test_what_has_no_votes_is_refused(reviews: Path, tmp_path: Path) -> None:
    model = tmp_path / "none"
    numbers = learn("regression", "linear", tmp_path / "numbers", model)
    with pytest.raises(RunError, match=r"nothing says how sure a number is\n.*\n.*task regression"):
        tunesmith.pseudo_label(numbers.path, source=str(reviews))
    tags = learn("multilabel", "linear", tmp_path / "tags", model)
    with pytest.raises(RunError, match=r"one label a text\n.*\n.*2 runs of task multilabel"):
        tunesmith.pseudo_label(tags.path, tags.path, source=str(reviews))
    with pytest.raises(RunError, match="2 runs of task classification and multilabel"):
        tunesmith.pseudo_label(tags.path, linear(reviews, "run").path, source=str(reviews))


def test_without_labels_of_their_own_the_test_rows_tell_the_precision(reviews: Path, tmp_path: Path) -> None:
    run = linear(reviews, "run")
    (tmp_path / "new.csv").write_text("text\nthe goal of the team\na chip\n")
    found = tunesmith.pseudo_label(run.path, source=str(tmp_path / "new.csv"), threshold=0.0)
    tested = run.predictions("test", PredictionRow)
    right = sum(row.label == row.gold for row in tested)
    assert (found.report.kept, found.report.labelled, found.report.from_test) == (2, len(tested), True)
    assert found.report.chosen is not None
    assert found.report.chosen.precision is not None
    assert found.report.chosen.precision.value == right / len(tested)
    assert f"Of the {len(tested)} test rows of the run, 100% would be kept" in found.page.read_text()
    other = linear(reviews, "other")
    unknown = tunesmith.pseudo_label(run.path, other.path, source=str(tmp_path / "new.csv"), threshold=0.0)
    assert (unknown.report.chosen, unknown.report.curve, unknown.report.kept) == (None, (), 2)
    assert "is not known" in unknown.page.read_text()


@pytest.fixture
def answering(tmp_path: Path) -> Path:
    """An untuned run of a tiny model that writes bytes."""
    model = tiny.generator("llama", tmp_path / "model")
    rows = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(30)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    recipe = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "train.json")},
        "model": {"name_or_path": str(model)},
        "prompt": {"template": "alpaca"},
        "train": {"num_train_epochs": 0},
        "generate": {"max_new_tokens": 4},
        "evaluate": {"max_responses": 2, "bootstrap_samples": 100},
    }
    return tunesmith.train(recipe, run_dir="answering").path


def test_sampled_answers_vote_and_become_alpaca_rows(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sampled is written down for each prompt; a prompt is read once for all of its samples."""
    from tunesmith.types import Response

    said = {
        "Two and two?": [("It is 4.", True), ("4", True), ("four: 4", True), ("5", True)],
        "Undecided?": [("1", True), ("2", True), ("1", True), ("2", True)],
        "Endless?": [("9", False)] * 4,
        "Wrong?": [("8", True)] * 3 + [("8", False)],
    }
    asked: list[tuple[int, int, bool, float]] = []

    def samples(self: Generator, conversations: Any, number: int, settings: Any, seed: int) -> list[list[Response]]:
        asked.append((len(conversations), number, settings.do_sample, settings.temperature))
        answers = [said[conversation[-1].content] for conversation in conversations]
        return [[Response(str(n), text, 1, ended) for n, (text, ended) in enumerate(row)] for row in answers]

    monkeypatch.setattr(Generator, "samples", samples)
    gold = {"Two and two?": "2 + 2 = 4\n#### 4", "Undecided?": "1", "Endless?": "9", "Wrong?": "7"}
    (tmp_path / "new.json").write_text(
        json.dumps([{"instruction": one, "input": "", "output": right} for one, right in gold.items()])
    )
    found = tunesmith.pseudo_label(
        answering, source=str(tmp_path / "new.json"), samples=4, threshold=0.75, answer="number"
    )
    assert asked == [(4, 4, True, 0.7)]
    kept = lines(found.kept)
    assert [(row["instruction"], row["output"], row["agreement"], row["right"]) for row in kept] == [
        ("Two and two?", "It is 4.", 0.75, True),
        ("Wrong?", "8", 0.75, False),
    ]
    assert kept[0]["votes"] == {"4": 3, "5": 1}
    assert kept[0]["from"] == {
        "run": str(answering),
        "model": "generator:untuned",
        "seed": 42,
        "samples": 4,
        "temperature": 0.7,
    }
    assert {row["instruction"]: row["reason"] for row in lines(found.left_out)} == {
        "Undecided?": "a tie",
        "Endless?": "no answer that ended, or no label",
    }
    assert found.report.chosen.precision.value == 0.5
    assert found.report.labelled == 4


def test_a_real_generator_is_sampled_and_repeats_itself(answering: Path, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(json.dumps([{"instruction": "Say it.", "input": "x"}]))
    settings = {"source": str(tmp_path / "new.json"), "samples": 5, "threshold": 0.0}
    first, second = (tunesmith.pseudo_label(answering, **settings) for _ in range(2))  # type: ignore[arg-type]
    rows = [*lines(first.kept), *lines(first.left_out)]
    assert rows == [*lines(second.kept), *lines(second.left_out)]
    assert [(row["instruction"], row["input"], "right" in row) for row in rows] == [("Say it.", "x", False)]


def test_a_prompt_is_computed_once_for_all_samples(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    own = LlamaForCausalLM.forward

    @wraps(own)
    def forward(self: Any, input_ids: Any = None, **more: Any) -> Any:
        shapes.append(tuple(input_ids.shape))
        return own(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    (tmp_path / "new.json").write_text(json.dumps([{"instruction": "Say it."}, {"instruction": "Say more."}]))
    tunesmith.pseudo_label(answering, source=str(tmp_path / "new.json"), samples=12)
    started = next(index for index, (rows, _) in enumerate(shapes) if rows == 24)  # all samples of both prompts
    assert shapes[started - 1][0] == 1  # their prompts, as one packed row
    assert {tokens for _, tokens in shapes[started:]} == {1}


def test_the_command(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linear(reviews, "run")
    new = write_csv(tmp_path / "new.csv", tiny.texts(30, seed=3))
    assert cli.main(["pseudo-label", "run", "--data", str(new), "--threshold", "0.6", "--output", "out.jsonl"]) == 0
    assert "kept: out.jsonl" in capsys.readouterr().out
    assert {path.name for path in Path().glob("out*")} == {"out.jsonl", "out-left-out.jsonl", "out.md", "out.html"}


def test_wrong_arguments_are_named(reviews: Path, answering: Path) -> None:
    run = linear(reviews, "run")
    for settings, message in (
        ({"threshold": 1.5}, "a share from 0 to 1"),
        ({"samples": 0}, "at least 1"),
        ({"answer": "colour"}, "unknown way to compare"),
        ({"output": "out.csv"}, r"ends in \.jsonl"),
    ):
        with pytest.raises(RecipeError, match=message):
            tunesmith.pseudo_label(run.path, source=str(reviews), **settings)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="vote on labels only"):
        tunesmith.pseudo_label(run.path, answering, source=str(reviews))
