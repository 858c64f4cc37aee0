"""A prompted model behind our own server, over HTTP, answers as the same model in this process does."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.serving_fakes import listening, loaded
from tunesmith.recipe import Serve
from tunesmith.serving import app
from tunesmith.types import PredictionRow

PLAIN = ["template=plain", "bootstrap_samples=100", "max_length=200"]
UNTUNED = ["adapter.kind=none", "max_steps=null", "num_train_epochs=0"]


def test_answers_over_http_are_those_in_this_process(words: Path, tmp_path: Path) -> None:
    """With and without shots, and with labels that the model has learned to name, so that most answers are labels."""
    data = write_csv(tmp_path / "texts.csv", tiny.texts(60))
    source = {"method": "generator", "data": {"path": str(data)}, "model": {"name_or_path": str(words)}}
    tuned = tunesmith.train(source, [*PLAIN, "max_steps=50", "learning_rate=5e-3", "eval_strategy=no"], run_dir="tuned")
    own = source | {"model": {"name_or_path": str(tuned.model)}}
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(10)]))
    answers = own | {"task": "instruction", "data": {"path": str(prompts)}}
    chat = tunesmith.train(answers, [*PLAIN, *UNTUNED, "max_new_tokens=4"], run_dir="chat")
    with closing(loaded([chat], Serve())) as handlers, listening(app.create(handlers, ())) as address:
        for shots in (0, 2):
            free = [*PLAIN, *UNTUNED, "predict.mode=free", f"prompt.shots={shots}"]
            here = tunesmith.train(own, free, run_dir=f"here-{shots}")
            asked = [f"endpoint.url={address}/v1", "endpoint.model=chat", f"endpoint.shots={shots}"]
            asked += ["endpoint.delimiters=false", "endpoint.max_tokens=8", "method=endpoint", "bootstrap_samples=100"]
            there = tunesmith.train({"data": {"path": str(data)}}, asked, run_dir=f"there-{shots}")
            local, remote = (run.predictions("test", PredictionRow) for run in (here, there))
            assert [row.label for row in remote] == [row.label for row in local]
            assert sum(bool(row.label) for row in local) > len(local) / 2
            costs = there.finished.costs.endpoint
            assert costs is not None
            assert costs.prompt_tokens > 10 * (1 + shots) * len(remote)
