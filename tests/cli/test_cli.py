"""The command line end to end, as its user meets it."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.conftest import write_csv
from tunesmith import cli, runs
from tunesmith.cli import shared
from tunesmith.errors import RunError
from tunesmith.models import onednn_linear

FAST = ["evaluate.bootstrap_samples=100"]


def tunesmith(*words: object, ok: bool = True) -> None:
    assert cli.main([str(word) for word in words]) == (0 if ok else 2)


@pytest.fixture
def run(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A finished linear run."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"method": "linear", "data": {"path": str(reviews)}}))
    tunesmith("train", recipe, *FAST, "--run-dir", tmp_path / "run")
    assert "accuracy" in capsys.readouterr().out
    return tmp_path / "run"


def test_a_run_holds_exactly_these_files(run: Path) -> None:
    found = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert found == [
        "README.md",
        "manifest.json",
        "model/hashes.json",
        "model/linear.json",
        "model/linear.safetensors",
        "predictions/test.jsonl",
        "predictions/validation.jsonl",
        "recipe.yaml",
        "report.html",
        "report.md",
        "sample_predictions.json",
        "scores.json",
        "worst.json",
    ]
    manifest = runs.find(run).finished
    assert manifest.data.splits["test"].rows == 48
    assert manifest.costs.train_seconds > 0
    assert manifest.costs.peak_memory_mb > 10
    assert manifest.environment.packages["numpy"]


def test_dry_run_prints_the_resolved_recipe_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("method: probe\nlr: 1e-3\n")
    tunesmith("train", "r.yaml", "seed=7", "--dry-run")
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["method"], shown["seed"], shown["train"]["learning_rate"]) == ("probe", 7, 1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.usefixtures("trained_here")
def test_errors_of_the_system_are_no_tracebacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name of 300 bytes, which no file may have; --debug shows where."""
    words = ["predict", str(tmp_path / ("x" * 300)), "--text", "hello"]
    assert cli.main(words) == 2
    assert re.search(
        r"error: cannot use .*x{300}.*\n  found: File name too long\n  do: .*255 bytes", capsys.readouterr().err
    )
    with pytest.raises(OSError, match="File name too long"):
        cli.main([*words, "--debug"])


@pytest.mark.parametrize(
    ("option", "hint"), [("--text", "--text-column or --text-pair-column"), ("--dri-run", "--dry-run"), ("--zzz", "")]
)
def test_options_are_written_out(option: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "r.yaml", option])
    expected = f"unrecognized arguments: {option}" + (f"; did you mean {hint}?" if hint else "")
    assert capsys.readouterr().err.strip().endswith(expected)


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "\n    compare " in capsys.readouterr().out


def test_settings_may_stand_before_and_behind_options(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text("method: probe\n")
    for words in (
        ["--dry-run", "r.yaml", "lr=2e-3"],
        ["r.yaml", "lr=2e-3", "--dry-run"],
        ["r.yaml", "--dry-run", "lr=2e-3"],
    ):
        tunesmith("train", *words)
        assert yaml.safe_load(capsys.readouterr().out)["train"]["learning_rate"] == 2e-3
    tunesmith("compare", reviews, "--methods", "linear", "max_samples=30", *FAST)
    assert "30 test rows" in capsys.readouterr().out
    for words in (["train", "r.yaml", "--dri-run"], ["runs", "list", "a", "b"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)


def test_predict_texts_and_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    tunesmith("predict", run, "--text", "the goal of the team", "--text", "a robot with data", "--top-k", 2)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["sport", "tech"]
    assert all(len(row["scores"]) == 2 and row["score"] == max(row["scores"].values()) for row in rows)
    tunesmith("predict", run, "--text", "x", "--output", "out.txt", ok=False)
    tunesmith("predict", run, "--text", "x", "--top-k", 4, ok=False)
    tunesmith("predict", run, "--text", " ", ok=False)
    tunesmith("predict", run, ok=False)
    tunesmith("predict", run, "--text", "x", "--text-pair", "y", ok=False)


ORDERS = 'Message,id,date,tags\nthe goal of the team,17,2026-01-02,"a, b"\n,23,2026-01-03,c\na robot,42,2026-01-04,\n'


def test_predict_keeps_the_columns_and_ids_of_new_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "orders.csv"
    source.write_text(ORDERS)
    columns = ["--data", source, "--text-column", "Message"]
    tunesmith("predict", run, *columns, "--output", "out.csv", ok=False)
    assert "on_bad_rows=drop" in capsys.readouterr().err
    tunesmith("predict", run, *columns, "data.on_bad_rows=drop", "--top-k", 2, "--output", "out.csv")
    assert "1 x dropped: empty text (orders.csv:3)" in capsys.readouterr().err
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = [row for row in csv.DictReader(ORDERS.splitlines()) if row["Message"]]
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    assert list(rows[0])[:6] == [*given[0], "predicted_label", "probability"]
    assert [row["predicted_label"] for row in rows] == [row["label_1"] for row in rows] == ["sport", "tech"]
    assert all(row["probability"] == row["probability_1"] > row["probability_2"] for row in rows)
    tunesmith("predict", run, "--data", source, "text=Message", "on_bad_rows=drop", "--output", "out.jsonl")
    assert json.loads(Path("out.jsonl").read_text().splitlines()[1])["id"] == "42"
    tunesmith("predict", run, "--data", "out.csv", "data.text=Message", ok=False)
    assert "found: predicted_label, probability\n" in capsys.readouterr().err
    no_ids = write_csv(tmp_path / "new.csv", [("the goal", "x"), ("a vote", "y")])
    capsys.readouterr()
    tunesmith("predict", run, "--data", no_ids)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["label"]) for row in shown] == [("new.csv:2", "x"), ("new.csv:3", "y")]


