"""`tunesmith judge` from end to end, before a judge on loopback that does as it is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tests.endpoint_server import Request, Server, completion, serving
from tests.sample_reports import Balance
from tunesmith import cli, records
from tunesmith.endpoints import client
from tunesmith.endpoints.chat_client import ClientIdentity
from tunesmith.endpoints.journal import file_name
from tunesmith.errors import DataError, EndpointError, RecipeError
from tunesmith.evaluation.intervals import Confidence
from tunesmith.pipeline import run_report
from tunesmith.pipeline.commands.judge import JudgeInput, JudgeResult, judge
from tunesmith.reporting import generation_report as answers_report
from tunesmith.reporting.judge_schema import load_judge_report
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "INITIAL_BACKOFF", 0.01)
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "TUNESMITH_JUDGE_URL",
        "TUNESMITH_JUDGE_KEY",
        "TUNESMITH_JUDGE_MODEL",
    ):
        monkeypatch.delenv(name, raising=False)


def answers(path: Path, rows: int = 20, **columns: Callable[[int], str]) -> Path:
    """Sums, each with the right answer, and per column what a model said."""
    columns = columns or {"response": lambda n: f"It is {2 * n}."}
    path.write_text(
        json.dumps(
            [
                {"instruction": f"What is {n} and {n}?", "output": f"The sum is {2 * n}."}
                | {name: said(n) for name, said in columns.items()}
                for n in range(rows)
            ]
        )
    )
    return path


def fair(request: Request) -> str:
    """A judge that can add."""
    question = request.block("QUESTION")
    right = str(2 * int(question.split()[2]))
    words = request.block("RESPONSE").replace(".", "").split()
    return "Score: 90" if right in words else "Score: 10"


def ask(server: Server, *sources: Path, settings: tuple[str, ...] = (), **more: Any) -> JudgeResult:
    overrides = [
        f"judge.url={server.url}",
        "judge.model=loopback",
        "judge.timeout=1",
        "judge.max_retries=2",
        "evaluate.bootstrap_samples=200",
        *settings,
    ]
    return judge(*sources, overrides=overrides, **more)


def test_a_fair_judge_is_trusted_and_tells_models_apart(tmp_path: Path) -> None:
    path = answers(
        tmp_path / "said.json", right_response=lambda n: f"It is {2 * n}.", wrong_response=lambda n: f"It is {n + 50}."
    )
    with serving(fair) as server:
        found = ask(server, path)
    report = found.report
    right, wrong = report.models
    assert (right.name, right.headline.value, right.scored) == ("right", 90, 20)
    assert (wrong.name, wrong.headline.value) == ("wrong", 10)
    (pair,) = report.pairs
    assert (pair.value, pair.higher, pair.distinguishable) == (80, 20, True)
    assert report.reliability.trusted is True
    assert {one.control: (one.verdicts, one.mean.value) for one in report.reliability.controls} == {
        "empty": (5, 10),
        "sure": (5, 10),
        "shuffled": (5, 10),
        "reference": (5, 90),
    }
    assert sum(right.histogram) == 20
    assert report.costs.questions == len(server.requests) == 60
    assert report.costs.read == 6000
    content = json.loads((found.folder.path / "judged.json").read_text())
    assert content == records.dump(report)
    assert load_judge_report(content) == report
    assert found.folder.path == tmp_path / "said-judged"
    page = found.page.read_text()
    for text in (
        "Can the judge be trusted?",
        "No evidence against it",
        "right is rated above wrong by 80.0",
        "<svg",
        "Best answers",
    ):
        assert text in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
    assert "http" not in page.replace(server.url, "").replace("http-equiv", "")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda _: "Score: 85", "it gave 50 or more to 15 of 15 nonsense answers"),
        (lambda _: "Score: 5", "it gave less than 50 to 5 of 5 reference answers"),
        (
            lambda one: "Score: 80" if one.block("RESPONSE") else "none",
            "it gave no score to 5 of 15 nonsense answers",
        ),
    ],
)
def test_a_judge_that_fails_its_controls_is_not_trusted(tmp_path: Path, act: Any, reason: str) -> None:
    with serving(act) as server:
        found = ask(server, answers(tmp_path / "said.json"))
    assert found.report.reliability.trusted is False
    assert reason in found.report.reliability.reasons
    for name in ("judge.md", "judge.html"):
        assert "The judge cannot be trusted: " in (found.folder.path / name).read_text()


@pytest.mark.parametrize(("silent", "withheld"), [(2, False), (3, True)])
def test_above_two_percent_unscored_there_is_no_headline(tmp_path: Path, silent: int, withheld: bool) -> None:
    """And what is unscored is in no mean."""

    def act(request: Request) -> str:
        return "I'd rather not." if int(request.block("QUESTION").split()[2]) < silent else "Score: 60"

    with serving(act) as server:
        found = ask(server, answers(tmp_path / "said.json", 100), settings=("judge.controls=0",))
    missed = found.report.unscored
    assert (missed.count, missed.verdicts, missed.withheld) == (silent, 100, withheld)
    assert missed.reasons == {"no verdict on the last line": silent}
    (model,) = found.report.models
    assert (model.headline is None) == withheld
    assert model.scored == 100 - silent
    assert model.median == 60
    assert ("No headline: 3 of 100" in (found.folder.path / "judge.md").read_text()) == withheld
    assert found.report.reliability.trusted is None


def misbehaving() -> Callable[[Request], Any]:
    """Fails in a way that depends on the question; what may pass does so at the second try."""
    seen: Counter[str] = Counter()
    passing: list[Any] = [(500, {}, b""), (429, {"Retry-After": "0.05"}, b""), "hang", "cut", "drop", (200, {}, b"}{")]
    final = [
        "7/10",
        "I cannot do that.",
        "Score: 250",
        (200, {}, completion("Score: 8", "length")),
        "Score: 1\nScore: 99",
    ]

    def act(request: Request) -> Any:
        seen[request.user] += 1
        kind = int(request.block("QUESTION").split()[2]) % 14
        if kind < 6:
            return passing[kind] if seen[request.user] == 1 else "Score: 77"
        if kind < 11:
            return final[kind - 6]
        return "drop" if kind == 11 else "Score: 77"  # of these, one kind never has a reply

    return act


def test_whatever_goes_wrong_nothing_is_lost_and_nothing_is_scored_twice(tmp_path: Path) -> None:
    rows = 56
    path = answers(tmp_path / "said.json", rows)
    with serving(misbehaving()) as server:
        found = ask(server, path, settings=("judge.controls=0", "judge.timeout=0.4"))
        first = len(server.requests)
        again = ask(server, path, settings=("judge.controls=0", "judge.timeout=0.4"))
        asked_again = {one.user for one in server.requests[first:]}
    (journal,) = (found.folder.path / "judgements").glob("loopback-*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    replied = Counter(line["key"] for line in lines if not line["failure"])
    assert len(replied) == rows * 13 // 14
    assert set(replied.values()) == {1}
    assert len({line["key"] for line in lines}) == rows
    model = found.report.models[0]
    missed = found.report.unscored
    assert model.scored == rows * 8 // 14
    assert model.scored + missed.count == missed.verdicts == rows
    assert missed.reasons == {
        "a scale other than 0 to 100": 4,
        "no verdict on the last line": 4,
        "a score above 100": 4,
        "cut off at the token limit": 4,
        "several different verdicts": 4,
        "no reply: a broken connection (RemoteProtocolError)": 4,
    }
    assert model.median == 77
    assert model.headline is None
    assert len(asked_again) == rows // 14  # only what had no reply is asked once more
    assert again.report.unscored == missed
    assert found.report.costs.tries == first


def test_a_killed_run_goes_on_and_scores_each_item_once(tmp_path: Path) -> None:
    path = answers(tmp_path / "said.json", 40)
    code = "import sys; from tunesmith.cli import main; sys.exit(main(sys.argv[1:]))"
    with serving(fair, delay=0.05) as server:
        command = [
            sys.executable,
            "-c",
            code,
            "judge",
            str(path),
            "--url",
            server.url,
            "--model",
            "loopback",
            "judge.concurrency=2",
            "evaluate.bootstrap_samples=200",
        ]
        identity = ClientIdentity(api="openai", url=server.url, model="loopback", max_tokens=512)
        journal = tmp_path / "said-judged" / "judgements" / file_name("loopback", identity)
        for wanted in (8, 25):
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while (not journal.exists() or len(journal.read_text().splitlines()) < wanted) and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
        with journal.open("a") as file:
            file.write('{"key": "half a li')  # what a kill in the middle of a write leaves
        before = len(journal.read_text().splitlines()) - 1
        assert 25 <= before < 60
        subprocess.run(command, check=True, capture_output=True)
        asked = Counter(request.user for request in server.requests)
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(asked) == 60
    assert sum(asked.values()) <= 60 + 2 * 2  # what was under way when it was killed is asked again
    content = json.loads((tmp_path / "said-judged" / "judged.json").read_text())
    assert content["models"][0]["scored"] == 40
    assert content["reliability"]["trusted"] is True


def test_seeds_and_judges_are_averaged_and_their_spread_is_told(tmp_path: Path) -> None:
    def act(request: Request) -> str:
        shift = 10 if request.body["model"] == "mild" else 0
        number = int(request.block("QUESTION").split()[2])
        return f"Score: {2 * number + shift + request.body['seed']}"

    with serving(act) as server:
        found = ask(server, answers(tmp_path / "said.json"), settings=("judge.model=[strict,mild]", "judge.seeds=1,3"))
    (model,) = found.report.models
    assert found.report.unscored.verdicts == 80
    assert model.headline.value == pytest.approx(19 + 5 + 2)
    assert model.spread == pytest.approx(26**0.5)
    (pair,) = found.report.agreement
    assert (pair.a, pair.b, pair.rows) == ("strict", "mild", 20)
    assert pair.pearson.value == pytest.approx(1)
    names = {path.name.rsplit("-", 1)[0] for path in (found.folder.path / "judgements").iterdir()}
    assert names == {"strict", "mild"}


def test_judges_whose_names_look_alike_have_journals_of_their_own(tmp_path: Path) -> None:
    with serving(lambda one: f"Score: {70 if '/' in one.body['model'] else 30}") as server:
        found = ask(server, answers(tmp_path / "said.json", 4), settings=("judge.model=[a/b,a b]", "judge.controls=0"))
    journals = sorted((found.folder.path / "judgements").glob("a-b-*.jsonl"))
    scores = [{json.loads(line)["score"] for line in path.read_text().splitlines()} for path in journals]
    assert sorted(map(sorted, scores)) == [[30], [70]]
    assert found.report.models[0].headline.value == 50


TWO = {"one_response": lambda n: f"It is {2 * n}.", "two_response": lambda n: f"It is {n + 50}."}


def test_a_judge_that_looks_at_the_order_alone_gives_exactly_half(tmp_path: Path) -> None:
    with serving(lambda _: "Verdict: A") as server:
        found = ask(server, answers(tmp_path / "said.json", **TWO), judge_input=JudgeInput(pairwise=True))
    (pair,) = found.report.pairs
    assert (pair.rate.value, pair.wins, pair.losses, pair.ties, pair.p) == (0.5, 0, 0, 20, 1.0)
    position = found.report.position
    assert (position.first, position.second, position.consistent.value) == (40, 0, 0)
    assert position.p < 1e-9
    assert found.report.reliability.trusted is False
    assert "first won <b>40</b>" in found.page.read_text()


def test_a_fair_judge_of_pairs(tmp_path: Path) -> None:
    def act(request: Request) -> str:
        right = str(2 * int(request.block("QUESTION").split()[2]))
        good = [right in request.block(f"RESPONSE {name}").replace(".", "").split() for name in "AB"]
        return "Verdict: tie" if good[0] == good[1] else f"Verdict: {'A' if good[0] else 'B'}"

    with serving(act) as server:
        found = ask(server, answers(tmp_path / "said.json", **TWO), judge_input=JudgeInput(pairwise=True))
    (pair,) = found.report.pairs
    assert (pair.a, pair.wins, pair.losses, pair.distinguishable) == ("one", 20, 0, True)
    assert found.report.position.consistent.value == 1
    assert found.report.reliability.trusted is True
    assert len(server.requests) == 2 * (20 + 15)
    with pytest.raises(DataError, match="no two models"), serving(act) as server:
        ask(server, answers(tmp_path / "one.json"), judge_input=JudgeInput(pairwise=True))


def test_more_seeds_and_judges_are_not_more_pairs(tmp_path: Path) -> None:
    """One judge sees the first model ahead in every pair, the other only in half of them, else a tie."""

    def act(request: Request) -> str:
        right = str(2 * int(request.block("QUESTION").split()[2]))
        first = right in request.block("RESPONSE A").replace(".", "").split()
        unsure = request.body["model"] == "unsure" and int(right) % 4
        return "Verdict: tie" if unsure else f"Verdict: {'A' if first else 'B'}"

    settings = ("judge.model=[sure,unsure]", "judge.seeds=1,2", "judge.controls=0")
    with serving(act) as server:
        found = ask(
            server, answers(tmp_path / "said.json", **TWO), judge_input=JudgeInput(pairwise=True), settings=settings
        )
    (pair,) = found.report.pairs
    assert (pair.rows, pair.decided, pair.wins, pair.ties) == (20, 20, 20, 0)
    assert pair.p == pytest.approx(2 * 0.5**20)
    assert found.report.unscored.verdicts == 20 * 2 * 2 * 2


def test_a_verbatim_prompt_is_all_that_the_endpoint_gets(tmp_path: Path) -> None:
    (tmp_path / "rubric.j2").write_text("{{ instruction }} {{ response }} (0 to 100, only the number)\n")
    settings = (f"judge.rubric={tmp_path / 'rubric.j2'}", "judge.verbatim=true", "judge.controls=0")
    with serving(lambda _: "70") as server:
        found = ask(server, answers(tmp_path / "said.json", 2), settings=settings)
    texts = sorted(one.user for one in server.requests)
    assert texts == [f"What is {n} and {n}? It is {2 * n}. (0 to 100, only the number)" for n in range(2)]
    assert all(len(one.body["messages"]) == 1 for one in server.requests)
    assert found.report.models[0].headline.value == 70
    assert "was sent verbatim" in found.page.read_text()


def test_files_of_several_models_are_compared_on_the_same_prompts(tmp_path: Path) -> None:
    rows = json.loads(answers(tmp_path / "a.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps([row | {"response": "no"} for row in reversed(rows[5:])]))
    with serving(fair) as server:
        found = ask(server, tmp_path / "a.json", tmp_path / "b.json", output=tmp_path / "out")
    (pair,) = found.report.pairs
    assert (pair.a, pair.b, pair.rows, pair.value) == ("a", "b", 15, 80)


def test_questions_of_two_turns(tmp_path: Path) -> None:
    questions = [
        {
            "question_id": n,
            "category": "math",
            "turns": [f"What is {n} and {n}?", "Twice that?"],
            "reference": [f"{2 * n}", f"{4 * n}"],
        }
        for n in range(81, 87)
    ]
    said = [
        {"question_id": one["question_id"], "model_id": "small", "choices": [{"index": 0, "turns": ["One.", "Two."]}]}
        for one in questions
    ]
    for name, rows in (("question", questions), ("small", said)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def act(request: Request) -> str:
        second = "TURN 1 RESPONSE begins" in request.user
        assert request.block("QUESTION") == ("Twice that?" if second else request.block("QUESTION"))
        assert request.block("REFERENCE ANSWER").isdigit()
        if second:
            assert request.block("TURN 1 RESPONSE") == "One."
        return "Score: 20" if second else "Score: 60"

    with serving(act) as server:
        found = ask(
            server,
            tmp_path / "small.jsonl",
            settings=("judge.controls=0",),
            judge_input=JudgeInput(questions=str(tmp_path / "question.jsonl")),
        )
    (model,) = found.report.models
    assert (model.name, model.rows, model.headline.value) == ("small", 12, 40)
    prompts = {(row.turn, row.prompt) for rows in found.report.shown.values() for row in rows}
    assert {turn for turn, _ in prompts} == {1, 2}
    assert all(text.startswith("Turn 1: What is ") == (turn == 2) for turn, text in prompts)
    assert all(text.endswith("\n\nTurn 2: Twice that?") == (turn == 2) for turn, text in prompts)
    assert {turn: one.value for turn, one in model.turns.items()} == {1: 60, 2: 20}


@pytest.fixture
def answering(tmp_path: Path) -> Path:
    """An untuned instruction run of a tiny model."""
    model = tiny.generator("llama", tmp_path / "model")
    rows = [{"instruction": f"What is {n} and {n}?", "output": f"{2 * n}"} for n in range(30)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    recipe = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "train.json")},
        "model": {"name_or_path": str(model)},
        "prompt": {"template": "alpaca"},
        "train": {"num_train_epochs": 0},
        "generate": {"max_new_tokens": 4},
        "evaluate": {"bootstrap_samples": 100},
    }
    return tunesmith.train(recipe, run_dir="answering").path


def test_a_run_is_judged_by_its_stored_answers_and_its_report_says_so(answering: Path) -> None:
    before = (answering / "report.html").read_text()
    with serving(fair) as server:
        found = ask(server, answering)
    stored = [json.loads(line) for line in (answering / "predictions" / "test.jsonl").read_text().splitlines()]
    (model,) = found.report.models
    assert (found.folder.path, model.name, model.rows) == (answering, "generator:untuned", len(stored))
    report = (answering / "report.html").read_text()
    assert "What a judge says" in report
    assert "Can the judge be trusted?" in report
    assert "What a judge says" not in before
    content = run_report.build([found.folder, found.folder], Confidence(seed=1))  # as a comparison has it
    assert all(method.judged == found.report for method in content.methods)
    assert {one.block("RESPONSE") for one in server.requests} >= {row["response"].strip("\n") for row in stored}


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """An instruction run that keeps the answers of its base model. It is always right, the base model never."""
    recipe = {
        "task": "instruction",
        "data": {"path": str(answers(tmp_path / "train.json", 60))},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "model"))},
        "prompt": {"template": "alpaca"},
        "generate": {"max_new_tokens": 4},
        "train": {"max_steps": 2},
        "evaluate": {"bootstrap_samples": 100},
    }
    run = tunesmith.train(recipe, run_dir="tuned")
    run.write_predictions(
        "test", [replace(row, response=row.reference) for row in run.predictions("test", ResponseRow)]
    )
    run.write_predictions(
        "base", [replace(row, response="Nobody knows.") for row in run.predictions("base", ResponseRow)]
    )
    return run.path


def test_the_base_model_is_judged_beside_the_run_that_was_made_of_it(tuned: Path) -> None:
    with serving(fair) as server:
        found = ask(server, tuned)
        alone = ask(server, tuned, settings=("evaluate.base=false",), output=tuned.with_name("alone"))
    assert [(one.name, one.headline.value) for one in found.report.models] == [
        ("generator:full", 90),
        ("base", 10),
    ]
    (pair,) = found.report.pairs
    assert (pair.a, pair.b, pair.value, pair.rows) == ("generator:full", "base", 80, 12)
    assert found.report.reliability.trusted
    assert [one.name for one in alone.report.models] == ["generator:full"]


def test_the_report_says_once_what_the_judge_says(tuned: Path) -> None:
    with serving(fair) as server:
        ask(server, tuned)
    page, twin, card = ((tuned / name).read_text() for name in ("report.html", "report.md", "README.md"))
    places = [page.index(f'<section id="{name}"') for name in ("answers", "judged-1", "form")]
    assert places == sorted(places)
    assert '<a href="#judged-1">' in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    twice = answers_report.html(run_report.build([Run(tuned), Run(tuned)], Confidence(seed=1)))
    ids = re.findall(r'\bid="([^"]*)"', twice)
    assert len(ids) == len(set(ids))
    assert {"judged-1", "judged-2"} <= set(ids)
    cases = re.findall(r'<div class="asked"><h4>Prompt <code class="quiet">([^<]*)</code>', page[: places[2]])
    assert len(cases) == len(set(cases))
    assert ", shown above: generator:full 90.0 of 100, base 10.0 of 100." in page
    for text in (twin, card):
        assert "loopback gives generator:full 90.0 " in text
    assert "By a judge: loopback" in card


def test_a_card_does_not_mention_a_judge_that_cannot_be_trusted(tuned: Path) -> None:
    with serving(lambda _: "Score: 99") as server:
        found = ask(server, tuned)
    assert found.report.reliability.trusted is False
    assert "The judge cannot be trusted" in (tuned / "report.md").read_text()
    assert "By a judge" not in (tuned / "README.md").read_text()


def test_a_run_is_asked_questions_of_two_turns_once(answering: Path, tmp_path: Path) -> None:
    rows = [{"question_id": n, "turns": [f"What is {n} and {n}?", "Sure?"]} for n in range(3)]
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge_input = JudgeInput(questions=str(tmp_path / "question.jsonl"))
    stored = answering / "judgements" / "answers-answering.jsonl"
    with serving(lambda one: f"Score: {30 if 'TURN 1' in one.user else 70}") as server:
        found = ask(server, answering, judge_input=judge_input)
        made = stored.stat().st_mtime_ns
        (answering / "model" / "prompt.json").unlink()  # without which no model can be loaded
        again = ask(server, answering, judge_input=judge_input)
    said = [json.loads(line) for line in stored.read_text().splitlines()]
    assert [(one["question_id"], len(one["choices"][0]["turns"])) for one in said] == [("0", 2), ("1", 2), ("2", 2)]
    assert stored.stat().st_mtime_ns == made
    assert found.report.models == again.report.models
    assert {turn: one.value for turn, one in found.report.models[0].turns.items()} == {1: 70, 2: 30}


def test_the_key_is_nowhere_but_in_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    path = answers(tmp_path / "said.json", 6)
    words = ["judge", str(path), "--model", "loopback", "--api-key-env", "MY_KEY", "judge.controls=1"]
    with serving(lambda one: f"{one.headers['authorization']}\nScore: 50") as server:
        monkeypatch.setattr(sys, "argv", ["tunesmith", *words])
        assert cli.main([*words, "--url", server.url]) == 0
        assert {one.headers["authorization"] for one in server.requests} == {f"Bearer {KEY}"}
        straight = ["judge", str(path), "--model", "other", f"judge.api_key={KEY}", "--output", str(tmp_path / "two")]
        monkeypatch.setattr(sys, "argv", ["tunesmith", *straight])
        assert cli.main([*straight, "--url", server.url]) == 0
    with serving(lambda _: (401, {}, f"no such key: {KEY}".encode())) as server:
        assert cli.main([*straight[:4], f"judge.api_key={KEY}", "--url", server.url, "judge.seeds=9"]) == 2
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, *(one.read_text() for one in tmp_path.rglob("*") if one.is_file())):
        assert KEY not in text
        assert "very-secret" not in text
    assert "judge.api_key=***" in (tmp_path / "two" / "judged.json").read_text()


def test_an_openai_key_goes_to_openai_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(fair) as server:
        ask(server, answers(tmp_path / "said.json", 2))
        assert all("authorization" not in one.headers for one in server.requests)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        judge(tmp_path / "said.json", overrides=["judge.model=b", "evaluate.bootstrap_samples=200"])
        assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url", "http://user:pw123456@127.0.0.1/v1", "--model", "m"], "carries a password or a key"),
        (["--url", "http://127.0.0.1/v1?api-key=pw123456", "--model", "m"], "carries a password or a key"),
        (["--url", "ftp://127.0.0.1", "--model", "m"], "needs http"),
        ([], "no judge"),
        (["--model", "m", "--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["--model", "m", "judge.rubric=nothing.txt"], "cannot read nothing.txt"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["judge", str(answers(tmp_path / "said.json", 2)), *words]) == 2
    said = capfd.readouterr().err
    assert message in said
    assert "pw123456" not in said


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "said-judged" / "judgements"
    folder.mkdir(parents=True)
    with serving(fair) as server:
        identity = ClientIdentity(api="openai", url=server.url, model="loopback", max_tokens=512)
        (folder / file_name("loopback", identity)).write_text("{}\n")
        with pytest.raises(EndpointError, match=r"loopback-[0-9a-f]{6}\.jsonl:1: damaged"):
            ask(server, answers(tmp_path / "said.json", 2))


def test_nothing_to_judge() -> None:
    with pytest.raises(RecipeError, match="nothing to judge"):
        tunesmith.judge()
