"""`audit --learning-curve`: what is shared is computed once, what was stopped goes on, every task has its curve."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import small_runs, tiny
from tests.conftest import write_csv
from tunesmith import cli, recipe as recipes
from tunesmith.auditing import learning_curves
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.errors import DataError, Interrupted, RecipeError, RunError
from tunesmith.pipeline import curve_training
from tunesmith.pipeline.commands.audit import CurveSettings
from tunesmith.pipeline.fitting import subprocess
from tunesmith.pipeline.fitting.methods import METHODS
from tunesmith.pipeline.task_table import job_of, read_splits
from tunesmith.prediction.classify import Encoder
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Example

QUICK = ["bootstrap_samples=100", "method=linear"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "texts.csv", tiny.texts(400))


@pytest.fixture
def three_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than there are, for methods that take long."""
    monkeypatch.setattr(learning_curves, "FEWEST", 3)
    monkeypatch.setattr(learning_curves, "MOST", 3)


def curves(
    source: object, *methods: str, seeds: Sequence[int] = (1, 2), more: Sequence[str] = ()
) -> LearningCurveAudit:
    settings = CurveSettings(methods or None, tuple(seeds))
    found = tunesmith.audit(source, [*QUICK, *more], method="linear", learning_curve=settings)
    part: LearningCurveAudit = found.report.learning_curve
    return part


def test_scores_are_those_of_training_on_the_part(texts: Path, tmp_path: Path) -> None:
    """A point of the curve is what `train` gives with `split.max_train_samples`."""
    part = curves(str(texts), "linear")
    (method,) = part.methods
    point = method.points[-3]
    for seed, score in zip((1, 2), point.seeds, strict=True):
        words = [
            f"seed={seed}",
            "split.seed=42",
            f"split.max_train_samples={point.rows}",
            f"split.train_samples_seed={seed}",
        ]
        run = tunesmith.train(str(texts), [*QUICK, *words], quiet=True)
        assert json.loads((run.path / "scores.json").read_text())["headline"]["accuracy"]["value"] == score


def test_texts_are_embedded_once(texts: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    rows = Encoder.rows

    def counted(self: Encoder, examples: Sequence[Example], *rest: Any) -> Any:
        embedded.extend(example.text for example in examples)
        return rows(self, examples, *rest)

    monkeypatch.setattr(Encoder, "rows", counted)
    model = f"model.name_or_path={tiny_models('bert')}"
    part = curves(str(texts), "probe", "linear", more=[model])
    splits = read_splits(recipes.load(str(texts), QUICK))
    assert sorted(embedded) == sorted(row.text for row in (*splits.train, *splits.test))
    assert [method.method for method in part.methods] == ["probe", "linear"]


@pytest.mark.parametrize("words", [[], ["linear.vectorizer=count"], ["linear.char_ngrams=[2,3]"], ["data.text_pair=b"]])
@pytest.mark.parametrize("name", ["linear", "probe"])
def test_what_is_fitted_again_is_the_same(name: str, words: list[str], tiny_models: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    rows = [f"{text},{text[::-1]} unseen{n},{label}" for n, (text, label) in enumerate(tiny.texts(200))]
    path.write_text("\n".join(["text,b,label", *rows]))
    recipe = recipes.load(str(path), [f"method={name}", f"model.name_or_path={tiny_models('bert')}", *words])
    job = job_of(recipe, read_splits(recipe), Run(tmp_path))
    part = replace(job, splits=replace(job.splits, train=job.splits.train[:70]))
    method = METHODS[name]
    refit = method.refits(recipe)
    refit(job)
    for again in (part, job):
        plain, refitted = (fit(again).text_predictor.predict(job.splits.test) for fit in (method.fit, refit))
        difference = np.array([p.probabilities for p in plain]) - np.array([p.probabilities for p in refitted])
        assert np.abs(difference).max() < (1e-12 if name == "linear" else 1e-4)


def test_the_same_data_and_seeds_give_the_same_curve(texts: Path) -> None:
    first, second = (curves(str(texts), "linear") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "macro_f1"), ("regression", "rmse")])
def test_other_tasks(task: str, metric: str, tmp_path: Path) -> None:
    path = (small_runs.tagged if task == "multilabel" else small_runs.prices)(tmp_path / "rows.jsonl")
    if task == "regression":
        path = path.rename(tmp_path / "rows.csv")
    label = "labels" if task == "multilabel" else "label"
    part = curves(str(path), "linear", more=[f"task={task}", f"data.label={label}"])
    assert part.metric == metric
    assert part.higher_is_better == (task == "multilabel")
    first, *_, last = part.methods[0].points
    assert (last.score.value > first.score.value) == part.higher_is_better


def test_the_metric_of_comparisons_is_that_of_the_curve(texts: Path) -> None:
    part = curves(str(texts), "linear", more=["evaluate.metric_for_comparison=log_loss"])
    assert (part.metric, part.higher_is_better) == ("log_loss", False)
    costs = {"decide": {"costs": {"sport": {"tech": 5}}}, "data": {"path": str(texts)}}
    assert curves(costs, "linear").metric == "cost"


