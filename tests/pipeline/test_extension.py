"""A method and a task from outside the package: the worked examples of CONTRIBUTING.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith import hardware
from tunesmith.errors import RecipeError
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.pipeline.fitting.method_interface import Method
from tunesmith.pipeline.fitting.methods import METHODS
from tunesmith.pipeline.task_table import TASKS
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Recipe, names
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import Example, Prediction


@dataclass(frozen=True)
class MajorityClassifier:
    """Predicts the most frequent label, whatever the text."""

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    max_length: int | None = None

    @property
    def target(self) -> SingleLabel:
        return SingleLabel(self.labels)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        best = self.labels[self.shares.index(max(self.shares))]
        return [Prediction(example.id, best, self.shares) for example in examples]

    def count_tokens(self, example: Example) -> int:
        return len(example.text.split())

    def rendered_prompt(self, example: Example) -> str | None:
        return None

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "majority.json").write_text(json.dumps({"labels": self.labels, "shares": self.shares}))


class MajorityMethod(Method):
    tasks = ("classification", "routing")

    def describe(self, recipe: Recipe) -> str:
        return "the most frequent label"

    def fit(self, job: Job) -> TrainResult:
        counts = Counter(example.label for example in job.splits.train)
        shares = tuple(counts[label] / len(job.splits.train) for label in job.splits.labels)
        return TrainResult(MajorityClassifier(job.splits.labels, shares), parameters=len(shares), trainable=len(shares))

    def load(self, folder: Path, recipe: Recipe) -> MajorityClassifier:
        content = json.loads((folder / "majority.json").read_text())
        return MajorityClassifier(tuple(content["labels"]), tuple(content["shares"]))


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Do what classification does, and store the share of test texts of each length as well."""
    outcome = TASKS["classification"].evaluate(job, result, watch)
    lengths = Counter(result.text_predictor.count_tokens(example) for example in job.splits.test)
    job.run.write("lengths.json", {str(length): count for length, count in sorted(lengths.items())})
    return outcome


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with a method `majority` and a task `routing`."""
    monkeypatch.setitem(METHODS, "majority", MajorityMethod())
    task = replace(TASKS["classification"], evaluate=evaluate, compared_methods=("majority",))
    monkeypatch.setitem(TASKS, "routing", task)
    names.METHODS.append("majority")
    names.TASKS.append("routing")
    yield
    names.METHODS.remove("majority")
    names.TASKS.remove("routing")


def settings(tmp_path: Path, task: str, method: str) -> dict[str, object]:
    path = write_csv(tmp_path / "rows.csv", tiny.texts(60, seed=1))
    return {
        "task": task,
        "method": method,
        "data": {"path": str(path)},
        "output_dir": str(tmp_path / "runs"),
        "evaluate": {"bootstrap_samples": 100},
    }


@pytest.mark.parametrize("task", ["classification", "routing"])
def test_a_method_from_outside(task: str, extended: None, tmp_path: Path) -> None:
    run = tunesmith.train(settings(tmp_path, task, "majority"), quiet=True)
    assert (run.manifest.task, run.manifest.method, run.manifest.name) == (task, "majority", "majority")
    assert (run.path / "lengths.json").exists() == (task == "routing")
    labels = {row["label"] for row in tunesmith.predict(run, ["one text", "another"])}
    assert len(labels) == 1
    assert "majority" in (run.path / "report.md").read_text("utf-8")
    assert "the most frequent label" in (run.path / "README.md").read_text("utf-8")


def test_a_method_learns_its_own_tasks_only(extended: None, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="method linear cannot learn task routing"):
        tunesmith.train(settings(tmp_path, "routing", "linear"), quiet=True)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"method: input should be 'linear'.*not 'majority'"):
        tunesmith.train(settings(tmp_path, "classification", "majority"), quiet=True)


def test_the_tables_and_the_names_of_a_recipe_agree() -> None:
    assert list(METHODS) == names.METHODS
    assert list(TASKS) == names.TASKS
    assert {task for method in METHODS.values() for task in method.tasks} == set(TASKS)
