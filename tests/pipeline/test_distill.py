"""Labels bought from a model behind an endpoint, and models that learn them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import write_csv
from tests.endpoint_server import Request, serving
from tunesmith.errors import RecipeError
from tunesmith.pipeline.commands.distill import distill
from tunesmith.pipeline.commands.pseudo_label import pseudo_label
from tunesmith.types import PredictionRow


def gold(request: Request) -> str:
    """The label whose words a text has most, as a teacher that is mostly right."""
    words = request.block("TEXT").split()
    return max(tiny.WORDS, key=lambda label: sum(word in tiny.WORDS[label] for word in words))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_students_learn_bought_labels_and_stand_beside_their_teacher(reviews: Path, tmp_path: Path) -> None:
    new = tiny.texts(150, seed=7)
    known = [text for text, _ in tiny.texts(240)]
    pool = write_csv(tmp_path / "pool.csv", [*new, *((text, "") for text in known)])
    with serving(gold) as server:
        words = [
            f"endpoint.url={server.url}",
            "endpoint.model=big",
            "endpoint.samples=3",
            "endpoint.prices={big: [1, 1]}",
        ]
        made = distill(str(reviews), words, pool=str(pool), methods=["linear"])
        sent = len(server.requests)
        again = distill(str(reviews), words, pool=str(pool), methods=["linear"])
        assert len(server.requests) == sent  # everything is in the journal
    rows = made.teacher.predictions("test", PredictionRow)
    tested = {text for text, _ in tiny.texts(240)} - {str(row["text"]) for row in lines(made.labels.kept)}
    assert len(rows) == len(tested) == 48  # no test row among the bought ones
    assert made.labels.report.rows == 150 + 240 - 48
    assert made.labels.report.endpoint is not None
    assert made.labels.report.endpoint.price == pytest.approx(3 * 342 * 107 / 1e6)  # tokens that the server counts
    student, teacher = made.comparison.report.methods
    assert (student.name, teacher.name) == ("linear", "endpoint:big")
    assert teacher.scores == again.comparison.report.methods[1].scores
    assert teacher.scores.headline["accuracy"].value == sum(row.label == row.gold for row in rows) / 48
    assert student.scores.headline["accuracy"].value > 0.8
    origin = lines(made.labels.kept)[0]["from"]
    assert isinstance(origin, dict)
    assert origin["run"] == str(made.teacher.path)


def test_labelled_data_and_an_endpoint_label_a_pool_without_labels(reviews: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.csv"
    pool.write_text("text\n" + "\n".join(text for text, _ in tiny.texts(60, seed=7)), encoding="utf-8")
    with serving(gold) as server:
        words = [f"endpoint.url={server.url}", "endpoint.model=big", "endpoint.samples=3"]
        labelled = pseudo_label(str(reviews), source=str(pool), overrides=words)
        assert len(server.requests) == 3 * (48 + 20 + 60)
    assert labelled.report.rows == labelled.report.kept == 60
    assert labelled.report.labelled == 48  # of the test split, where labels are known
    assert labelled.report.from_test
    assert [row["label"] for row in lines(labelled.kept)] == [
        max(tiny.WORDS, key=lambda label: sum(word in tiny.WORDS[label] for word in text.split()))
        for text, _ in tiny.texts(60, seed=7)
    ]


def test_without_probabilities_every_reply_that_is_a_label_is_kept(reviews: Path, tmp_path: Path) -> None:
    pool = write_csv(tmp_path / "pool.csv", tiny.texts(30, seed=7))
    with serving(lambda request: "Sorry." if "coach" in request.block("TEXT") else gold(request)) as server:
        words = [f"endpoint.url={server.url}", "endpoint.model=big"]
        labelled = pseudo_label(str(reviews), source=str(pool), overrides=words)
    refused = sum("coach" in text.split() for text, _ in tiny.texts(30, seed=7))
    assert refused > 0
    assert (labelled.report.kept, labelled.report.rows) == (30 - refused, 30)


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="distill buys labels"):
        distill("any.csv", ["task=regression", "endpoint.model=big"])