def test_encoders_are_trained_by_themselves_and_resumed(
    texts: Path,
    tiny_models: Any,
    tmp_path: Path,
    trained_here: None,
    three_sizes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv(texts, tiny.texts(130))
    train = subprocess.train
    trained: list[tuple[int, int]] = []

    def stops(plan: Recipe, folder: Path) -> Run:
        if len(trained) == 5:
            raise Interrupted("stopped", signal.SIGTERM, do="go on")
        run = train(plan, folder)
        trained.append((plan.seed, run.manifest.data.splits["train"].rows))
        return run

    monkeypatch.setattr(subprocess, "train", stops)
    settings = CurveSettings(("encoder",), (1, 2))
    words = [*QUICK, f"model.name_or_path={tiny_models('bert')}", "max_steps=2", "per_device_train_batch_size=4"]
    folder = tmp_path / "audit"
    with pytest.raises(Interrupted):
        tunesmith.audit(str(texts), words, method="linear", learning_curve=settings, output=folder)
    assert f"tunesmith audit --resume {folder}" in capsys.readouterr().err
    assert len(trained) == 5
    assert len(list(folder.glob("learning_curve/encoder/*.json"))) == 5
    trained.clear()
    monkeypatch.setattr(subprocess, "train", train)
    assert cli.main(["audit", "--resume", str(folder)]) == 0
    report = json.loads((folder / "audit.json").read_text())
    (method,) = report["learning_curve"]["methods"]
    assert [len(point["seeds"]) for point in method["points"]] == [2, 2, 2]
    assert method["rejected"] == "there are only 3 different sizes"
    assert [path.name for path in (folder / "learning_curve" / "encoder").iterdir() if path.is_dir()] == []
    with pytest.raises(RecipeError, match="keeps its source and settings"):
        tunesmith.audit(str(texts), resume=folder)
    write_csv(texts, tiny.texts(131))
    with pytest.raises(RunError, match="has changed since the audit began"):
        tunesmith.audit(resume=folder)


def test_instructions_have_a_curve_of_their_loss(
    model: Path, tmp_path: Path, trained_here: None, three_sizes: None
) -> None:
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(130)]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    words = ["task=instruction", f"model.name_or_path={model}", "max_steps=1", "bootstrap_samples=100"]
    settings = CurveSettings(None, (1, 2))
    part = tunesmith.audit(str(path), words, learning_curve=settings).report.learning_curve
    assert part.metric == "loss"
    assert [method.method for method in part.methods] == ["generator"]


@pytest.mark.parametrize(
    ("rows", "settings", "words", "message"),
    [
        (60, CurveSettings(), (), "too few rows for a learning curve"),
        (400, CurveSettings(seeds=(1,)), (), "needs two seeds or more"),
        (400, CurveSettings(methods=("linear", "linear")), (), "different methods"),
        (400, CurveSettings(methods=("boosting",)), (), "no method 'boosting'"),
        (400, CurveSettings(), ("split.max_train_samples=50",), "takes parts of the rows itself"),
        (400, CurveSettings(), ("split.test_size=0",), "needs a test split"),
    ],
)
def test_what_has_no_curve_is_refused_before_anything_is_done(
    rows: int, settings: CurveSettings, words: Sequence[str], message: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "texts.csv", tiny.texts(rows))
    with pytest.raises((DataError, RecipeError), match=message):
        tunesmith.audit(str(path), [*QUICK, *words], learning_curve=settings)
    assert not (tmp_path / "runs").exists()


def test_groups_and_repeated_texts_stay_whole(tmp_path: Path) -> None:
    rows = [f"{text},{label},{n // 4}" for n, (text, label) in enumerate(tiny.texts(400))]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label,author", *rows]))
    recipe = recipes.load(str(tmp_path / "texts.csv"), ["split.group=author"])
    splits = read_splits(recipe)
    planned = curve_training.plan({"linear": recipe}, splits)
    for order in planned.train.values():
        for size in planned.sizes:
            inside = {splits.train[place].group for place in order.first(size)}
            outside = {row.group for n, row in enumerate(splits.train) if n not in set(order.first(size))}
            assert not inside & outside


def test_the_report_shows_the_curve(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--learning-curve", "--methods", "linear", "--seeds", "1,2"]
    assert cli.main(["audit", str(texts), *QUICK, "--method", "linear", *options, "--output", "audit"]) == 0
    page, text = (Path("audit", name).read_text() for name in ("report.html", "report.md"))
    assert "Accuracy of linear over training rows" in page
    assert page.count('class="whisker"') >= 5
    assert "## Learning curve" in text
    assert "| linear |" in text
    assert "doubling the training rows" in capsys.readouterr().out or "cannot be told" in text
    assert cli.main(["audit", str(texts), "--seeds", "1,2"]) == 2
    assert "add --learning-curve" in capsys.readouterr().err
