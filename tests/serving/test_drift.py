"""Drift of what is served: counts in windows against a run's own held-out rows, without texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import tunesmith
from tests import tiny
from tests.serving_fakes import LABELS, application, classifier, client, error, generator, loaded, message, post, run
from tests.small_runs import learn
from tunesmith import runs
from tunesmith.evaluation import distribution_shift
from tunesmith.pipeline import drift_reference
from tunesmith.recipe import Serve
from tunesmith.serving import app, drift_monitor
from tunesmith.serving.backends import ServedClassifier
from tunesmith.serving.drift_monitor import DriftMonitor, of_labels, of_numbers
from tunesmith.serving.handlers import Handlers


def test_numbers_are_those_of_the_field() -> None:
    first, second = [50, 30, 20], [40, 40, 20]
    shift = distribution_shift.compare(first, second)
    assert shift is not None
    assert shift.p == pytest.approx(stats.chi2_contingency([first, second], correction=False).pvalue)
    assert shift.distance == pytest.approx(0.1)
    a, b = (np.add(counts, 0.5) / np.add(counts, 0.5).sum() for counts in (first, second))
    assert shift.psi == pytest.approx(float(((b - a) * np.log(b / a)).sum()))
    assert distribution_shift.compare([100, 0], [50, 0]) is None, "one bin says nothing"
    assert distribution_shift.compare([100, 3], [0, 0]) is None
    assert distribution_shift.compare([500, 3, 2], [500, 0, 5]).distance == pytest.approx(  # type: ignore[union-attr]
        distribution_shift.compare([500, 5], [500, 5]).distance  # type: ignore[union-attr]
    ), "rare bins count as one"


def test_what_stays_below_by_chance() -> None:
    draw = np.random.default_rng(0)
    shares, above, false_alarms = [0.4, 0.3, 0.2, 0.1], 0, 0
    for _ in range(2000):
        reference = of_labels("label", "test", "abcd", draw.choice(list("abcd"), 300, p=shares))
        monitor = DriftMonitor([reference])
        monitor.observe(label=draw.choice(list("abcd"), 250, p=shares))
        (result,) = monitor.report(1)
        assert result.shift is not None
        above += result.shift.psi > result.shift.psi_by_chance
        false_alarms += result.status != "stable"
    assert 0.02 < above / 2000 < 0.07
    assert false_alarms <= 5


def test_windows_and_memory() -> None:
    """Hours leave the window one by one; what is kept does not grow with requests, hours or unknown labels."""
    now = [1000 * 3600.0]
    monitor = DriftMonitor([of_labels("label", "test", "ab", "ab" * 200)], lambda: now[0])
    monitor.observe(label="a" * 199)
    assert monitor.report(1)[0].status == "too_few"
    monitor.observe(label="a", characters=[5])
    assert (monitor.report(1)[0].status, monitor.report(1)[0].total) == ("drift", 200)
    now[0] += 3600
    monitor.observe(label="ab" * 150)
    assert [monitor.report(hours)[0].total for hours in (1, 2)] == [300, 500]
    assert monitor.report(1)[0].status == "stable"
    for hour in range(400):
        now[0] += 3600
        monitor.observe(label=[f"unknown {hour}", "a"])
    assert len(monitor._hours) == drift_monitor.HOURS
    assert monitor.report(24)[0].counts.tolist() == [24, 0, 24]
    assert sum(sys.getsizeof(counts["label"]) for _, counts in monitor._hours) < 200 * drift_monitor.HOURS


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_run_is_its_own_reference(task: str, reviews: Path, tmp_path: Path) -> None:
    path, settings = tmp_path / "run", ["evaluate.bootstrap_samples=100"]
    if task == "classification":
        tunesmith.train({"method": "linear", "data": {"path": str(reviews)}}, settings, run_dir=path)
    else:
        learn(task, "linear", path, tmp_path)
    trained = runs.find(path)
    handlers = loaded([trained], Serve())
    names = {quantity.name for quantity in handlers.live["run"].served.quantities}
    assert names == {"characters"} | ({"value"} if task == "regression" else {"label", "confidence"})
    made = app.create(handlers)
    for _ in range(5):
        inputs = [text for text, _ in tiny.texts(60)]
        assert post(made, "/predict", {"inputs": inputs}).status_code == 200
    assert post(made, "/predict", {"inputs": ["the same"] * 50}).status_code == 200
    (model,) = get(made, "/drift").json()["models"]
    assert model["version"] == handlers.live["run"].served.version
    for quantity in model["quantities"]:
        assert quantity["values"] >= 300
        assert sum(each["reference"] for each in quantity["bins"]) == pytest.approx(1)
        assert sum(each["served"] for each in quantity["bins"]) == pytest.approx(1)
        assert quantity["psi"] is not None
    metrics = get(made, "/metrics").text
    assert 'tunesmith_drift_psi{model="run",quantity="characters"}' in metrics
    assert "the same" not in json.dumps(model) + metrics
    for hours in ("0", "169", "x"):
        assert error(get(made, f"/drift?hours={hours}"))["code"] == "invalid_request"
    handlers.close()


def test_other_texts_are_drift(reviews: Path, tmp_path: Path) -> None:
    """Requests like the data are stable, and many times longer ones of one label are drift."""
    recipe = {"method": "linear", "data": {"path": str(reviews)}}
    trained = tunesmith.train(recipe, ["evaluate.bootstrap_samples=100"], run_dir=tmp_path / "run")
    handlers = loaded([runs.find(trained.path)], Serve())
    made = app.create(handlers)
    usual = [text for text, _ in tiny.texts(300, seed=9)]
    for start in range(0, 300, 60):
        post(made, "/predict", {"inputs": usual[start : start + 60]})
    before = statuses(made)
    assert before["label"] == before["characters"] == "stable"
    for _ in range(10):
        post(made, "/predict", {"inputs": ["the goal of the team and the coach " * 9] * 60})
    after = statuses(made)
    assert after["label"] == after["characters"] == "drift"
    assert 'tunesmith_drift_detected{model="run",quantity="label"} 1.0' in get(made, "/metrics").text
    handlers.close()


def test_responses_are_counted() -> None:
    quantities = (
        of_numbers("characters", "test predictions", [2, 5], [1, 3, 8] * 50),
        of_numbers("response_tokens", "test predictions", [2], [1, 3] * 50),
    )
    made = application(generator(quantities=quantities), classifier(), classifier("other"))
    for stream in (False, True):
        post(made, "/v1/chat/completions", {"messages": message("a bc d"), "stream": stream})
    talk, *others = get(made, "/drift").json()["models"]
    assert [each["quantities"] for each in others] == [[], []]
    assert [[each["served"] for each in quantity["bins"]] for quantity in talk["quantities"]] == [[0, 0, 1], [0, 1]]
    assert {quantity["status"] for quantity in talk["quantities"]} == {"too_few"}


def test_counts_go_on_where_the_version_is_the_same() -> None:
    """A reload with nothing new loses no counts; of a new version others begin, and no metric of the old one stays."""
    labels = of_labels("label", "test predictions", LABELS, "abc" * 200)
    lengths = of_numbers("characters", "training texts", [3.0], [1.0, 5.0] * 100)
    newest = iter([("v1", (labels, lengths)), ("v2", (labels,))])

    def load(name: str) -> ServedClassifier:
        version, quantities = next(newest)
        return classifier(name, version=version, quantities=quantities)

    first = classifier(version="v1", quantities=(labels, lengths))
    handlers = Handlers({"labels": first}, Serve(), None, load)

    async def main() -> None:
        async with client(app.create(handlers)) as http:

            async def counted() -> dict[str, int]:
                await http.post("/predict", json={"inputs": ["a", "b"]})
                (model,) = (await http.get("/drift")).json()["models"]
                return {each["quantity"]: each["values"] for each in model["quantities"]}

            assert await counted() == {"label": 2, "characters": 2}
            assert 'quantity="characters"' in (await http.get("/metrics")).text
            await handlers.live.reload()
            assert await counted() == {"label": 4, "characters": 4}
            await handlers.live.reload()
            assert await counted() == {"label": 2}
            assert 'quantity="characters"' not in (await http.get("/metrics")).text

    run(main())
    handlers.close()


def test_many_labels_share_one_count() -> None:
    made = application(classifier())
    handlers: Any = made.handlers  # type: ignore[attr-defined]
    handlers.metrics.observe_values("labels", {"label": [f"label {n}" for n in range(1000)]})
    lines = [line for line in get(made, "/metrics").text.splitlines() if line.startswith("tunesmith_predictions_total")]
    assert len(lines) == 101
    assert 'tunesmith_predictions_total{label="other",model="labels"} 900.0' in lines


def test_a_damaged_reference_is_told(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"method": "linear", "data": {"path": str(reviews)}}
    trained = tunesmith.train(recipe, ["evaluate.bootstrap_samples=100"], run_dir=tmp_path / "run")
    (Path(trained.path) / "predictions" / "test.jsonl").write_text("{}")
    names = [quantity.name for quantity in drift_reference.of_run(runs.find(trained.path), ("sport",))]
    assert names == ["characters"]
    assert "drift of predictions is not watched" in capsys.readouterr().err


def statuses(made: Any) -> dict[str, str]:
    (model,) = get(made, "/drift").json()["models"]
    return {quantity["quantity"]: quantity["status"] for quantity in model["quantities"]}


def get(made: Any, path: str) -> Any:
    async def main() -> Any:
        async with client(made) as http:
            return await http.get(path)

    return run(main())
