"""Rare labels: focal loss and balanced sampling in whole runs, what does not have them, and reports that show them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import tunesmith
from tests import power_cut, tiny
from tests.conftest import write_csv
from tunesmith import recipe as recipes
from tunesmith.errors import RecipeError
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.pipeline import run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.reporting import classification_report
from tunesmith.runs import Run
from tunesmith.training import loop

Models = Callable[[str], Path]
FAST = ["bootstrap_samples=100", "per_device_train_batch_size=16", "learning_rate=5e-3"]


@pytest.fixture
def skewed(tmp_path: Path) -> Path:
    """260 texts: 220 of `world`, 30 of `tech`, 10 of `sport`."""
    rows = [row for label, n in (("world", 220), ("tech", 30), ("sport", 10)) for row in tiny.texts(n, n, (label,))]
    return write_csv(tmp_path / "skewed.csv", rows)


def train(skewed: Path, model: Path, *overrides: str, method: str = "encoder", **more: object) -> Run:
    source = {"method": method, "data": {"path": str(skewed)}, "model": {"name_or_path": str(model)}}
    return tunesmith.train(source, [*FAST, *overrides], **more)


def test_balanced_sampling_is_learned_from_and_resumed_exactly(
    skewed: Path,
    tiny_models: Models,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {f"skewed.csv:{n + 2}": row.rsplit(",", 1)[1] for n, row in enumerate(skewed.read_text().splitlines()[1:])}
    drawn: Counter[str] = Counter()
    learn = loop._backward

    def counting(model: object, micro: list, *arguments: object) -> float | None:
        drawn.update(labels[name] for batch in micro for name in batch.ids)
        return learn(model, micro, *arguments)

    monkeypatch.setattr(loop, "_backward", counting)
    settings = ["sampling=balanced", "max_steps=30", "save_strategy=steps", "save_steps=6"]
    whole = train(skewed, tiny_models("bert"), *settings, run_dir=tmp_path / "whole")
    rows = whole.manifest.data.splits["train"].rows
    assert sum(drawn.values()) == sum(min(16, rows - step % math.ceil(rows / 16) * 16) for step in range(30))
    assert all(count / sum(drawn.values()) == pytest.approx(1 / 3, abs=0.08) for count in drawn.values())
    assert "a row of sport is drawn 8.7 times an epoch, one of world 0.39" in capsys.readouterr().err
    with power_cut.at_step(20):
        train(skewed, tiny_models("bert"), *settings, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    for name in ("scores.json", "metrics.jsonl", "model/model.safetensors"):
        assert (half.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_generator_learns_from_balanced_rows(skewed: Path, tmp_path: Path) -> None:
    model = tiny.generator("llama", tmp_path / "llama")
    run = train(skewed, model, "sampling=balanced", "max_steps=4", "template=plain", method="generator")
    assert run.finished.notes.steps == 4


@pytest.mark.parametrize(("task", "share"), [("classification", 0.6), ("multilabel", 0.65)])
def test_the_focal_loss_is_learned(task: str, share: float, skewed: Path, tiny_models: Models, tmp_path: Path) -> None:
    losses = []
    for gamma in (0, 2):
        settings = [f"task={task}", "loss=focal", f"focal_gamma={gamma}", "max_steps=4", "data.label_separator=|"]
        settings = settings if task == "multilabel" else settings[:-1]
        run = train(skewed, tiny_models("bert"), *settings, run_dir=tmp_path / str(gamma))
        losses.append(next(line.loss for line in run.metrics() if line.loss))
    plain = train(skewed, tiny_models("bert"), *settings, "loss=null", run_dir=tmp_path / "plain")
    assert losses[0] == pytest.approx(next(line.loss for line in plain.metrics() if line.loss), rel=1e-5)
    assert losses[1] < share * losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("method=linear loss=focal", r"train\.loss=focal is for labels learned by encoder, not for method linear"),
        ("method=probe loss=focal", "learned by encoder, not for method probe: leave it out"),
        ("method=generator loss=focal", "not for method generator"),
        ("task=regression loss=focal", "not for task regression"),
        ("task=instruction loss=focal", "not for task instruction"),
        ("method=linear sampling=balanced", "single labels learned by encoder or generator, not for method linear"),
        ("method=probe sampling=balanced", "not for method probe"),
        ("task=multilabel sampling=balanced", "not for task multilabel"),
        ("task=regression sampling=balanced", "not for task regression"),
        ("task=instruction sampling=balanced", "not for task instruction"),
        ("method=generator class_weights=balanced", "learned by linear, probe or encoder, not for method generator"),
        ("task=regression class_weights={a: 2}", "not for task regression"),
        ("sampling=balanced class_weights=balanced", "corrects twice"),
        ("loss=focal focal_gamma=-1", "greater than or equal to 0"),
    ],
)
def test_what_is_not_offered_is_refused(settings: str, message: str) -> None:
    words = settings.split(" ", 1) if "{" in settings else settings.split()
    with pytest.raises(RecipeError, match=message):
        recipes.load({}, words)


def test_what_is_offered_is_accepted() -> None:
    for settings in (
        "method=encoder loss=focal class_weights=balanced",
        "method=encoder loss=focal sampling=balanced",
        "method=encoder task=multilabel loss=focal class_weights=balanced",
        "method=generator sampling=balanced",
        "method=linear class_weights=balanced",
        "method=probe task=multilabel class_weights=balanced",
    ):
        assert recipes.load({}, settings.split()).train != recipes.load({}).train


def test_reports_begin_with_the_rarest_labels_where_one_is_dominant(skewed: Path, tmp_path: Path) -> None:
    run = train(skewed, tmp_path, method="linear", run_dir=tmp_path / "skewed")
    report = run_report.build([run], confidence_of(run.recipe))
    page, text = classification_report.html(report), classification_report.markdown(report)
    scores = run.load("scores.json", ClassificationScores)
    said = "world has 85% of the training rows, so accuracy says little about the other labels."
    assert "Scores per label, rarest first</caption>" in page
    assert said in page
    assert f"## Recall per label, rarest first\n\n{said}\n\n| Label | Train rows | Test rows | linear |" in text
    sections = page[page.index("Scores per label, rarest first") :], text[text.index("| Label | Train rows") :]
    for section in sections:
        assert section.index("sport") < section.index("tech") < section.index("world")
    assert f"| tech | 21 | 6 | {scores.per_class['tech'].recall:.3f} |" in text

    even = train(write_csv(tmp_path / "even.csv", tiny.texts(90)), tmp_path, method="linear", run_dir=tmp_path / "even")
    report = run_report.build([even], confidence_of(even.recipe))
    assert "rarest first" not in classification_report.html(report) + classification_report.markdown(report)
