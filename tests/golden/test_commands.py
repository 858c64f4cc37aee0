"""The commands around training: `check`, `predict`, `evaluate`, `compare`, `sweep`, `judge`, `pseudo-label`, ..."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.endpoint_server import MARK, Request, serving
from tests.golden.cases import BYTES, CASES, made
from tests.golden.record import Record
from tests.golden.workspace import DATA, Said, Workspace, tunesmith
from tunesmith.runs import MANIFEST, Run

Golden = Callable[[str], Record]


def say(record: Record, *words: str) -> None:
    """Give a command and record what it says."""
    record.add(f"tunesmith {' '.join(words)}", str(tunesmith(*words)))


def found(said: Said) -> Path:
    """The folder of the page that a command names last."""
    return Path(said.out.strip().rpartition("report: ")[2]).parent


CHECKS = {
    "classification": [
        ["classification.yaml"],
        ["classification.yaml", "method=generator", "prompt.instruction='Which of {labels}?'", "template=plain"],
        ["classification.yaml", *CASES["encoder_pairs"][1:6], "max_length=20"],
        ["classification.yaml", "data.path=dirty.csv", "on_bad_rows=drop", "max_samples=20"],
    ],
    "instruction": [
        ["instruction.yaml", *BYTES],
        ["instruction.yaml", *BYTES, "template=alpaca-short", "max_length=180", "prompt.system=Be brief."],
        ["instruction.yaml", *BYTES, "template=plain", "train_on_prompt=true"],
        ["instruction.yaml", *BYTES, "data.path=messages.json", "template=human-assistant"],
        ["instruction.yaml", *BYTES, "data.path=sharegpt.json", "template=alpaca"],
        ["instruction.yaml", *BYTES, "data.path=completions.json", "max_length=120", "truncation=drop"],
        ["instruction.yaml", *BYTES, "data.path=human.json", "template=human-assistant"],
    ],
}


@pytest.mark.parametrize("task", CHECKS)
def test_check(task: str, workspace: Workspace, golden: Golden) -> None:
    record = golden(f"check_{task}")
    for words in CHECKS[task]:
        say(record, "check", *words)
    say(record, "check", *CHECKS[task][0], "--json")
    record.check()


def test_recipes_and_errors(workspace: Workspace, golden: Golden) -> None:
    record = golden("recipes_and_errors")
    say(record, "train", "classification.yaml", "adapter.kind=lora", "--dry-run")
    for words in (
        ["train", "nowhere.yaml"],
        ["train", "classification.yaml", "learning_rat=1"],
        ["train", "classification.yaml", "data.path=dirty.csv"],
        ["train", "classification.yaml", "data.text=words"],
        ["train", "instruction.yaml", "method=encoder"],
        ["train", "instruction.yaml", "template=chat", "--run-dir", "runs/refused"],
        ["evaluate", "nowhere"],
        ["predict", "nowhere", "--text", "the goal"],
    ):
        say(record, *words)
    record.check()


def test_predict(workspace: Workspace, golden: Golden) -> None:
    record = golden("predict")
    linear, encoder, pairs, generator, talk = made(
        workspace, "linear", "encoder", "encoder_pairs", "generator_full", "instruction_lora"
    )
    for run in (linear, encoder, generator):
        say(record, "predict", run, "--text", "the goal of the team", "--text", "a robot", "--top-k", "3")
    say(record, "predict", pairs, "--text", "the goal", "--text-pair", "a match")
    say(record, "predict", pairs, "--text", "the goal")
    say(record, "predict", linear, "--data", "new.csv", "--top-k", "2")
    say(record, "predict", linear, "--data", "new.csv", "--output", "labels.csv")
    say(record, "predict", talk, "--text", "Name the topic.")
    say(record, "predict", talk, "--data", "few.json")
    record.files(Path(), "labels.csv")
    record.files(Path(talk), "generated_predictions.jsonl")
    record.check()


def test_looking_and_talking(workspace: Workspace, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    record = golden("runs_and_chat")
    linear, talk = made(workspace, "linear", "instruction_full")
    say(record, "runs", "show", linear)
    say(record, "runs", "show", talk)
    say(record, "runs", "list", "nowhere")
    monkeypatch.setattr("sys.stdin", io.StringIO("Name the topic.\n/reset\nName the topic.\n/exit\n"))
    say(record, "chat", talk, "--system", "Be brief.", "generate.max_new_tokens=4")
    record.check()


def test_evaluate(workspace: Workspace, golden: Golden) -> None:
    record = golden("evaluate")
    linear, talk = made(workspace, "linear", "instruction_full")
    say(record, "evaluate", linear)
    say(record, "evaluate", linear, "--data", "new.csv")
    say(record, "evaluate", talk)
    say(record, "evaluate", "answers.json", "--report", "answers.html")
    say(record, "evaluate", "answers.json", "--response", "often_response", "--json")
    record.files(Path(), "answers.md", "answers.html")
    record.check()


def test_evaluate_real_answers(golden: Golden) -> None:
    file = DATA / "llms_from_scratch_ch07" / "instruction-data-with-response.json"
    if not file.exists():
        pytest.skip("the shared data sets are not here")
    Path("book.json").write_bytes(file.read_bytes())
    record = golden("evaluate_real_answers")
    say(record, "evaluate", "book.json")
    record.check()


def at_cost(run: str, seconds: int) -> str:
    """A copy of a run that took so long to train and to predict: verdicts weigh costs."""
    copy = shutil.copytree(run, Path("compared") / Path(run).name)
    manifest = Run(copy).read(MANIFEST)
    given = {"train_seconds": seconds, "seconds_per_1000": seconds / 10}
    manifest["costs"] |= {name: value for name, value in given.items() if manifest["costs"][name]}
    Run(copy).write(MANIFEST, manifest)
    return str(copy)


COMPARED = {
    "classification": ("linear", "probe", "encoder", "generator_untuned", "generator_lora"),
    "instruction": ("instruction_untuned", "instruction_full", "instruction_lora"),
}


@pytest.mark.parametrize("task", COMPARED)
def test_compare(task: str, workspace: Workspace, golden: Golden) -> None:
    record = golden(f"compare_{task}")
    names = COMPARED[task]
    runs = [at_cost(run, 10 * number) for number, run in enumerate(made(workspace, *names), 1)]
    said = tunesmith("compare", *runs)
    record.add(f"tunesmith compare {' '.join(names)}", str(said))
    content = json.loads((found(said) / "comparison.json").read_text())
    for method in content["methods"]:
        for name in ("scores", "recipe", "worst"):  # those are recorded where the run is trained
            method.pop(name, None)
    record.json("comparison.json", content)
    record.files(found(said), "report.md", "report.html")
    record.check()


@pytest.mark.usefixtures("trained_here")
def test_compare_methods(workspace: Workspace, golden: Golden) -> None:
    """Trained for the comparison, on one split."""
    record = golden("compare_methods")
    said = tunesmith(
        "compare",
        "reviews.csv",
        "--methods",
        "linear,probe",
        "model.name_or_path=bert",
        "bootstrap_samples=100",
        "output_dir=methods",
    )
    record.add("tunesmith compare reviews.csv --methods linear,probe", str(said))
    record.files(found(said), "report.md")
    record.check()


@pytest.mark.usefixtures("trained_here")
def test_sweep(golden: Golden) -> None:
    record = golden("sweep")
    words = ["classification.yaml", "method=linear", "linear.min_df=1,30", "linear.C=5", "--sweep-dir", "sweep"]
    say(record, "sweep", *words)
    record.files(Path("sweep"), "sweep.json", "report.html")
    record.check()


@pytest.mark.usefixtures("trained_here")
def test_seeds(golden: Golden) -> None:
    record = golden("seeds")
    words = ["classification.yaml", "max_steps=2", "split.seed=1", "--seeds", "1,2", "--run-dir", "seeds"]
    say(record, "train", *words)
    record.files(Path("seeds"), "seeds.json")
    record.check()


def test_pseudo_label(workspace: Workspace, golden: Golden) -> None:
    record = golden("pseudo_label")
    linear, probe, talk = made(workspace, "linear", "probe", "instruction_full")
    say(record, "pseudo-label", linear, "--data", "new.csv", "--threshold", "0.5", "--output", "alone.jsonl")
    say(record, "pseudo-label", linear, probe, "--data", "new.csv", "--output", "votes.jsonl")
    say(
        record,
        "pseudo-label",
        talk,
        "--data",
        "few.json",
        "--samples",
        "3",
        "--threshold",
        "0.6",
        "--output",
        "sampled.jsonl",
    )
    for name in ("alone", "votes", "sampled"):
        record.files(Path(), f"{name}.jsonl", f"{name}-left-out.jsonl")
    record.files(Path(), "sampled.html")
    record.check()


def fair(request: Request) -> str:
    """A judge that can add."""
    right = str(2 * int(request.block("QUESTION").split()[2]))
    return "Score: 90" if right in request.block("RESPONSE").replace(".", "").split() else "Score: 10"


def longer(request: Request) -> str:
    """A judge that prefers the longer response."""
    first, second = (len(request.block(f"RESPONSE {letter}")) for letter in "AB")
    return f"Verdict: {'tie' if first == second else 'A' if first > second else 'B'}"


@pytest.mark.parametrize(("kind", "act"), [("scores", fair), ("pairwise", longer)])
def test_judge(kind: str, act: Callable[[Request], str], golden: Golden) -> None:
    record = golden(f"judge_{kind}")
    words = ["judge", "answers.json", "--model", "loopback", "judge.concurrency=1", "bootstrap_samples=100"]
    words += ["--output", f"judged_{kind}", *(["--pairwise"] if kind == "pairwise" else [])]
    with serving(act) as server:
        said = tunesmith(*words, "--url", server.url)
    record.add(f"tunesmith {' '.join(words)}", str(said))
    first = min(server.requests, key=lambda one: MARK.sub("", one.user))  # they are asked in any order
    record.json("a request", first.body)
    folder = Path(f"judged_{kind}")
    record.add("files", "\n".join(sorted(path.name for path in folder.iterdir())))
    record.files(folder, "judged.json", "judge.html")
    record.check()


def test_scores_of_judges(golden: Golden) -> None:
    folder = DATA / "llms_from_scratch_ch07" / "scores"
    if not folder.exists():
        pytest.skip("the shared data sets are not here")
    for path in folder.glob("*model-1*"):
        Path(path.name).write_bytes(path.read_bytes())
    record = golden("judge_read_scores")
    say(record, "judge", "--scores", *sorted(path.name for path in folder.glob("*model-1*")))
    record.check()