def test_predict_overwrites_nothing_unasked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "mine.csv", [("the goal", "sport")])
    before = source.read_bytes()
    (tmp_path / "link.csv").symlink_to(source)
    for output in ("mine.csv", "link.csv"):
        tunesmith("predict", run, "--data", source, "--output", output, "--overwrite", ok=False)
        assert "it is the input" in capsys.readouterr().err
    assert source.read_bytes() == before
    tunesmith("predict", run, "--data", source, "--output", "out.csv")
    first = Path("out.csv").read_bytes()
    tunesmith("predict", run, "--text", "a robot", "--output", "out.csv", ok=False)
    assert "--overwrite" in capsys.readouterr().err
    assert Path("out.csv").read_bytes() == first
    tunesmith("predict", run, "--text", "a robot", "--output", "out.csv", "--overwrite")
    assert Path("out.csv").read_bytes() != first


def test_data_settings_of_a_finished_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("the goal of the team", "sport"), ("a vote", "world"), ("a robot", "tech")]
    source = write_csv(tmp_path / "odd.csv", rows, ("Message Body", "Topic"))
    names = ["data.text=Message Body", "--label-column", "Topic"]
    capsys.readouterr()
    tunesmith("evaluate", run, "--data", source, *names, "--json")
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    tunesmith("pseudo-label", run, "--data", source, *names, "--threshold", 0, "--output", "labels.jsonl")
    assert [json.loads(line)["text"] for line in Path("labels.jsonl").read_text().splitlines()] == [r[0] for r in rows]
    tunesmith("evaluate", run, "--data", source, "train.learning_rate=1", ok=False)
    assert "train.learning_rate: this command does not use it" in capsys.readouterr().err
    tunesmith("evaluate", run, *names, ok=False)


def test_the_columns_of_compare_had_other_names(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.csv").write_text(reviews.read_text().replace("text,label", "body,topic", 1))
    tunesmith("compare", "odd.csv", "--text", "body", "--label-column", "topic", "--methods", "linear", *FAST)
    assert "--text is now --text-column" in capsys.readouterr().err


def test_evaluate_again_and_on_new_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "scores.json").read_bytes()
    (run / "model").rename(run / "gone")  # stored predictions are enough
    tunesmith("evaluate", run)
    assert (run / "scores.json").read_bytes() == before
    (run / "gone").rename(run / "model")
    source = write_csv(tmp_path / "test.csv", tiny.texts(30, seed=9))
    capsys.readouterr()
    tunesmith("evaluate", run, "--data", source, "--json")
    assert json.loads(capsys.readouterr().out)["rows"] == 30
    assert (run / "scores-new-test.json").exists()
    assert (run / "scores.json").read_bytes() == before
    tunesmith("evaluate", run, "--data", write_csv(tmp_path / "odd.csv", [("goal", "music")]), ok=False)
    assert "labels that the run does not know: music" in capsys.readouterr().err


