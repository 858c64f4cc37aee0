"""The same promises for every method: batch-invariant, order-keeping, reloadable to the last bit, sure of its sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tunesmith import recipe as recipes, runs
from tunesmith.pipeline.fitting.methods import METHODS
from tunesmith.pipeline.task_table import job_of
from tunesmith.protocols import TrainResult
from tunesmith.types import Example, Splits

Models = Callable[[str], Path]
LABELS = tuple(sorted(tiny.WORDS))


def splits(rows: int = 150, pair: bool = False, labels: tuple[str, ...] = LABELS) -> Splits:
    found = [
        Example(f"row:{i}", text, text_pair=text[::-1] if pair else None, label=label)
        for i, (text, label) in enumerate(tiny.texts(rows, labels=labels))
    ]
    return Splits(tuple(found[: rows * 2 // 3]), (), tuple(found[rows * 2 // 3 :]), labels, {})


def fit(method: str, data: Splits, models: Models, folder: Path, *overrides: str) -> TrainResult:
    settings = [f"method={method}", f"model.name_or_path={models('bert')}", "learning_rate=3e-3", "linear.min_df=1"]
    run = runs.use(folder / "run")
    return METHODS[method].fit(job_of(recipes.load({}, [*settings, *overrides]), data, run))


@pytest.fixture(params=["linear", "probe", "encoder"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_learns_what_can_be_learned(method: str, tiny_models: Models, tmp_path: Path) -> None:
    data = splits(300)
    fitted = fit(method, data, tiny_models, tmp_path, "num_train_epochs=15")
    predicted = fitted.predictor.predict(data.test)
    accuracy = np.mean([p.label == e.label for p, e in zip(predicted, data.test, strict=True)])
    assert accuracy > {"linear": 0.9, "probe": 0.6, "encoder": 0.9}[method]
    assert 0 < fitted.trainable <= fitted.parameters


def test_batch_size_and_order_do_not_matter(method: str, tiny_models: Models, tmp_path: Path) -> None:
    data = splits()
    predictor = fit(method, data, tiny_models, tmp_path, "max_steps=4").predictor
    together = predictor.predict(data.test)
    alone = [predictor.predict([example])[0] for example in data.test]
    backwards = predictor.predict(data.test[::-1])[::-1]
    for other in (alone, backwards):
        assert [p.id for p in other] == [e.id for e in data.test]
        assert [p.label for p in other] == [p.label for p in together]
        difference = np.abs(np.array([p.probabilities for p in other]) - [p.probabilities for p in together])
        assert difference.max() < 1e-5


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
def test_reloaded_predicts_the_same_bits(
    method: str, pair: bool, labels: tuple[str, ...], tiny_models: Models, tmp_path: Path
) -> None:
    data = splits(60, pair, labels)
    predictor = fit(method, data, tiny_models, tmp_path, "max_steps=2").predictor
    predictor.save(tmp_path / "saved")
    reloaded = METHODS[method].load(tmp_path / "saved", recipes.Recipe())
    assert reloaded.labels == predictor.labels == labels
    assert reloaded.predict(data.test) == predictor.predict(data.test)
    suffixes = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json"}


def test_probabilities_sum_to_one_and_label_is_the_largest(method: str, tiny_models: Models, tmp_path: Path) -> None:
    data = splits()
    for prediction in fit(method, data, tiny_models, tmp_path, "max_steps=2").predictor.predict(data.test):
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-9)
        assert prediction.label == LABELS[int(np.argmax(prediction.probabilities))]


def test_nothing_to_predict_gives_nothing(method: str, tiny_models: Models, tmp_path: Path) -> None:
    assert fit(method, splits(30), tiny_models, tmp_path, "max_steps=1").predictor.predict([]) == []


def test_class_weights_pull_towards_the_weighted_class(method: str, tiny_models: Models, tmp_path: Path) -> None:
    """Whichever label has a thousand times the weight is what nearly every row is called."""
    data = splits()
    for favoured in LABELS:
        weights = {label: 1000 if label == favoured else 0.001 for label in LABELS}
        overrides = (f"class_weights={weights}", "C=0.1")
        predictor = fit(method, data, tiny_models, tmp_path / favoured, *overrides).predictor
        assert sum(p.label == favoured for p in predictor.predict(data.test)) > 0.8 * len(data.test)
