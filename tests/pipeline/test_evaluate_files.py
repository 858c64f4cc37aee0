"""`tunesmith evaluate` on files of answers: whatever the columns are called, without a model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tests.sample_reports import HOSTILE, Balance
from tunesmith import cli
from tunesmith.data import response_files
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation import response_pairs
from tunesmith.evaluation.intervals import Confidence
from tunesmith.types import ResponseRow

BOOK = (
    Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data") / "llms_from_scratch_ch07"
)


def rows(number: int = 30, **columns: Any) -> list[dict[str, Any]]:
    """Rows with an instruction and an output, and more columns: what is said of the row's text."""
    return [
        {"instruction": f"Name topic {n}.", "input": text, "output": label}
        | {name: said(n, label) for name, said in columns.items()}
        for n, (text, label) in enumerate(tiny.texts(number))
    ]


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(content))
    return path


def right(n: int, label: str) -> str:
    return f"{label} ."


def often(n: int, label: str) -> str:
    return label if n % 3 else "nothing at all"


@pytest.mark.parametrize(
    ("prompt", "reference", "response"),
    [
        ("instruction", "output", "model_response"),
        ("Instruction", "Expected-Output", "Model 1 Response"),
        ("prompt", "reference", "response"),
        ("question", "ground_truth", "generated_text"),
        ("query", "gold", "Prediction"),
        ("prompt", "label", "predict"),
        ("input", "target", "completion"),
        ("question", "answer", "generated"),
        ("instruction", "output", "response"),
        ("prompt", "EXPECTED", "model answer"),
    ],
)
def test_columns_are_found_by_their_names(prompt: str, reference: str, response: str, tmp_path: Path) -> None:
    content = [{prompt: f"q{n}", reference: "yes", response: "no"} for n in range(3)]
    for name in ("a.json", "a.jsonl"):
        found = response_files.read(written(tmp_path / name, content))
        assert list(found.models) == ["Model 1" if "1" in response else "a"]
        (read,) = found.models.values()
        assert [(row.prompt, row.reference, row.response) for row in read] == [(f"q{n}", "yes", "no") for n in range(3)]