def test_check_shows_labels_lengths_and_changes(
    reviews: Path, tiny_models: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with reviews.open("a") as file:
        file.write("\n,sport\n")
    recipe = Path("r.yaml")
    recipe.write_text(
        yaml.safe_dump({"data": {"path": str(reviews)}, "model": {"name_or_path": str(tiny_models("bert"))}})
    )
    tunesmith("check", recipe, ok=False)
    assert "reviews.csv:" in capsys.readouterr().err
    tunesmith("check", recipe, "on_bad_rows=drop", "max_length=8")
    shown = capsys.readouterr().out
    for part in ("empty text", "train ", "(made here)", "sport", "rows are over model.max_length=8"):
        assert part in shown


def test_init_runs_as_it_is(capsys: pytest.CaptureFixture[str], reviews: Path) -> None:
    tunesmith("init", "classification")
    Path("recipe.yaml").write_text(capsys.readouterr().out)
    tunesmith("train", "recipe.yaml", f"data.path={reviews}", "method=linear", *FAST)
    assert len(runs.listing("runs")) == 1


def test_compare_trains_in_processes_of_their_own(
    reviews: Path, tiny_models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"model.name_or_path={tiny_models('bert')}"
    columns = ["--text-column", "text", "--label-column", "label"]
    tunesmith("compare", reviews, model, "max_steps=3", *FAST, *columns)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("linear", "probe", "encoder", "report.html", "test rows"))
    found = runs.listing("runs")
    assert [run.path.name for run in found] == ["encoder", "linear", "probe"]
    folder = found[0].path.parent
    content = json.loads((folder / "comparison.json").read_text())
    assert len(content["pairs"]) == 3
    assert {run.manifest.data.fingerprint for run in found} == {content["data"]["fingerprint"]}
    memory = {method["name"]: method["costs"]["peak_memory_mb"] for method in content["methods"]}
    assert memory["linear"] < 0.7 * memory["encoder"]
    # the same runs again, now as finished runs: the same figures
    tunesmith("compare", *(run.path for run in found))
    again = json.loads(max(Path("runs").glob("*/comparison.json"), key=lambda path: path.stat().st_mtime).read_text())
    assert [m["scores"] for m in again["methods"]] == [r.read("scores.json") for r in found]


def test_runs_on_different_splits_are_not_compared(
    run: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tunesmith("train", tmp_path / "recipe.yaml", "seed=43", *FAST, "--run-dir", tmp_path / "other")
    tunesmith("compare", run, tmp_path / "other", ok=False)
    assert "not made on the same split" in capsys.readouterr().err


def test_runs_list_and_show(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    tunesmith("runs", "list", run.parent)
    assert "reviews.csv" in capsys.readouterr().out
    tunesmith("runs", "show", run)
    assert "macro_f1" in capsys.readouterr().out
    tunesmith("runs", "show", run.parent, ok=False)


def test_runs_of_the_default_folder_are_listed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "runs").mkdir()
    run.rename(run.parent / "runs" / "first")
    monkeypatch.chdir(run.parent)
    tunesmith("runs")
    assert capsys.readouterr().out.startswith("runs/first ")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "nowhere.yaml"], "no such recipe"),
        (["compare", "nowhere.csv"], "nowhere.csv"),
        (["predict", "nowhere", "--text", "x"], "not a run directory"),
        (["train", "r.yaml", "method=guess"], "method"),
        (["train", "r.yaml", "data.text=review"], "data.text"),
        (["compare", "reviews.csv", "--methods", "linear,linear"], "different methods"),
        (["compare", "reviews.csv", "--methods", "guess"], "method"),
        (["train", "r.yaml", "model.name_or_path=./nothing", "method=probe"], "cannot load ./nothing"),
        (["train", "r.yaml", "report_to=mlflow", "method=encoder"], "mlflow"),
    ],
)
def test_errors_are_a_few_lines_and_exit_code_2(
    words: list[str], part: str, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text("method: linear\ndata: {path: reviews.csv}\n")
    tunesmith(*words, ok=False)
    shown = capsys.readouterr().err
    assert part in shown
    assert "Traceback" not in shown


def test_predicting_with_a_linear_run_imports_no_torch(run: Path) -> None:
    heavy = "sys.exit(bool({'torch', 'sklearn'} & {*sys.modules}))"
    code = f"import sys; from tunesmith import cli; cli.main(sys.argv[1:]); {heavy}"
    done = subprocess.run([sys.executable, "-c", code, "predict", str(run), "--text", "a goal"], check=False)
    assert done.returncode == 0


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    onednn_linear.measured.cache_clear()  # as in a process of its own
    sources = []
    for options in ([], [], ["--remeasure"]):
        tunesmith("doctor", "--json", *options)
        found = json.loads(capsys.readouterr().out)
        sources.append(found["measured"]["number_formats"])
    assert sources == ["measured", "cache", "measured"]
    assert found["measured"]["cache"] == str(tmp_path / "cache" / "measured")
    assert found["matmul_backend"]["backend"] in ("onednn", "mkl")
    assert found["number_formats"]["float32_ms"] > 0
    assert found["extras"]["tokenizers"] == "installed"


def test_a_data_source_is_one_in_every_command(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tunesmith("check", "reviews.csv", "method=linear")
    assert "sport" in capsys.readouterr().out
    tunesmith("train", "reviews.csv", "method=linear", *FAST, "--run-dir", "run")
    assert "accuracy" in capsys.readouterr().out
    tunesmith("sweep", "reviews.csv", "method=linear", "C=1,10", *FAST, "--sweep-dir", "sweep")
    lines = reviews.read_text().splitlines(keepends=True)
    Path("a.csv").write_text("".join(lines[:150]))
    Path("b.csv").write_text(lines[0] + "".join(lines[150:]))
    split = ["data.train=a.csv", "data.test=b.csv"]
    capsys.readouterr()
    tunesmith("compare", *split, "--methods", "linear", *FAST)
    assert f"{len(lines) - 150} test rows" in capsys.readouterr().out
    tunesmith("check", *split, "method=linear")
    assert f"{len(lines) - 150:>8} rows" in capsys.readouterr().out
    tunesmith("train", *split, "method=linear", "--dry-run")
    assert yaml.safe_load(capsys.readouterr().out)["data"]["test"] == str(Path("b.csv").absolute())
    tunesmith("train", "a.csv", "b.csv", ok=False)
    assert "several sources" in capsys.readouterr().err


def test_json_has_no_infinite_numbers() -> None:
    with pytest.raises(RunError, match=r"cannot print this as JSON[\s\S]*not finite"):
        shared.show_json({"accuracy": math.nan})
