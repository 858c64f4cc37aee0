"""The label part of an audit, and a review file that becomes new data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.small_runs import prices, tagged
from tunesmith import cli
from tunesmith.auditing.label_errors import LabelAudit
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import review_file

QUICK = ["linear.min_df=1", "bootstrap_samples=100"]
PLANTED = 20


def noisy(path: Path, rows: int = 300) -> tuple[Path, set[str]]:
    """Texts of three topics, PLANTED of them under the next topic; and their ids."""
    texts, topics = tiny.texts(rows), list(tiny.WORDS)
    wrong = set(np.random.default_rng(0).choice(rows, PLANTED, replace=False).tolist())
    changed = [
        (text, topics[(topics.index(label) + 1) % 3] if n in wrong else label) for n, (text, label) in enumerate(texts)
    ]
    return write_csv(path, changed), {f"{path.name}:{n + 2}" for n in wrong}


def audit(source: Any, *overrides: str, output: str = "audit", **options: Any) -> LabelAudit:
    found = tunesmith.audit(source, [*QUICK, *overrides], method="linear", output=output, **options)
    assert found.report.labels is not None
    return found.report.labels


def reviewed(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decide(rule: Callable[[dict[str, str]], str], path: Path = Path("audit/review.csv"), **changes: str) -> Path:
    """Write a decision into every line of a review file."""
    rows = [row | {"decision": rule(row)} | changes for row in reviewed(path)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_planted_errors_are_found_and_corrected(tmp_path: Path) -> None:
    source, wrong = noisy(tmp_path / "topics.csv")
    labels = audit(str(source))
    rows = reviewed(Path("audit/review.csv"))
    suspects = {row["id"] for row in rows}
    assert len(suspects & wrong) >= 0.75 * len(wrong)
    assert len(suspects & wrong) >= 0.7 * len(suspects)
    train = labels.of_split("train")
    assert train is not None
    assert train.share is not None
    assert train.share.low <= PLANTED / 300 <= train.share.high
    assert {row.split for row in labels.held_out_suspects} <= {"validation", "test"}
    for row in labels.suspects:
        assert all(near.gold != row.given for near in row.neighbours)

    decide(lambda row: "relabel" if row["id"] in wrong else "keep")
    cleaned = tunesmith.apply_review("audit/review.csv", str(source), output="cleaned.csv")
    assert cleaned.provenance.counts["relabel"] == len(suspects & wrong)
    assert {row.id for row in cleaned.provenance.rows} == suspects & wrong
    truth = dict(tiny.texts(300))
    now = reviewed(Path("cleaned.csv"))
    assert len(now) == 300
    assert sum(truth[row["text"]] != row["label"] for row in now) == len(wrong - suspects)
    assert json.loads(Path("cleaned.provenance.json").read_text())["source"] == str(source)


def test_the_same_data_gives_the_same_review_file(tmp_path: Path) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    audit(str(source), output="one")
    audit(str(source), output="two")
    assert Path("one/review.csv").read_bytes() == Path("two/review.csv").read_bytes()


def test_dropped_rows_go_and_all_others_stay_as_they_were(tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    texts, _ = noisy(tmp_path / "topics.csv")
    rows = [{"n": str(n), "body": row["text"], "topic": row["label"]} for n, row in enumerate(reviewed(texts))]
    lines = ["n;body;topic", *(f"{row['n']};{row['body']};{row['topic']}" for row in rows)]
    source.write_text("\n".join(lines), encoding="utf-8")
    audit(str(source), "data.text=body", "data.label=topic", review_jsonl=True)
    decide(lambda row: "drop" if row["split"] == "train" else "")
    dropped = {row["id"] for row in reviewed(Path("audit/review.csv")) if row["decision"]}
    cleaned = tunesmith.apply_review("audit/review.csv", output="cleaned.csv")
    assert reviewed(cleaned.path) == [row for n, row in enumerate(rows) if f"data.csv:{n + 2}" not in dropped]
    assert len(Path("audit/review.jsonl").read_text().splitlines()) == len(reviewed(Path("audit/review.csv")))


def test_a_changed_data_file_is_refused(tmp_path: Path) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    audit(str(source))
    decide(lambda row: "drop")
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([lines[0], *lines[2:], lines[1]]))  # all rows are there, but on other lines
    with pytest.raises(DataError, match="not as it was"):
        tunesmith.apply_review("audit/review.csv", output="cleaned.csv")
    source.write_text("".join(lines[:100]))
    with pytest.raises(DataError, match=r"review\.csv:\d+: there is no row topics\.csv:\d+"):
        tunesmith.apply_review("audit/review.csv", output="cleaned.csv")
    assert not Path("cleaned.csv").exists()


@pytest.mark.parametrize(
    ("decision", "label", "problem"),
    [
        ("relable", "tech", r"review\.csv:\d+: unknown decision 'relable' \(did you mean relabel\?\)"),
        ("relabel", "weather", r"review\.csv:\d+: unknown label 'weather'; the data has sport, tech, world"),
        ("relabel", "", r"review\.csv:\d+: relabel without a label"),
    ],
)
def test_unknown_decisions_and_labels_are_errors_with_their_line(
    tmp_path: Path, decision: str, label: str, problem: str
) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    audit(str(source))
    decide(lambda row: decision, new_label=label)
    with pytest.raises(DataError, match=problem):
        tunesmith.apply_review("audit/review.csv", str(source), output="cleaned.csv")


def test_a_review_file_without_its_columns_and_a_row_decided_twice_are_refused(tmp_path: Path) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    audit(str(source))
    decide(lambda row: "drop")
    text = Path("audit/review.csv").read_text()
    first = text.splitlines(keepends=True)[0]
    Path("other.csv").write_text(text.replace(first, first.replace("content", "hash")))
    with pytest.raises(DataError, match="no column content"):
        tunesmith.apply_review("other.csv", str(source), output="cleaned.csv")
    Path("twice.csv").write_text(text + text.removeprefix(first).replace("drop,", "keep,", 1))
    with pytest.raises(DataError, match="decided twice"):
        tunesmith.apply_review("twice.csv", str(source), output="cleaned.csv")
    with pytest.raises(RecipeError, match=r"\.csv or \.jsonl"):
        tunesmith.apply_review("audit/review.csv", str(source), output="cleaned.xlsx")


def test_formulas_are_marked_in_the_review_file_and_read_back(tmp_path: Path) -> None:
    texts, wrong = noisy(tmp_path / "topics.csv")
    rows = [(f"=cmd {row['text']}", f"@{row['label']}") for row in reviewed(texts)]
    source = write_csv(tmp_path / "topics.csv", rows)
    audit(str(source))
    lines = reviewed(Path("audit/review.csv"))
    assert all(line["text"].startswith("'=") and line["new_label"].startswith("'@") for line in lines)
    decide(lambda row: "relabel")
    cleaned = reviewed(tunesmith.apply_review("audit/review.csv", output="cleaned.csv").path)
    assert {row["label"] for row in cleaned} == {"@sport", "@tech", "@world"}
    assert all(row["text"].startswith("=cmd") for row in cleaned)
    changed = {n for n, (row, old) in enumerate(zip(cleaned, rows, strict=True)) if row["label"] != old[1]}
    assert len({f"topics.csv:{n + 2}" for n in changed} & wrong) >= 0.75 * len(wrong)


def test_two_files_and_labels_by_index(tmp_path: Path) -> None:
    topics = list(tiny.WORDS)
    paths = []
    for name, seed in (("train", 0), ("test", 1)):
        rows = [(text, str(topics.index(label))) for text, label in tiny.texts(150, seed=seed)]
        rows[3] = (rows[3][0], str((int(rows[3][1]) + 1) % 3))
        paths.append(f"data.{name}={write_csv(tmp_path / f'{name}.csv', rows)}")
    labels = audit(None, *paths, f"data.label_names=[{','.join(topics)}]")
    found = {row.id: row for row in (*labels.suspects, *labels.held_out_suspects)}
    assert {"train.csv:5", "test.csv:5"} <= found.keys()
    decide(lambda row: "relabel" if row["id"].endswith(":5") else "")
    cleaned = reviewed(tunesmith.apply_review("audit/review.csv", output="all.csv").path)
    assert [row["split"] for row in cleaned] == ["train"] * 150 + ["test"] * 150
    assert cleaned[3]["label"] == str(topics.index(str(found["train.csv:5"].suggested)))


def test_several_labels(tmp_path: Path) -> None:
    path = tagged(tmp_path / "tags.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    planted = [n for n in range(50, 300) if rows[n]["labels"] == ["tech"]][:10]
    for n in planted:
        rows[n]["labels"] = ["tech", "world"] if "minister" not in rows[n]["text"] else ["tech", "sport"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = audit(str(path), "task=multilabel", "data.label=labels", cleaning_gain=True)
    suspects = {row.id: row for row in (*labels.suspects, *labels.held_out_suspects)}
    places = {n for n in planted if f"tags.jsonl:{n + 1}" in suspects}
    assert len(places) >= 5
    place = min(places)
    found = suspects[f"tags.jsonl:{place + 1}"]
    assert found.suggested == ("tech",)
    assert labels.gain is None or labels.gain.metric == "macro_f1"
    decide(lambda row: "relabel" if row["id"] == found.id else "keep")
    cleaned = tunesmith.apply_review("audit/review.csv", output="tags-2.jsonl").path
    now = [json.loads(line) for line in cleaned.read_text().splitlines()]
    assert now[place]["labels"] == ["tech"]
    assert [row for n, row in enumerate(now) if n != place] == [row for n, row in enumerate(rows) if n != place]


def test_numbers(tmp_path: Path) -> None:
    path = prices(tmp_path / "prices.csv")
    rows = [(row["text"], row["label"]) for row in reviewed(path)]
    rows[7] = (rows[7][0], "99999.5")
    write_csv(path, rows)
    labels = audit(str(path), "task=regression", cleaning_gain=True)
    (first, *_) = sorted((*labels.suspects, *labels.held_out_suspects), key=lambda row: row.quality)
    assert (first.id, first.given) == ("prices.csv:9", 99999.5)
    assert labels.splits[0].share is None
    decide(lambda row: "relabel" if row["id"] == first.id else "", new_label="1000")
    cleaned = reviewed(tunesmith.apply_review("audit/review.csv", output="cleaned.csv").path)
    assert cleaned[7]["label"] == "1000"
    assert [row["label"] for row in cleaned[:7]] == [label for _, label in rows[:7]]


def test_what_cleaning_gains_is_measured_on_test_rows_as_they_are(tmp_path: Path) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    labels = audit(str(source), cleaning_gain=True)
    gain = labels.gain
    assert gain is not None
    train = labels.of_split("train")
    assert train is not None
    assert gain.removed == train.suspect
    assert gain.difference.value == pytest.approx(gain.after - gain.before)
    assert gain.helped in (None, True)


def test_votes_add_rows_and_agreement(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label, "all": [label] * 3} for text, label in tiny.texts(120)]
    other = next(label for label in tiny.WORDS if label != rows[4]["label"])
    rows[4]["all"] = [other, other, rows[4]["label"]]
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = audit(str(path), "data.votes=all")
    assert labels.votes is not None
    assert (labels.votes.rows, labels.votes.contradicted, labels.votes.disagreement) == (120, 1, 1)
    found = next(row for row in (*labels.suspects, *labels.held_out_suspects) if row.id == "votes.jsonl:5")
    assert found.suggested == other
    assert "votes" in found.reason
    assert any("another label has more votes" in finding.headline for finding in labels.findings)


@pytest.mark.parametrize("rows", [10, 12])
def test_tiny_data(tmp_path: Path, rows: int) -> None:
    source = write_csv(tmp_path / "few.csv", tiny.texts(rows, labels=("sport", "tech")))
    labels = audit(str(source), "split.test_size=0", "split.validation_size=0", cleaning_gain=True)
    assert labels.splits[0].rows == rows
    assert labels.gain is None


def test_texts_without_an_ngram_are_not_judged_and_the_audit_goes_on(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "marks.csv", [(f"{'!' * n}?", "ab"[n % 2]) for n in range(1, 40)])
    labels = audit(str(source))
    assert labels.method == ""
    assert labels.findings[0].headline.startswith("The labels were not judged")
    assert Path("audit/report.html").is_file()


def test_frames_and_pairs_of_texts() -> None:
    table = [
        {"text": text, "second": other, "label": label}
        for (text, label), (other, _) in zip(tiny.texts(90), tiny.texts(90, seed=1), strict=True)
    ]
    labels = audit(table, "data.text_pair=second")
    assert labels.splits[0].rows == 63
    assert "text_pair" in Path("audit/review.csv").read_text().splitlines()[0] or not labels.suspects
    tunesmith.apply_review("audit/review.csv", output="same.jsonl")
    assert [json.loads(line) for line in Path("same.jsonl").read_text().splitlines()] == table


def test_instructions_have_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([{"instruction": text, "output": label} for text, label in tiny.texts(30)]))
    assert tunesmith.audit(str(path), ["task=instruction"], output="audit").report.labels is None


def test_a_hash_is_of_texts_and_label() -> None:
    from tunesmith.types import Example

    one = review_file.content_of(Example("a:1", "text", label="x", group="g"))
    assert one == review_file.content_of(Example("b:2", "text", label="x"))
    assert (
        len({one, *(review_file.content_of(Example("a:1", *row)) for row in (("t", None, "x"), ("text", "", "x")))})
        == 3
    )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = noisy(tmp_path / "topics.csv")
    words = ["audit", str(source), *QUICK, "--method", "linear", "--output", "audit"]
    assert cli.main([*words, "--strict"]) in (0, 3)
    assert "of the training labels look wrong" in capsys.readouterr().out
    decide(lambda row: "drop")
    assert cli.main(["audit", "--apply", "audit/review.csv", "--output", "cleaned.csv"]) == 0
    assert "provenance: cleaned.provenance.json" in capsys.readouterr().out
    assert cli.main(["audit", "--apply", "audit/review.csv", "--output", "cleaned.csv"]) == 2
    assert cli.main(["audit", "--apply", "audit/review.csv", "--output", "cleaned.csv", "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["drop"] > 0
