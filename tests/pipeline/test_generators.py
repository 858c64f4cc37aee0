"""Generators through the pipeline, as a user would run them: instruction tuning, and classification by a generator."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests import tiny
from tunesmith.errors import DataError, ModelError, RecipeError, RunError
from tunesmith.evaluation import responses
from tunesmith.models import quantize
from tunesmith.pipeline.commands import chat, predict as predictions
from tunesmith.pipeline.commands.check import check, describe
from tunesmith.pipeline.prediction_stream import PredictionSettings
from tunesmith.recipe import Generate
from tunesmith.runs import Run
from tunesmith.types import Prediction, ResponseRow

QUICK = ["bootstrap_samples=100", "max_new_tokens=6", "num_samples=1", "logging_steps=1"]


def instruct(model: Path, pairs: Path, *more: str, **where: Any) -> Run:
    source = {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}
    return tunesmith.train(source, [*QUICK, "max_steps=4", "eval_strategy=steps", "eval_steps=2", *more], **where)


def classify(model: Path, reviews: Path, *more: str, **where: Any) -> Run:
    source = {"method": "generator", "data": {"path": str(reviews)}, "model": {"name_or_path": str(model)}}
    return tunesmith.train(source, [*QUICK, "max_steps=4", *more], **where)


def test_an_instruction_run_has_everything(model: Path, pairs: Path, tmp_path: Path) -> None:
    run = instruct(model, pairs, run_dir=tmp_path / "run")
    manifest, scores = run.finished, run.read("scores.json")
    assert manifest.task == "instruction"
    assert manifest.name == "generator:full"
    assert manifest.notes.layout == "packed"
    assert manifest.notes.adapter.endswith("(100.0000%)")
    assert set(scores["headline"]) == set(responses.HIGHER_IS_BETTER)
    rows = run.predictions("test", ResponseRow)
    assert scores["headline"]["loss"]["value"] == pytest.approx(
        sum(row.loss for row in rows) / sum(row.learned for row in rows)
    )
    assert all(None not in (row.reference, row.response, row.ended, row.tokens) for row in rows)
    written = json.loads((run.path / "predictions" / "pairs-with-response.json").read_text())
    assert [row.pop("model_response") for row in written] == [row.response for row in rows]
    assert all(row in json.loads(pairs.read_text()) for row in written)
    samples = [line for line in run.metrics() if line.samples]
    assert [line.step for line in samples] == [2, 4]
    assert len(samples[0].samples) == 1
    for name in ("report.html", "report.md", "README.md", "training_loss.png", "model/chat_template.jinja"):
        assert (run.path / name).stat().st_size > 0


def test_the_test_loss_is_the_plain_one(model: Path, pairs: Path, tmp_path: Path) -> None:
    """As transformers computes it from labels, row by row, on the files that were saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = instruct(model, pairs, run_dir=tmp_path / "run")
    saved = AutoModelForCausalLM.from_pretrained(run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    source = {row["input"]: row for row in json.loads(pairs.read_text())}
    for row in run.predictions("test", ResponseRow)[:5]:
        given = source[row.prompt.split("\n\n")[1]]
        turns = [{"role": "user", "content": given["instruction"], "input": given["input"]}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        answer = tokenizer(given["output"] + tokenizer.eos_token)["input_ids"]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            loss = saved(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
        assert row.learned == len(answer)
        assert row.loss == pytest.approx(float(loss) * len(answer), rel=1e-4)


def test_packed_and_padded_learn_the_same(model: Path, pairs: Path, tmp_path: Path) -> None:
    losses = []
    for layout in ("packed", "padded"):
        run = instruct(model, pairs, f"engine.layout={layout}", run_dir=tmp_path / layout)
        assert run.finished.notes.layout.startswith(layout)
        losses.append([line.loss for line in run.metrics() if line.loss is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bfloat16_autocast_learns_nearly_the_same(model: Path, pairs: Path, tmp_path: Path) -> None:
    """Also in packed rows, where rotary embeddings leave queries and keys in float32."""
    runs = [
        instruct(model, pairs, f"mixed_precision={precision}", "max_steps=3", run_dir=tmp_path / precision)
        for precision in ("no", "bf16")
    ]
    assert runs[1].finished.notes.mixed_precision == "bf16"
    losses = [[line.loss for line in run.metrics() if line.loss] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_models_that_cannot_be_packed_are_padded_aloud(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bloom = tiny.generator("bloom", tmp_path / "bloom", attention="eager", hidden_size=32, n_layer=2, n_head=2)
    run = instruct(bloom, pairs, run_dir=tmp_path / "run")
    assert "rows are padded, not packed" in capsys.readouterr().err
    assert run.finished.notes.layout.startswith("padded: ")
    with pytest.raises(RecipeError, match="does not suit"):
        instruct(bloom, pairs, "engine.layout=packed", run_dir=tmp_path / "other")


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_what_was_trained_answers_as_it_did(kind: str, model: Path, pairs: Path, tmp_path: Path) -> None:
    run = instruct(model, pairs, f"adapter.kind={kind}", run_dir=tmp_path / "run")
    before = {row.prompt: row.response for row in run.predictions("test", ResponseRow)}
    rows = tunesmith.predict(run, source=str(pairs))
    assert {row["prompt"]: row["response"] for row in rows if row["prompt"] in before} == before
    session = chat.ChatSession(run, run.recipe.generate)
    prompt = rows[0]["prompt"]
    (alone,) = tunesmith.predict(run, [prompt])
    assert "".join(session.ask(prompt)) == alone["response"]
    assert [turn.role for turn in session.messages] == ["user", "assistant"]
    count, written = predictions.write_responses(run, str(pairs), None, PredictionSettings())
    assert count == len(rows)
    assert [path.name for path in written] == ["generated_predictions.jsonl", "pairs-with-responses.json"]
    again = json.loads(written[1].read_text())
    assert [{k: v for k, v in row.items() if k != "model_response"} for row in again] == json.loads(pairs.read_text())
    assert [row["model_response"] for row in again] == [row["response"] for row in rows]


def test_rows_that_cannot_be_cut_to_fit_do_not_end_a_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their system message alone is too long: they are left without an answer, aloud, and count in nothing."""
    rows = [{"instruction": f"Name it: {text}", "output": label} for text, label in tiny.texts(8)]
    long = {"instruction": "Go.", "output": "Yes.", "system": "Be kind. " * 100}
    short = {"instruction": "a" * 600, "input": "b", "output": "c"}
    parts = {"train": rows, "validation": [long, *rows[:1]], "test": [rows[0], long, short]}
    for part, content in parts.items():
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    data = {part: str(tmp_path / f"{part}.json") for part in parts}
    source = {"task": "instruction", "data": data, "model": {"name_or_path": str(model)}}
    settings = [*QUICK, "max_steps=1", "eval_strategy=steps", "eval_steps=1", "evaluate.base=false"]
    run = tunesmith.train(source, settings, run_dir=tmp_path / "run")
    assert run.manifest.status == "finished"
    assert [row.response is not None for row in run.predictions("test", ResponseRow)] == [True, False, True]
    assert [row.learned > 0 for row in run.predictions("test", ResponseRow)] == [True, False, True]
    assert run.read("scores.json")["answered"] == 2
    assert "too long even when cut, and not answered: test.json:row 2" in capsys.readouterr().err
    answers = tunesmith.predict(run, source=data["test"])
    assert [row["response"] is None for row in answers] == [False, True, False]
    _, (path, _) = predictions.write_responses(run, data["test"], None, PredictionSettings())
    assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == [r["response"] for r in answers]


def test_answers_are_written_as_asked_for(model: Path, pairs: Path, reviews: Path, tmp_path: Path) -> None:
    """What cannot be written is refused before anything is answered, and answers are not lost to an odd source."""
    run = instruct(model, pairs, "data.encoding=utf-8,cp1252", run_dir=tmp_path / "run")
    rows = [{"instruction": "Où?", "output": ""}, {"instruction": "Go.", "output": None}]
    lines, western = tmp_path / "lines.json", tmp_path / "western.json"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    western.write_bytes(json.dumps(rows, ensure_ascii=False).encode("cp1252"))
    answers = tunesmith.predict(run, source=str(lines))
    output, settings = str(tmp_path / "out.json"), PredictionSettings()
    _, paths = predictions.write_responses(run, str(lines), None, settings)
    assert [path.name for path in paths] == [predictions.GENERATED]
    with pytest.raises(RecipeError, match="only rows of a JSON file"):
        predictions.is_answered_json(run, str(lines), output)
    assert predictions.is_answered_json(run, str(western), output)
    _, (path,) = predictions.write_responses(run, str(western), output, settings)
    assert [row["instruction"] for row in json.loads(path.read_text("utf-8"))] == ["Où?", "Go."]
    tunesmith.write_predictions(run, str(lines), path := tmp_path / "out.csv")
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["prompt"], row["response"]) for row in table] == [(row["prompt"], row["response"]) for row in answers]
    classifier = tunesmith.train({"method": "linear", "data": {"path": str(reviews)}}, run_dir=tmp_path / "linear")
    with pytest.raises(RecipeError, match=r"cannot write .*out\.json"):
        tunesmith.write_predictions(classifier, str(reviews), output)


def test_templates_that_rewrite_are_refused_before_training(model: Path, tmp_path: Path) -> None:
    """Also where test rows alone have several answers; with one answer all goes well, and `chat` takes more turns."""
    template = tmp_path / "last.jinja"
    template.write_text(
        "{% for m in messages %}{{ ('THINK ' if loop.last and m.role == 'assistant' else '') + m.content }}"
        "{{ eos_token }}{% endfor %}"
    )
    rows = [{"instruction": f"Name it: {text}", "output": label} for text, label in tiny.texts(20)]
    several = {"instruction": "And?", "output": "Yes.", "history": [["Go.", "No."]]}
    for name, test in (("good", rows[:2]), ("bad", [*rows[:1], several])):
        paths = {"train": tmp_path / "train.json", "test": tmp_path / f"{name}.json"}
        paths["train"].write_text(json.dumps(rows))
        paths["test"].write_text(json.dumps(test))
        source = {
            "task": "instruction",
            "data": {part: str(path) for part, path in paths.items()},
            "model": {"name_or_path": str(model)},
            "prompt": {"template": str(template)},
        }
        settings = [*QUICK, "max_steps=1", "evaluate.base=false", "split.validation_size=0"]
        if name == "bad":
            with pytest.raises(ModelError, match="rewrites"):
                tunesmith.train(source, settings, run_dir=tmp_path / name)
            assert not Run(tmp_path / name).metrics()
            continue
        talk = chat.ChatSession(tunesmith.train(source, settings, run_dir=tmp_path / name), Generate(max_new_tokens=4))
        for _ in range(3):
            list(talk.ask("Go on."))
        assert len(talk.messages) == 6


def test_an_untuned_model_stores_its_name_alone(model: Path, pairs: Path, tmp_path: Path) -> None:
    run = instruct(model, pairs, "max_steps=null", "num_train_epochs=0", run_dir=tmp_path / "run")
    assert run.manifest.name == "generator:untuned"
    assert run.finished.costs.trainable == 0
    assert not list(run.model.glob("*.safetensors"))
    first = run.predictions("test", ResponseRow)[0]
    (row,) = tunesmith.predict(run, source=str(pairs))[:1]
    assert row["response"] is not None
    assert first.response in {r["response"] for r in tunesmith.predict(run, source=str(pairs))}


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_a_generator_classifies(kind: str, model: Path, reviews: Path, tmp_path: Path) -> None:
    run = classify(model, reviews, f"adapter.kind={kind}", "learning_rate=3e-3", run_dir=tmp_path / "run")
    scores = run.read("scores.json")
    assert 0 <= scores["headline"]["accuracy"]["value"] <= 1
    stored = run.predictions("test", Prediction)
    texts = [row.text for row in tunesmith.data.read(run.recipe.data, run.recipe.split, run.recipe.seed).test]
    again = tunesmith.predict(run, texts, top_k=3)
    assert [row["label"] for row in again] == [prediction.label for prediction in stored]
    assert [row["score"] for row in again] == pytest.approx([max(p.probabilities) for p in stored], abs=1e-5)
    assert (run.model / "adapter_model.safetensors").exists() == (kind == "lora")


def test_a_generator_learns_to_name_labels(reviews: Path, tmp_path: Path) -> None:
    """Of words, which a tiny model learns sooner than letters; each label is answered by one of them."""
    words = tiny.tokenizer("llama")
    tiny.causal("llama", vocab_size=len(words)).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    texts = "label_texts={sport: goal, tech: chip, world: vote}"
    settings = ["max_steps=200", "learning_rate=5e-3", "eval_strategy=no", "template=plain", texts]
    run = classify(tmp_path / "model", reviews, *settings, run_dir=tmp_path / "run")
    assert run.read("scores.json")["headline"]["accuracy"]["value"] > 0.7  # a guess gets a third


def test_labels_and_questions_are_tried_before_training(reviews: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no room for a text.*found: \d+ tokens"):
        classify(model, reviews, "model.max_length=40", run_dir=tmp_path / "long")
    from tokenizers import normalizers

    words = tiny.byte_tokenizer()
    words.backend_tokenizer.normalizer = normalizers.Lowercase()
    tiny.causal("llama", vocab_size=len(words)).save_pretrained(tmp_path / "lower")
    words.save_pretrained(tmp_path / "lower")
    with pytest.raises(ModelError, match=r"labels 'US' and 'us' apart"):
        classify(tmp_path / "lower", reviews, "label_texts={sport: US, tech: us}", run_dir=tmp_path / "alike")


def test_encoders_take_adapters_too(reviews: Path, tmp_path: Path) -> None:
    folder = tiny.model("distilbert", tmp_path / "model")
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(folder)}, "adapter": {"kind": "lora"}}
    run = tunesmith.train(source, [*QUICK, "max_steps=3"], run_dir=tmp_path / "run")
    assert run.manifest.name == "encoder:lora"
    assert run.finished.costs.trainable < run.finished.costs.parameters / 2
    stored = run.predictions("test", Prediction)
    texts = [row.text for row in tunesmith.data.read(run.recipe.data, run.recipe.split, run.recipe.seed).test]
    assert [row["label"] for row in tunesmith.predict(run, texts)] == [prediction.label for prediction in stored]


def test_a_qlora_run_without_4_bits_is_not_called_one(
    model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "usable", lambda: "not today")
    run = instruct(model, pairs, "adapter.kind=qlora", run_dir=tmp_path / "run")
    manifest = run.finished
    assert manifest.notes.fallback == "lora instead of qlora: not today"
    assert manifest.name == "generator:qlora (fell back to lora)"
    assert manifest.description.startswith("LoRA on llama")
    assert "on 4-bit" not in run.read_text("report.md") + run.read_text("README.md")
    assert "fell back to lora" in run.read_text("report.md")


def test_a_merged_model_answers_as_the_adapted_one(model: Path, pairs: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = instruct(model, pairs, "adapter.kind=lora", "learning_rate=1e-2", run_dir=tmp_path / "run")
    proof = tunesmith.merge(run, tmp_path / "merged")
    assert proof.max_logit_difference < 1e-4
    assert proof.same_answers == 1
    assert (tmp_path / "merged" / "parity.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged, "peft_config")
    whole = instruct(model, pairs, run_dir=tmp_path / "whole")
    with pytest.raises(RunError, match="no adapter"):
        tunesmith.merge(whole, tmp_path / "other")
    with pytest.raises(RunError, match="not an empty folder"):
        tunesmith.merge(run, tmp_path / "merged")


def test_chat_on_the_command_line(
    model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.cli import main

    run = instruct(model, pairs, run_dir=tmp_path / "run")
    monkeypatch.setattr("sys.stdin", io.StringIO("Name the topic.\n\n/reset\nName the topic.\n/exit\nnever read\n"))
    capsys.readouterr()
    assert main(["chat", str(run.path), "generate.max_new_tokens=4"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    loss = run.read("scores.json")["headline"]["loss"]["value"]
    assert main(["runs", "list", str(tmp_path)]) == 0
    assert f"loss {loss:.4f}" in capsys.readouterr().out
    assert main(["evaluate", str(run.path)]) == 0
    assert f"{loss:.3f}" in capsys.readouterr().out


def test_settings_that_contradict_are_refused(model: Path, reviews: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="class_weights"):
        classify(model, reviews, "class_weights=balanced", run_dir=tmp_path / "a")
    with pytest.raises(RecipeError, match="freeze"):
        classify(model, reviews, "freeze=body", "adapter.kind=lora", run_dir=tmp_path / "b")
    with pytest.raises(RecipeError, match="needs method generator"):
        instruct(model, pairs, "method=encoder", run_dir=tmp_path / "c")
    run = classify(model, reviews, run_dir=tmp_path / "d")
    with pytest.raises(RunError, match="not trained to answer"):
        chat.ChatSession(run, run.recipe.generate)


def test_check_shows_what_is_learned(model: Path, pairs: Path) -> None:
    source = {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}
    found = check(source, ["template=alpaca-short", "max_length=230"])
    assert found.tokens.cut > 0
    assert 0 < found.tokens.learned < 0.2
    first = found.rendered[0]
    assert [learned for _, learned in first.pieces] == [False, True]
    assert first.pieces[1][0].endswith("<eos>")
    plain, coloured = describe(found), describe(found, colours=True)
    assert f"[[{first.pieces[1][0]}]]" in plain
    assert f"\033[1;32m{first.pieces[1][0]}\033[0m" in coloured
    assert "of the tokens are learned" in plain
