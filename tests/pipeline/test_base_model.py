"""The model before training beside the one after it: the same prompts, the same template, in every report by itself."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests import tiny
from tunesmith import recipe as recipes
from tunesmith.models import pretrained
from tunesmith.pipeline.fitting import base_model
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

QUICK = ["bootstrap_samples=100", "max_new_tokens=6", "num_samples=1", "max_steps=4", "learning_rate=1e-2"]
UNTUNED = ["max_steps=null", "num_train_epochs=0"]


def source(model: Path, pairs: Path) -> dict[str, Any]:
    return {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}


def instruct(model: Path, pairs: Path, *more: str, **where: Any) -> Run:
    return tunesmith.train(source(model, pairs), [*QUICK, *more], **where)


@pytest.mark.parametrize("kind", ["none", "lora", "qlora"])
def test_its_rows_are_those_of_an_untuned_run(kind: str, model: Path, pairs: Path, tmp_path: Path) -> None:
    tuned = instruct(model, pairs, f"adapter.kind={kind}", "max_responses=5", run_dir=tmp_path / "tuned")
    before = base_model.stored(tuned)
    rows = tuned.predictions("test", ResponseRow)
    assert [(row.id, row.reference) for row in before] == [(row.id, row.reference) for row in rows]
    assert sum(row.response is not None for row in before) == sum(row.response is not None for row in rows) == 5
    assert [row.loss for row in before] != [row.loss for row in rows]
    untuned = instruct(model, pairs, *UNTUNED, "max_responses=5", run_dir=tmp_path / "untuned")
    assert base_model.stored(untuned) == []
    if kind != "qlora":  # whose base is the model in 4 bits
        assert [row.loss for row in before] == pytest.approx(
            [row.loss for row in untuned.predictions("test", ResponseRow)], rel=1e-6
        )
        assert [row.response for row in before] == [row.response for row in untuned.predictions("test", ResponseRow)]
    found = tuned.read("scores.json")
    assert found["base"]["headline"]["loss"]["value"] == pytest.approx(
        sum(row.loss for row in before) / sum(row.learned for row in before)
    )
    pair = found["base"]["pair"]
    assert (pair["a"], pair["b"]) == (tuned.manifest.name, "base")
    losses = [one["headline"]["loss"]["value"] for one in (found, found["base"])]
    assert pair["loss_difference"]["value"] == pytest.approx(losses[0] - losses[1])
    assert tuned.finished.costs.base_seconds > 0
    assert untuned.finished.costs.base_seconds is None


def test_it_stands_in_every_page(model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = instruct(model, pairs, run_dir=tmp_path / "run")
    page, text, card = (run.read_text(name) for name in ("report.html", "report.md", "README.md"))
    loss = run.read("scores.json")["base"]["headline"]["loss"]["value"]
    for shown in (page, text, card):
        assert f"{loss:.3f}" in shown
        assert "generator:full − base" in shown
    assert "(base)" in run.read_text("report.md").split("##")[0]  # the verdict holds the model against it
    assert "the base model took another" in page
    assert page.count('<details class="method') == 1
    capsys.readouterr()
    from tunesmith.cli import main

    before = (run.path / "scores.json").read_bytes()
    assert main(["evaluate", str(run.path), "--report", str(tmp_path / "page.html")]) == 0
    assert "generator:full − base" in capsys.readouterr().out
    assert (run.path / "scores.json").read_bytes() == before
    assert "Which differences are real?" in (tmp_path / "page.html").read_text()


def test_equal_runs_have_equal_bits_with_and_without_it(model: Path, pairs: Path, tmp_path: Path) -> None:
    runs = [
        instruct(model, pairs, *more, run_dir=tmp_path / name)
        for name, more in (("a", ()), ("b", ()), ("without", ("evaluate.base=false",)))
    ]
    for name in ("scores.json", "predictions/base.jsonl", "predictions/test.jsonl", "model/model.safetensors"):
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes()
    assert (runs[0].path / "predictions/test.jsonl").read_bytes() == (
        runs[2].path / "predictions/test.jsonl"
    ).read_bytes()
    scores = [run.read("scores.json") for run in (runs[0], runs[2])]
    assert {key: value for key, value in scores[0].items() if key != "base"} == scores[1]


def test_a_run_that_died_over_it_goes_on(
    model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = instruct(model, pairs, run_dir=tmp_path / "whole")
    release = pretrained.release

    def dies(model: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(pretrained, "release", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        instruct(model, pairs, run_dir=tmp_path / "cut")
    monkeypatch.setattr(pretrained, "release", release)
    assert Run(tmp_path / "cut").manifest.status == "failed"
    again = tunesmith.train(resume=tmp_path / "cut")
    for name in ("scores.json", "predictions/base.jsonl", "model/model.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_what_has_nothing_before_it_says_so(
    model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = "model.from_config={model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_positions: 512}"
    run = instruct(model, pairs, made, run_dir=tmp_path / "made")
    assert "no base model to compare with: this one began with random weights" in capsys.readouterr().err
    assert base_model.stored(run) == []
    instruct(model, pairs, *UNTUNED, run_dir=tmp_path / "untuned")
    assert "no base model to compare with: this one was not trained" in capsys.readouterr().err


def test_a_closed_test_split_stays_closed_to_it(model: Path, pairs: Path, tmp_path: Path) -> None:
    from tunesmith.pipeline.commands.train import open_test

    run = instruct(model, pairs, run_dir=tmp_path / "run", skip_test=True)
    assert not (run.path / "predictions" / "base.jsonl").exists()
    opened = open_test(run)
    whole = instruct(model, pairs, run_dir=tmp_path / "whole")
    assert base_model.stored(opened) == base_model.stored(whole) != []


def test_comparisons_and_later_seeds_go_without(model: Path, pairs: Path, tmp_path: Path) -> None:
    recipe = recipes.load(source(model, pairs))
    assert base_model.unless_asked(recipe).evaluate.base is False
    assert base_model.unless_asked(recipes.load(recipe, ["evaluate.base=true"])).evaluate.base is True
    from tunesmith.pipeline import seeds
    from tunesmith.pipeline.commands import compare

    plans = compare.plans([recipe], [], ["generator:untuned", "generator:lora"])
    assert [plan.evaluate.base for _, plan in plans] == [False, False]
    planned = [recipes.load(recipe, words) for words in seeds.settings(recipe, [1, 2, 3])]
    assert [plan.evaluate.base for plan in planned] == [True, False, False]


def test_finished_runs_that_share_it_are_compared_with_it(model: Path, pairs: Path, tmp_path: Path) -> None:
    runs = [instruct(model, pairs, f"adapter.kind={kind}", run_dir=tmp_path / kind) for kind in ("none", "lora")]
    found = tunesmith.compare([run.path for run in runs])
    assert [method.name for method in found.report.methods] == ["generator:full", "generator:lora", "base"]
    assert len(found.report.pairs) == 3
    scored = tunesmith.evaluate(*(run.path for run in runs), report=tmp_path / "page.html")
    assert list(scored.models) == ["generator:full", "generator:lora"]
    assert scored.compared.decided_by == "loss"
    assert scored.pairs[0].loss_difference.value == pytest.approx(found.report.pairs[0].loss_difference.value)
    written = tmp_path / "answers.jsonl"  # what another program made of the same prompts
    rows = [
        {"prompt": row.prompt, "reference": row.reference, "response": row.reference}
        for row in runs[0].predictions("test", ResponseRow)
    ]
    written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixed = tunesmith.evaluate(runs[0].path, written)
    assert (mixed.compared.decided_by, mixed.compared.rows) == ("rougeL", 12)
    assert mixed.verdict.startswith("answers has the highest ROUGE-L, 1.000")


def test_released_memory_is_given_back() -> None:
    model = tiny.causal("llama")
    weights = [weakref.ref(parameter) for parameter in model.parameters()]
    pretrained.release(model)
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
    gc.collect()
    assert not any(one() is not None and one().device.type == "cpu" for one in weights)  # type: ignore[union-attr]
