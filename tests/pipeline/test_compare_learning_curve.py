"""`compare --learning-curve`: from few rows a label to all, with methods that learn nothing as level lines."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.endpoint_server import Request, Server, completion, serving
from tunesmith import cli, data, recipe as recipes
from tunesmith.auditing import learning_curves
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.errors import DataError, Interrupted, RecipeError, RunError
from tunesmith.pipeline import curve_training
from tunesmith.pipeline.audit_sections.audit_input import CurveSettings
from tunesmith.pipeline.commands.compare import Comparison
from tunesmith.pipeline.fitting import subprocess
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

ROWS, TEST = 600, 150
QUICK = ["bootstrap_samples=200", f"split.test_size={TEST}"]


def learnt_slowly() -> dict[str, str]:
    """Texts and their labels, each with two of its label's hundred words: there is something new in every row."""
    draw = random.Random(0)
    labels = [sorted(tiny.WORDS)[number % 3] for number in range(ROWS)]
    return {f"{label}{draw.randrange(100)} {label}{draw.randrange(100)} {n}": label for n, label in enumerate(labels)}


TRUTH = learnt_slowly()


def seven_of_ten(request: Request) -> Any:
    """The right label of 70% of the texts, another of the rest, with probabilities."""
    text = request.block("TEXT")
    labels = sorted(tiny.WORDS)
    place = labels.index(TRUTH[text])
    if int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10 >= 7:
        place = (place + 1) % 3
    shares = {labels[(place + step) % 3]: share for step, share in enumerate((0.7, 0.2, 0.1))}
    top = [{"token": label, "logprob": float(np.log(share))} for label, share in shares.items()]
    choice = json.loads(completion(labels[place]))["choices"][0] | {
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]}
    }
    return 200, {}, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 1}}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TUNESMITH_ENDPOINT_KEY", "secret")
    with serving(seven_of_ten) as started:
        yield started


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "texts.csv", list(TRUTH.items()))


