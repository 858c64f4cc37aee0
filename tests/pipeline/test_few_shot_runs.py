"""Few-shot prompts through the pipeline: every command makes the prompt of the run, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline.commands import chat
from tunesmith.pipeline.commands.check import check, describe
from tunesmith.pipeline.commands.serve import _served
from tunesmith.pipeline.fitting.methods import load_predictor
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import Serve, load
from tunesmith.runs import Run
from tunesmith.types import Message, PredictionRow, ResponseRow

QUICK = ["bootstrap_samples=100", "max_new_tokens=6", "num_samples=1", "logging_steps=1", "prompt.shots=3"]
UNTUNED = ["num_train_epochs=0", "max_steps=null"]
TRAINED = ["max_steps=4"]
LABEL_HEADING, TURN = "### Response:", "### Instruction:"


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes are tokens, so that prompts are long."""
    return tiny.generator("llama", tmp_path_factory.mktemp("long"), max_position_embeddings=2048)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Few rows, as each prompt is long."""
    return write_csv(tmp_path / "reviews.csv", tiny.texts(60))


def classify(model: Path, reviews: Path, *more: str, **where: Any) -> Run:
    source = {"method": "generator", "data": {"path": str(reviews)}, "model": {"name_or_path": str(model)}}
    return tunesmith.train(source, [*QUICK, *more], quiet=True, **where)


def instruct(model: Path, pairs: Path, *more: str, **where: Any) -> Run:
    source = {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}
    return tunesmith.train(source, [*QUICK, "prompt.template=alpaca", *more], quiet=True, **where)


@pytest.mark.parametrize("trained", [False, True], ids=["untuned", "tuned"])
@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_every_command_has_the_prompt_of_the_run(
    selection: str, trained: bool, long_model: Path, reviews: Path, tmp_path: Path, tiny_models: Callable[[str], Path]
) -> None:
    settings = [f"prompt.shot_selection={selection}", f"prompt.shot_encoder={tiny_models('bert')}"]
    run = classify(long_model, reviews, *settings, *(TRAINED if trained else UNTUNED), run_dir=tmp_path / "run")
    rows, splits = run.predictions("test", PredictionRow), read_splits(run.recipe)
    found = {row["id"]: row for row in tunesmith.predict(run.path, source=reviews)}
    again = load_predictor(run)
    alone = {example.id: again.predict([example])[0] for example in splits.test[:4]}  # type: ignore[arg-type, union-attr]
    for row in rows:
        assert found[row.id]["predicted_label"] == row.label
        assert found[row.id]["probability"] == pytest.approx(max(row.probabilities), abs=1e-5)
    for row in rows[:4]:
        assert np.abs(np.array(alone[row.id].probabilities) - row.probabilities).max() < 1e-5
    assert tunesmith.evaluate(run.path, data=reviews)
    served = _served("few", run.path, Serve())
    texts = {row.text: row.label for row in splits.train}
    for example in [*splits.test[:3], splits.train[0]]:
        prompt = served.classifier.rendered_prompt(example)
        assert prompt == again.rendered_prompt(example)  # type: ignore[arg-type]
        *shots, last = prompt.split(TURN)[1:]
        assert len(shots) == 3
        assert example.text in last
        for shot in shots:  # a training text with its label
            text, label = shot.split("### Input:\n")[1].split(f"\n\n{LABEL_HEADING}\n")
            assert texts[text] == label.strip().removesuffix("<eos>")
            assert text != example.text
    for page in ("report.html", "README.md"):
        assert f"3 {selection} shots" in (run.path / page).read_text()
    assert f"3 {selection} shots" in run.manifest.description


def test_a_run_finds_its_encoder_from_another_folder(
    long_model: Path, reviews: Path, tmp_path: Path, tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_models("bert").parent)
    nearest = ["prompt.shot_selection=nearest", "prompt.shot_encoder=bert"]
    run = classify(long_model, reviews, *UNTUNED, *nearest, run_dir=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    found = {row["id"]: row["predicted_label"] for row in tunesmith.predict(run.path, source=reviews)}
    assert all(found[row.id] == row.label for row in run.predictions("test", PredictionRow))


def test_the_seed_chooses_the_shots(long_model: Path, reviews: Path, tmp_path: Path) -> None:
    runs = [
        classify(long_model, reviews, *UNTUNED, f"seed={seed}", "split.seed=1", run_dir=tmp_path / name)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    files = [(run.model / "shots.json").read_bytes() for run in runs]
    assert files[0] == files[1] != files[2]


def test_shots_are_not_learned_and_shown_by_check(long_model: Path, tmp_path: Path) -> None:
    reviews = write_csv(tmp_path / "many.csv", tiny.texts(240))
    source = {"method": "generator", "data": {"path": str(reviews)}, "model": {"name_or_path": str(long_model)}}
    checked, zero = check(source, ["prompt.shots=2"]), check(source)
    assert checked.tokens is not None
    assert zero.tokens is not None
    assert checked.tokens.max_length == 1024  # that of prompts with shots
    assert zero.tokens.max_length == 256
    assert checked.rendered is not None
    assert zero.rendered is not None
    for few, plain in zip(checked.rendered, zero.rendered, strict=True):
        assert few.learned == plain.learned
        assert few.tokens > plain.tokens + 200
    first = describe(checked).split("--- example")[1]
    assert first.count(TURN) == 3
    assert first.count("[[") == 1
    assert first.rindex("[[") > first.rindex(LABEL_HEADING)


def test_descriptions_reach_the_prompt_and_other_methods_ignore_them(
    long_model: Path, reviews: Path, tmp_path: Path
) -> None:
    described = "data.label_descriptions={sport: games and players, tech: machines}"
    run = classify(long_model, reviews, *UNTUNED, described, run_dir=tmp_path / "run")
    example = read_splits(run.recipe).test[0]
    prompt = load_predictor(run).rendered_prompt(example)  # type: ignore[arg-type]
    assert prompt is not None
    assert prompt.count("sport: games and players\ntech: machines\n\nClassify the following text as one of:") == 1
    assert prompt.count("Classify the following text as one of: sport, tech, world.") == 4
    tunesmith.train({"method": "linear", "data": {"path": str(reviews)}}, [described], run_dir=tmp_path / "linear")
    with pytest.raises(RecipeError, match=r"(?s)data.label_descriptions names sprot.*expected: sport, tech, world"):
        classify(long_model, reviews, *UNTUNED, "data.label_descriptions={sprot: x}", run_dir=tmp_path / "typo")


def test_compared_with_other_methods(long_model: Path, reviews: Path, tmp_path: Path) -> None:
    source = {"data": {"path": str(reviews)}, "model": {"generator": str(long_model)}}
    settings = [*QUICK, f"output_dir={tmp_path}"]
    compared = tunesmith.compare(source, settings, methods=["linear", "generator:untuned"])
    report = json.loads((compared.page.parent / "comparison.json").read_text())
    assert [method["description"].count("3 random shots") for method in report["methods"]] == [0, 1]


@pytest.mark.parametrize("trained", [False, True], ids=["untuned", "tuned"])
def test_instructions_are_answered_after_shots(trained: bool, long_model: Path, pairs: Path, tmp_path: Path) -> None:
    steps = TRAINED if trained else UNTUNED
    run = instruct(long_model, pairs, *steps, run_dir=tmp_path / "run")
    generator, splits = load_predictor(run), read_splits(run.recipe)
    answers = {(row.messages[0].input, row.messages[1].content) for row in splits.train}
    asked = splits.test[0].messages[:1]
    *shots, last = generator.rendered_prompt(asked).split(TURN)[1:]  # type: ignore[arg-type]
    assert len(shots) == 3
    assert asked[0].input in last
    for shot in shots:
        about, answer = shot.split("### Input:\n")[1].split(f"\n\n{LABEL_HEADING}\n")
        assert (about, answer.strip().removesuffix("<eos>")) in answers
    rows = run.predictions("test", ResponseRow)
    zero = instruct(long_model, pairs, *UNTUNED, "prompt.shots=0", run_dir=tmp_path / "zero")
    plain = zero.predictions("test", ResponseRow)
    assert [row.learned for row in rows] == [row.learned for row in plain]  # the answers to shots do not count
    assert [row.loss for row in rows] != [row.loss for row in plain]
    assert [row.prompt for row in rows] == [row.prompt for row in plain]
    session = chat.ChatSession(run, run.recipe.generate)
    (alone,) = tunesmith.predict(run, [rows[0].prompt])
    assert "".join(session.ask(rows[0].prompt)) == alone["response"]
    served: Any = _served("few", run.path, Serve())
    ids = served.generator.tokenize([Message("user", "Hello")])
    assert ids == generator.tokenize([Message("user", "Hello")])  # type: ignore[union-attr]
    assert "3 random shots" in (run.path / "report.html").read_text()


def test_what_cannot_be_is_refused(long_model: Path, model: Path, reviews: Path, pairs: Path, tmp_path: Path) -> None:
    nearest = "prompt.shot_selection=nearest"
    for recipe, overrides, reason in (
        ({"task": "instruction"}, [nearest], "nearest is for labels and numbers"),
        ({"task": "instruction"}, ["data.format=text"], "prompt.shots stand before a prompt"),
        ({}, [nearest, "predict.calibrate=true"], "predict.calibrate needs the same shots for every text"),
        ({}, ["prompt.shots=-1"], "prompt.shots"),
    ):
        with pytest.raises(RecipeError, match=reason):
            load({"data": {"path": "x.csv"}} | recipe, ["prompt.shots=2", *overrides])
    for steps in (UNTUNED, TRAINED):
        with pytest.raises(DataError, match=r"(?s)with 3 shots leaves no room for a text.*lower prompt.shots"):
            classify(long_model, reviews, *steps, "max_length=300", run_dir=tmp_path / f"labels{len(steps)}")
        with pytest.raises(DataError, match=r"(?s)the 3 shots leave no room for a prompt.*lower prompt.shots"):
            instruct(long_model, pairs, *steps, "max_length=300", run_dir=tmp_path / f"answers{len(steps)}")


def test_long_rows_are_learned_after_fewer_shots(
    long_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(text + " word" * (150 if n % 10 == 9 else 0), label) for n, (text, label) in enumerate(tiny.texts(60))]
    path = write_csv(tmp_path / "long.csv", rows)
    source = {"method": "generator", "data": {"path": str(path)}, "model": {"name_or_path": str(long_model)}}
    # with this seed the shots are short rows
    run = tunesmith.train(source, [*QUICK, *TRAINED, "max_length=1100", "seed=0"], run_dir=tmp_path / "run")
    assert max(len(row["text"]) for row in run.read("model/shots.json")["rows"]) < 150
    assert "rows shown after fewer shots than prompt.shots, to fit into" in capsys.readouterr().err
