"""Exports of tasks `multilabel` and `regression`: sets of labels by the run's thresholds, numbers in their own unit."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import tiny
from tests.exported_folders import as_the_card_says, in_folder
from tests.small_runs import TOPICS, held_out, learn
from tunesmith.errors import RecipeError, RunError
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.exporting import network, onnx, parity
from tunesmith.exporting.parity import ParityReport
from tunesmith.exporting.source import Exported
from tunesmith.pipeline import engines
from tunesmith.pipeline.commands import export as exports
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.runs import Run
from tunesmith.tasks import text_targets
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.decisions import Decision
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example

TASKS = ["multilabel", "regression"]
TEXTS = ["the goal of the team", "a robot with a chip and the minister", "nothing of note"]
FACTS: dict[str, Any] = {"target": "onnx", "precision": "auto", "size_mb": 1, "run_size_mb": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Run]:
    """Task and method -> a run."""
    folder = tmp_path_factory.mktemp("trained")
    model = tiny.model("bert", folder / "bert")
    return functools.cache(lambda task, method: learn(task, method, folder / f"{task}-{method}", model))


def answers(run: Run, **options: Any) -> list[Any]:
    """What `predict` says of TEXTS: numbers, or labels with the probability of each label."""
    if labels := load_text_predictor(run).labels:
        rows = tunesmith.predict(run, TEXTS, top_k=len(labels), **options)
        return [(row["labels"], sorted(row["scores"].items())) for row in rows]
    return [row["value"] for row in tunesmith.predict(run, TEXTS, **options)]


def close(ours: list[Any], theirs: list[Any], tolerance: float, *, same_labels: bool = True) -> bool:
    """Whether labels are equal, and probabilities and numbers are, but for rounding."""
    if isinstance(ours[0], float):
        return bool(np.allclose(ours, theirs, rtol=0, atol=tolerance * 100))  # their standard deviation is about 80
    same = [labels for labels, _ in ours] == [labels for labels, _ in theirs]
    probabilities = [[p for _, scores in side for _, p in scores] for side in (ours, theirs)]
    return (same or not same_labels) and bool(np.allclose(*probabilities, rtol=0, atol=tolerance))


@pytest.mark.parametrize(
    ("task", "method", "target"),
    [
        ("multilabel", "encoder", "onnx"),
        ("multilabel", "encoder", "openvino"),
        ("multilabel", "encoder", "torch-export"),
        ("multilabel", "probe", "onnx"),
        ("multilabel", "encoder:contrastive", "onnx"),
        ("regression", "encoder", "onnx"),
        ("regression", "encoder", "openvino"),
        ("regression", "encoder", "torchscript"),
        ("regression", "probe", "onnx"),
    ],
)
def test_every_graph_predicts_as_the_run(
    task: str, method: str, target: str, trained: Callable[[str, str], Run]
) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    run = trained(task, method)
    proof = tunesmith.export(run, target)
    assert proof.unit == {"multilabel": "sets of labels", "regression": "numbers"}[task]
    assert proof.compared == proof.rows == min(50, len(held_out(run)))
    assert proof.agreement == 1
    assert proof.max_logit_difference <= 1e-4 * max(1, proof.largest_logit)
    expected = answers(run, engine="torch")
    if not target.startswith("torch"):
        assert close(answers(run, engine=target), expected, 1e-5)
    without = ["transformers", "tunesmith", *([] if target.startswith("torch") else ["torch"])]
    printed = in_folder(Path(str(proof.folder)), "-W", "ignore", "run.py", *TEXTS, without=without).splitlines()
    said = [line.split("\t")[0] for line in printed]
    assert [line.split("\t")[1] for line in printed] == TEXTS
    if task == "regression":
        assert close([float(number) for number in said], expected, 1e-5)
    else:
        assert said == [", ".join(labels) for labels, _ in expected]


@pytest.mark.parametrize("task", TASKS)
def test_rounded_weights_keep_the_thresholds_and_the_unit(task: str, trained: Callable[[str, str], Run]) -> None:
    run = trained(task, "encoder")
    proof = tunesmith.export(run, "onnx-int8", allow_loss=True)
    assert 0 < proof.max_logit_difference < 0.2 * max(1, proof.largest_logit)
    assert onnx.load(Path(str(proof.folder))).target == load_text_predictor(run).target
    assert close(answers(run, engine="onnx-int8"), answers(run, engine="torch"), 0.1, same_labels=False)


def test_an_export_is_scored_as_the_run(trained: Callable[[str, str], Run]) -> None:
    run = trained("regression", "probe")
    tunesmith.export(run, "onnx")
    own, scores = (tunesmith.evaluate(run.path, data=run.recipe.data.path, engine=e) for e in ("torch", "onnx"))
    assert isinstance(own, RegressionScores)
    assert isinstance(scores, RegressionScores)
    assert scores.headline["rmse"].value == pytest.approx(own.headline["rmse"].value, rel=1e-5)
    with pytest.raises(RecipeError, match="stored predictions are scored as they are: --engine onnx"):
        tunesmith.evaluate(run.path, engine="onnx")


@pytest.mark.parametrize("method", ["encoder", "encoder:lora"])
@pytest.mark.parametrize("task", TASKS)
def test_the_code_of_every_card_predicts_as_the_run(task: str, method: str, trained: Callable[[str, str], Run]) -> None:
    run = trained(task, method)
    (expected,) = tunesmith.predict(run, ["Some text"])
    targets = ["safetensors", "pth", *(["adapter"] if ":" in method else [])]
    folders = [Path(str(tunesmith.export(run, target).folder)) for target in targets]
    for folder in [*folders, run.path]:
        printed = ast.literal_eval(as_the_card_says(folder))
        if task == "regression":
            assert printed == pytest.approx(expected["value"], rel=1e-5)
        else:
            assert [entry["label"] for entry in printed] == list(expected["scores"])
            assert [entry["score"] for entry in printed] == pytest.approx([*expected["scores"].values()], abs=1e-5)
    assert next(folders[1].glob("*.pth")).stem.endswith("classifier" if task == "multilabel" else "regression")


@pytest.mark.parametrize("method", ["linear", "probe"])
@pytest.mark.parametrize("task", TASKS)
def test_files_of_tunesmith_are_the_run(task: str, method: str, trained: Callable[[str, str], Run]) -> None:
    run = trained(task, method)
    proof = tunesmith.export(run, "safetensors")
    assert proof.max_logit_difference == 0
    assert "Prediction" in as_the_card_says(Path(str(proof.folder)))
    with pytest.raises(RunError, match="bag of words cannot" if method == "linear" else "not a single network"):
        tunesmith.export(run, "onnx" if method == "linear" else "pth")


def test_a_graph_has_the_thresholds_of_the_run(trained: Callable[[str, str], Run]) -> None:
    run = trained("multilabel", "encoder")
    loaded = onnx.load(Path(str(tunesmith.export(run, "onnx").folder)))
    assert loaded.target == load_text_predictor(run).target
    assert loaded.target.thresholds != (0.5,) * 3
    assert set(loaded.labels) == set(TOPICS)


@pytest.mark.parametrize(
    "target", [SingleLabel(TOPICS, Decision(abstain_below=0.9, set_above=0.25)), MultiLabel(TOPICS), Number(3.5, 2)]
)
def test_a_graph_has_the_whole_target(target: Target, trained: Callable[[str, str], Run]) -> None:
    """And nothing of another: the run's own configuration has thresholds."""
    source = replace(exports.export_source(trained("multilabel", "encoder"), "auto"), target=target)
    config = network.Network(source, "sdpa").config.to_dict()
    assert text_targets.of_config(json.loads(json.dumps(config))) == target
    assert ("thresholds" in config) == isinstance(target, MultiLabel)