@pytest.fixture
def three_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than there are, for methods that take long."""
    monkeypatch.setattr(learning_curves, "FEWEST", 3)
    monkeypatch.setattr(learning_curves, "MOST", 3)


def curve_of(comparison: Comparison) -> LearningCurveAudit:
    assert comparison.report.learning_curve is not None
    return comparison.report.learning_curve


def plan(texts: Path, *words: str, seeds: Sequence[int] = (1, 2), smallest: int = 8) -> curve_training.CurvePlan:
    recipe = recipes.load(str(texts), ["method=linear", *words])
    return curve_training.plan({"linear": recipe}, read_splits(recipe), seeds, smallest)


def test_an_endpoint_is_asked_once_and_overtaken_where_the_scores_cross(
    texts: Path, server: Server, trained_here: None, caplog: pytest.LogCaptureFixture
) -> None:
    comparison = tunesmith.compare(
        str(texts),
        [*QUICK, f"endpoint.url={server.url}"],
        methods=["endpoint:small", "linear"],
        seeds=[1, 2, 3],
        learning_curve=True,
    )
    asked = Counter(request.block("TEXT") for request in server.requests)
    assert len(asked) == TEST
    assert sorted(asked.values()) == [1] * (TEST - 20) + [2] * 20  # 20 to see whether replies are the same
    assert "endpoint small: about 170 requests" in caplog.text

    level, linear = curve_of(comparison).methods
    assert level.level is not None
    assert (level.method, level.points, level.law) == ("endpoint:small", (), None)
    assert level.level.low < level.level.value < level.level.high
    scores = {method.name: method.scores.headline["accuracy"].value for method in comparison.report.methods}
    assert scores == {"endpoint:small": level.level.value, "linear": linear.points[-1].score.value}
    assert linear.points[0].rows == 24
    assert linear.points[0].score.value < level.level.value < linear.points[-1].score.value

    (crossing,) = curve_of(comparison).crossings
    assert (crossing.method, crossing.overtaken) == ("linear", "endpoint:small")
    below = [point.rows for point in linear.points if point.score.value < level.level.value]
    above = [point.rows for point in linear.points if point.score.value > level.level.value]
    assert max(below) * 0.7 <= crossing.rows.value <= min(above) * 1.4
    sentence = crossing.sentence(ROWS)
    assert sentence.startswith("linear overtakes endpoint:small at about ")
    assert comparison.verdict.endswith(sentence)
    page, text = (comparison.path.joinpath(name).read_text() for name in ("report.html", "report.md"))
    assert sentence in page
    assert "Accuracy of endpoint:small and linear over training rows" in page
    assert "| any | " in text
    assert not server.requests[TEST + 20 :]


def test_sizes_begin_with_rows_for_each_label_and_lie_inside_each_other(texts: Path) -> None:
    planned = plan(texts, "split.test_size=120")
    assert planned.sizes[0] == 8 * 3
    assert planned.sizes[-1] == 420
    assert 6 <= len(planned.sizes) <= 8
    factors = [larger / smaller for smaller, larger in pairwise(planned.sizes)]
    assert max(factors) / min(factors) < 1.1
    rows = read_splits(recipes.load(str(texts), ["split.test_size=120"])).train
    for seed in planned.seeds:
        parts = [set(planned.part(size, seed).train) for size in planned.sizes]
        assert [len(part) for part in parts] == list(planned.sizes)
        assert all(smaller < larger for smaller, larger in pairwise(parts))
        assert Counter(rows[place].label for place in parts[0]) == dict.fromkeys(tiny.WORDS, 8)
    assert planned.part(24, 1).train != planned.part(24, 2).train
    assert plan(texts, smallest=2).sizes[0] == 6


def test_validation_rows_are_as_few_as_training_rows(texts: Path) -> None:
    """60 of 480 rows: the same share of both, and none where they would be fewer than 20."""
    planned = plan(texts, "split.test_size=60", "split.validation_size=60")
    parts = {size: planned.part(size, 1) for size in planned.sizes}
    shares = {size: 60 * size // 480 for size in parts}
    assert [len(part.validation) for part in parts.values()] == [n if n >= 20 else 0 for n in shares.values()]
    assert {0, 60} < {len(part.validation) for part in parts.values()}
    size, part = next((size, part) for size, part in parts.items() if 20 <= len(part.validation) < 60)
    words = [f"split.max_train_samples={size}", f"split.max_validation_samples={len(part.validation)}"]
    words += ["split.test_size=60", "split.validation_size=60", "split.train_samples_seed=1"]
    whole = read_splits(recipes.load(str(texts), words[2:4]))
    read = read_splits(recipes.load(str(texts), words))
    assert read.train == tuple(whole.train[place] for place in part.train)
    assert read.validation == tuple(whole.validation[place] for place in part.validation)
    assert read.test == whole.test


def test_no_validation_rows_at_all(texts: Path) -> None:
    recipe = recipes.load(str(texts), ["split.max_validation_samples=0"])
    splits = data.read(recipe.data, recipe.split, recipe.seed)
    assert splits.validation == ()
    assert any(note.what == "left out of validation by split.max_validation_samples" for note in splits.notes)
    planned = plan(texts, "split.validation_size=0")
    assert planned.part(planned.sizes[-1], 1).validation == ()


def test_every_seed_is_trained_with_all_rows_once_and_resumed(
    texts: Path,
    tiny_models: Callable[[str], Path],
    trained_here: None,
    three_sizes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv(texts, tiny.texts(160))
    train = subprocess.train
    trained: list[tuple[int, int]] = []

    def stops(recipe: Recipe, folder: Path) -> Run:
        if len(trained) == 4:
            raise Interrupted("stopped", signal.SIGTERM, do="go on")
        run = train(recipe, folder)
        trained.append((run.manifest.data.splits["train"].rows, recipe.seed))
        return run

    monkeypatch.setattr(subprocess, "train", stops)
    words = ["bootstrap_samples=100", f"model.name_or_path={tiny_models('bert')}", "max_steps=2", "split.test_size=30"]
    with pytest.raises(Interrupted):
        tunesmith.compare(
            str(texts), words, methods=["linear", "encoder"], seeds=[1, 2], learning_curve=True, smallest=4
        )
    (folder,) = Path("runs").glob("*compare*")
    assert f"tunesmith compare --resume {folder}" in capsys.readouterr().err
    assert trained == [(114, 1), (114, 1), (114, 2), (37, 1)]  # linear, the same with every seed, then encoder
    trained.clear()
    monkeypatch.setattr(subprocess, "train", lambda recipe, run: trained.append((run.name, 0)) or train(recipe, run))
    monkeypatch.setattr(PartTrainer, "train", None)  # linear has all its scores
    comparison = tunesmith.compare(resume=folder)
    assert [name for name, _ in trained] == ["seed-2-rows-37", "seed-1-rows-12", "seed-2-rows-12"]
    linear, encoder = curve_of(comparison).methods
    assert [point.rows for point in linear.points] == [point.rows for point in encoder.points] == [12, 37, 114]
    assert len(set(linear.points[-1].seeds)) == 1
    scores = json.loads((folder / "seeds.json").read_text())["scores"]
    assert list(scores) == ["encoder"]
    assert scores["encoder"]["accuracy"]["values"] == list(encoder.points[-1].seeds)
    assert not list(folder.glob("learning_curve/encoder/*/"))
    with pytest.raises(RecipeError, match="keeps its sources and settings"):
        tunesmith.compare(resume=folder, learning_curve=True)
    write_csv(texts, tiny.texts(161))
    with pytest.raises(RunError, match="has changed"):
        tunesmith.compare(resume=folder)


def test_a_generator_without_training_is_a_level_line(
    model: Path, tmp_path: Path, trained_here: None, three_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(130)]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    train, names = subprocess.train, []

    def counted(recipe: Recipe, folder: Path) -> Run:
        run = train(recipe, folder)
        names.append(run.manifest.name)
        return run

    monkeypatch.setattr(subprocess, "train", counted)
    words = ["task=instruction", f"model.name_or_path={model}", "max_steps=1", "bootstrap_samples=100"]
    methods = ["generator:untuned", "generator:full"]
    comparison = tunesmith.compare(str(path), words, methods=methods, seeds=[1, 2], learning_curve=True)
    untuned, trained = curve_of(comparison).methods
    assert curve_of(comparison).metric == "loss"
    assert Counter(names) == {"generator:untuned": 1, "generator:full": 3 * 2}
    assert untuned.level is not None
    assert untuned.points == ()
    assert len(trained.points) == 3
    assert comparison.page.is_file()


def test_prompts_with_examples_are_asked_anew_for_each_part(
    texts: Path, server: Server, trained_here: None, three_sizes: None, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*QUICK, f"endpoint.url={server.url}", "endpoint.shots=2", "endpoint.prices={small: [1, 1]}"]
    methods = ["endpoint:small", "linear"]
    comparison = tunesmith.compare(str(texts), words, methods=methods, seeds=[1, 2], learning_curve=True)
    level, _ = curve_of(comparison).methods
    assert level.level is None
    assert len(level.points) == 3
    assert f"about {6 * 170:,} requests" in caplog.text
    assert "in 6 runs; price about" in caplog.text
    assert len(list(comparison.path.glob("learning_curve/endpoint-small/*.json"))) == 6
    shown = {tuple(message["content"] for message in request.body["messages"][:-1]) for request in server.requests}
    assert 2 < len(shown) <= 6  # two examples of every part and seed
    assert len(server.requests) == len(shown) * TEST + 2 * 20
    with pytest.raises(RecipeError, match="would cost about"):
        tunesmith.compare(str(texts), [*words, "endpoint.budget=0.05"], methods=methods, learning_curve=True)


def test_an_audit_has_level_lines_too(texts: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    words = [*QUICK, "method=linear", f"endpoint.url={server.url}"]
    settings = CurveSettings(("linear", "endpoint:small"), (1, 2), smallest=8)
    part = tunesmith.audit(str(texts), words, method="linear", learning_curve=settings).report.learning_curve
    assert part is not None
    assert part.methods[1].level is not None
    assert len(server.requests) == TEST
    assert "endpoint small: about 170 requests" in caplog.text


def test_a_metric_that_an_endpoint_does_not_have(
    texts: Path, trained_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_ENDPOINT_KEY", "secret")
    with serving(lambda request: TRUTH[request.block("TEXT")]) as server:
        words = [*QUICK, f"endpoint.url={server.url}", "metric_for_comparison=log_loss"]
        settings = CurveSettings(("linear", "endpoint:small"), (1, 2))
        with pytest.raises(RunError, match="no log loss, which the learning curve is to show"):
            tunesmith.audit(str(texts), [*words, "method=linear"], method="linear", learning_curve=settings)
        monkeypatch.setattr(curve_training, "measure", None)  # is not begun
        with pytest.raises(RunError, match="endpoint:small: no log loss to compare by"):
            tunesmith.compare(str(texts), words, methods=["linear", "endpoint:small"], learning_curve=True)


@pytest.mark.parametrize(
    ("options", "words", "message"),
    [
        ({"methods": ["endpoint:small"]}, [], "nothing here learns from the training rows"),
        ({"smallest": 40}, [], "or lower --smallest"),
        ({"smallest": 0}, [], "the smallest part needs rows"),
        ({"smallest": 8, "learning_curve": False}, [], "smallest part of a learning curve"),
        ({"seeds": [1]}, [], "needs two seeds or more"),
        ({}, ["split.max_validation_samples=5"], "takes parts of the rows itself"),
        ({"methods": ["generator:full", "endpoint:small"]}, ["task=instruction"], "shows the loss of the answers"),
    ],
)
def test_what_has_no_curve_is_refused_before_anything_is_done(
    options: dict[str, Any], words: Sequence[str], message: str, texts: Path, server: Server, tmp_path: Path
) -> None:
    if "task=instruction" in words:
        texts = tmp_path / "pairs.json"
        texts.write_text(json.dumps([{"instruction": text, "output": label} for text, label in TRUTH.items()]))
    given = {"methods": ["linear"], "learning_curve": True} | options
    with pytest.raises((DataError, RecipeError), match=message):
        tunesmith.compare(str(texts), [*QUICK, f"endpoint.url={server.url}", *words], **given)
    assert not (tmp_path / "runs").exists()
    assert server.requests == []


def test_finished_runs_have_no_curve(texts: Path) -> None:
    run = tunesmith.train(str(texts), [*QUICK, "method=linear"], quiet=True)
    with pytest.raises(RecipeError, match="leave --methods, --seeds, --learning-curve and --parallel out"):
        tunesmith.compare(run.path, learning_curve=True)


def test_the_command(texts: Path, trained_here: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--methods", "linear", "--learning-curve", "--smallest", "4", "--seeds", "1,2"]
    assert cli.main(["compare", str(texts), *QUICK, *options]) == 0
    shown = capsys.readouterr().out
    assert "Training rows" in shown
    assert re.search(r"^ 12 +0\.\d+ \[", shown, re.MULTILINE)
    assert f"Accuracy on {TEST} test rows, mean over 2 seeds" in shown