@pytest.mark.parametrize(
    ("columns", "part", "found"),
    [
        (("instruction", "output"), "no response", "'instruction', 'output'"),
        (("instruction", "response"), "no reference", "'instruction', 'response'"),
        (("output", "response"), "no instruction", "'output', 'response'"),
        (("instruction", "output", "target", "response"), "'output' and 'target' could each be", "'target'"),
        (("instruction", "output", "response", "prediction"), "'response' and 'prediction' could each", "'prediction'"),
        (("instruction", "prompt", "output", "response"), "could each be the instruction", "'prompt'"),
    ],
)
def test_missing_and_doubtful_columns_are_named(
    columns: tuple[str, ...], part: str, found: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.json", [dict.fromkeys(columns, "x y z")])
    with pytest.raises(DataError, match=re.escape(part)) as caught:
        response_files.read(path)
    assert found in str(caught.value)
    assert "--" in str(caught.value)


def test_named_columns_settle_it(tmp_path: Path) -> None:
    content = [{"instruction": "q", "output": "1", "Target": "2", "response": "3", "other words": "4"}]
    path = written(tmp_path / "a.json", content)
    found = response_files.read(path, responses=("output",), reference="target")
    assert [(row.reference, row.response) for row in found.models["a"]] == [("2", "1")]
    found = response_files.read(path, responses=("response", "other words"), reference="Target", instruction="output")
    assert list(found.models) == ["response", "other words"]
    with pytest.raises(DataError, match="no key 'nothing'"):
        response_files.read(path, reference="nothing")


def test_missing_empty_and_doubled_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = rows(20, response=right)
    content[3]["response"], content[4]["response"], content[5]["output"] = None, "  ", ""
    del content[6]["response"]
    content[7]["response"] = 42
    path = written(tmp_path / "a.json", [row | {"id": n // 2} for n, row in enumerate(content)])
    scores = tunesmith.evaluate(path)
    assert (scores.rows, scores.answered, scores.missing) == (19, 19, 2)
    assert scores.headline["empty"].value == 3 / 19
    assert scores.flaws["no response in the data"].where == ("a.json:row 4", "a.json:row 7")
    said = capsys.readouterr().err
    assert "1 x left out of a: no reference (a.json:row 6)" in said
    assert "2 x no response of a: counts as an empty answer" in said
    assert "10 x duplicate ids" in said
    with pytest.raises(DataError, match="neither a string nor a number"):
        response_files.read(written(tmp_path / "b.json", [{"instruction": "q", "output": "a", "response": ["a"]}]))
    (tmp_path / "c.jsonl").write_text('{"instruction": "q", "output": "a", "response": "b"}\nbroken\n')
    with pytest.raises(DataError, match="1 rows cannot be read"):
        response_files.read(tmp_path / "c.jsonl")


def test_two_columns_are_two_models_with_paired_tests(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", rows(60, **{"model 1 response": right, "model 2 response": often}))
    found = tunesmith.evaluate(path)
    assert list(found.models) == ["model 1", "model 2"]
    (pair,) = found.pairs
    assert pair.distinguishable
    assert found.verdict.startswith("model 1 has the highest ROUGE-L, 1.000 on 60 answers")
    one, other = found.models.values()
    difference = pair.differences["rougeL"]
    assert difference.value == one.headline["rougeL"].value - other.headline["rougeL"].value > 0.3
    assert difference.low > 0.2
    assert pair.exact_match.only_b == 40  # the first has a full stop too many
    assert pair.ended.rows == 0


def test_files_are_matched_by_prompt_and_reference_not_by_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = rows(30, response=right)
    theirs = [{"prompt": f"{r['instruction']}\n\n{r['input']}", "gold": r["output"], "generated": "no"} for r in ours]
    paths = [written(tmp_path / "a.json", [*ours, *ours[:2]]), written(tmp_path / "b.jsonl", theirs[:3:-1])]
    found = tunesmith.evaluate(*paths)
    assert list(found.models) == ["a", "b"]
    assert found.compared.rows == 26
    assert found.models["b"].headline["exact_match"].value == 0
    assert found.models["a"].headline["rougeL"].value == 1
    assert "6 x left out: a prompt of a that the others did not answer" in capsys.readouterr().err
    with pytest.raises(RunError, match="no prompt with the same reference"):
        tunesmith.evaluate(paths[0], written(tmp_path / "c.json", [row | {"output": "other"} for row in ours]))


def test_three_models_are_corrected_by_holm_and_keep_their_names_apart(tmp_path: Path) -> None:
    for name, said in (("x", right), ("y", often)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "answers.json", rows(40, response=said))
    third = written(tmp_path / "other.json", rows(40, response=often))
    paths = [tmp_path / "x" / "answers.json", tmp_path / "y" / "answers.json", third]
    found = tunesmith.evaluate(*paths)
    assert list(found.models) == ["answers: answers 1", "answers: answers 2", "other"]
    assert [pair.distinguishable for pair in found.pairs] == [True, True, False]
    for pair in found.pairs:
        assert pair.differences["rougeL"].p_holm >= pair.differences["rougeL"].p
    assert found.pairs[2].differences["chrf"].p == 1


def test_mcnemar_and_bootstrap_of_pairs_follow_from_the_rows() -> None:
    base = [ResponseRow(str(n), f"p{n}", reference="yes") for n in range(40)]
    a = [replace(row, response="yes" if n < 30 else "no") for n, row in enumerate(base)]
    b = [replace(row, response="yes" if 20 <= n < 32 else "no") for n, row in enumerate(base)]
    compared, (pair,) = response_pairs.compare({"a": a, "b": b}, Confidence(resamples=400, seed=1))
    assert (compared.decided_by, compared.unit, pair.answered) == ("rougeL", None, 40)
    assert (pair.exact_match.rows, pair.exact_match.only_a, pair.exact_match.only_b) == (40, 20, 2)
    assert pair.exact_match.p == pytest.approx(0.00012112, rel=1e-3)
    assert pair.differences["token_f1"].value == pytest.approx(18 / 40)
    assert (compared, [pair]) == response_pairs.compare({"a": a, "b": b}, Confidence(resamples=400, seed=1))


def test_the_page_is_whole_self_contained_and_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"model 1 response": lambda n, label: f"{HOSTILE} {label}", "model 2 response": often}
    path = written(tmp_path / "a.json", rows(30, **said))
    tunesmith.evaluate(path, report=tmp_path / "page.html")
    page, twin = (tmp_path / "page.html").read_text(), (tmp_path / "page.md").read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert [link for link in parser.fetched if not link.startswith("#")] == []
    assert not re.search(r"<script|url\(|@import|<img", page)
    assert len(re.findall(r'\bid="', page)) == len(set(re.findall(r'\bid="([^"]*)"', page)))
    for part in ("Which differences are real?", "Answers side by side", "Length and form", "ROUGE-L", "McNemar"):
        assert part in page
    for table in [block.splitlines() for block in twin.split("\n\n") if block.startswith("|")]:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    tunesmith.evaluate(written(tmp_path / "one.json", rows(9, response=right)), report=tmp_path / "one.html")
    assert "Scores of responses" in (tmp_path / "one.html").read_text()
    with pytest.raises(RecipeError, match="cannot write"):
        tunesmith.evaluate(path, report=tmp_path / "page.txt")


def test_on_the_command_line_without_torch(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", rows(20, **{"model 1 response": right, "model 2 response": often}))
    code = "import sys; from tunesmith import cli; cli.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "evaluate", str(path), "--report", str(tmp_path / "page.html")]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ROUGE-L +1\.000 \[1\.000, 1\.000\]", done.stdout)
    assert "model 1 − model 2" in done.stdout
    assert (tmp_path / "page.html").exists()


def test_json_and_errors_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.json", rows(20, response=right))
    assert cli.main(["evaluate", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["rougeL"]["value"] == 1
    for words in (["nowhere.json"], [str(path), "--data", "x.csv"], [str(path), "--response", "none"], [str(tmp_path)]):
        assert cli.main(["evaluate", *words]) == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not BOOK.exists(), reason="needs the book's files")
def test_the_books_two_models() -> None:
    """Figures counted apart from this package: exact matches by a loop, ROUGE and BLEU by the libraries."""
    found = tunesmith.evaluate(BOOK / "eval-example-data.json")
    given = json.loads((BOOK / "eval-example-data.json").read_text())
    for name, scores in found.models.items():
        exact = sum(
            " ".join(r[f"{name} response"].lower().split()) == " ".join(r["output"].lower().split()) for r in given
        )
        assert scores.headline["exact_match"].value == exact / 100
        leaks = sum("###" in row[f"{name} response"] for row in given)
        assert scores.flaws["template text"].count == leaks