def test_a_single_label_is_one_output(trained: Callable[[str, str], Run], tmp_path: Path) -> None:
    """A probe of two classes has one row of weights too, and two outputs."""
    model = Path(trained("multilabel", "probe").recipe.model.name_or_path)
    rows = [{"text": text, "labels": ["sport"] if label == "sport" else []} for text, label in tiny.texts(60)]
    (tmp_path / "single.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = learn("multilabel", "probe", tmp_path / "run", model, path=tmp_path / "single.jsonl")
    assert tunesmith.export(run, "onnx").agreement == 1
    assert close(answers(run, engine="onnx"), answers(run, engine="torch"), 1e-5)


def compared(target: Target, ours: list[list[float]], theirs: list[list[float]], exact: bool = True) -> ParityReport:
    """The proof for some logits of the run and of an export."""

    def logits(rows: list[list[float]]) -> Callable[[Any], list[Any]]:
        return lambda places: [np.array(rows[place]) for place in places]

    exported = Exported(logits(theirs), "numpy", exact=exact)
    return parity.compare(logits(ours), exported, range(len(ours)), predicted=target, **FACTS)


def test_sets_are_equal_or_not() -> None:
    target = MultiLabel(("a", "b"), (0.5, 0.9))
    same = compared(target, [[0.1, 2.0], [3.0, 3.0]], [[0.1, 2.00001], [3.0, 3.0]])
    assert parity.problem(same) is None
    assert "100.00% of 2 sets of labels agree on 2 rows" in parity.summary(same)
    other = compared(target, [[0.1, 2.0], [3.0, 3.0]], [[0.1, 2.3], [3.0, 3.0]], exact=False)
    assert other.agreement == 0.5  # of 2.0 and 2.3, only the second is more than 90%, though both are more than 50%
    assert "50.00% of 2 sets of labels agree" in str(parity.problem(other))
    assert compared(SingleLabel(("a", "b")), [[0.1, 2.0]], [[0.1, 2.3]], exact=False).agreement == 1


def test_numbers_agree_in_units_of_their_scale() -> None:
    target = Number(mean=1e6, scale=1e3)
    exact = compared(target, [[0.01], [-0.02]], [[0.01001], [-0.02]])
    assert (exact.agreement, parity.problem(exact)) == (1, None)
    assert "standardised numbers differ by at most" in parity.summary(exact)
    assert parity.problem(compared(target, [[0.01], [-0.02]], [[0.011], [-0.02]]))
    rounded = compared(target, [[0.0], [1.0]], [[0.09], [1.0]], exact=False)
    assert parity.problem(rounded) is None
    assert "100.00% of 2 numbers agree within 0.1 standard deviations" in parity.summary(rounded)
    far = compared(target, [[0.0], [1.0]], [[0.11], [1.0]], exact=False)
    assert far.agreement == 0.5
    with pytest.raises(RunError, match=r"50\.00% of 2 numbers agree"):
        parity.check(far, allow_loss=False)
    assert compared(target, [[0.0]], [[float("nan")]]).agreement == 0
    assert exact.has_rounded_numbers is compared(SingleLabel(("a",)), [[0.0]], [[0.0]], exact=False).has_rounded_numbers
    assert rounded.has_rounded_numbers


def test_rounded_numbers_are_taken_only_if_asked_for(
    trained: Callable[[str, str], Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They agree within a tolerance, but are others."""
    run = trained("regression", "probe")
    assert tunesmith.export(run, "onnx-int8", allow_loss=True).has_rounded_numbers
    own = engines._report
    monkeypatch.setattr(engines, "_report", lambda path, exact: replace(own(path, exact), speed=9.0, agreement=1.0))
    monkeypatch.setitem(engines.ENGINES, "onnx", replace(engines.ENGINES["onnx"], target="nothing"))
    assert type(engines.load(run, "auto", "serve.engine")).__name__ == "ProbePredictor"
    assert "onnx-int8: 100.00% of 50 numbers agree within 0.1 standard deviations" in capsys.readouterr().err
    assert type(engines.load(run, "onnx-int8", "serve.engine")).__name__ == "StandaloneClassifier"


def test_pairs_are_numbers_too(tmp_path: Path) -> None:
    model = tiny.model("bert", tmp_path / "bert")
    rows = [{"a": text, "b": f"{text} {n % 4}", "label": n % 4} for n, (text, _) in enumerate(tiny.texts(120))]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    source = {
        "task": "regression",
        "data": {"path": str(tmp_path / "pairs.json"), "text": "a", "text_pair": "b"},
        "model": {"name_or_path": str(model)},
    }
    run = tunesmith.train(source, ["bootstrap_samples=100", "max_steps=3"], run_dir=tmp_path / "run", quiet=True)
    folder = Path(str(tunesmith.export(run, "onnx").folder))
    rows_of_test = held_out(run)
    loaded, expected = onnx.load(folder).predict(rows_of_test), load_text_predictor(run).predict(rows_of_test)
    assert [row.value for row in loaded] == pytest.approx([row.value for row in expected], abs=1e-5)
    pair = Example("1", rows_of_test[0].text, rows_of_test[0].text_pair)
    said = in_folder(folder, "run.py", f"{pair.text}\t{pair.text_pair}")
    assert float(said.split("\t")[0]) == pytest.approx(expected[0].value, abs=1e-4)
