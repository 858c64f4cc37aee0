"""Run directories: never overwritten, never half written, found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests import tiny
from tunesmith import manifest as manifests, runs
from tunesmith.errors import FileError, RunError
from tunesmith.manifest import LogEntry, Status
from tunesmith.processes import ProcessIdentity
from tunesmith.types import PredictionRow


def test_create_never_reuses_a_folder(tmp_path: Path) -> None:
    made = [runs.create(tmp_path / "runs", "linear", "a b/../c") for _ in range(5)]
    assert len({run.path for run in made}) == 5
    assert all(run.path.parent == tmp_path / "runs" for run in made)


def test_output_dir_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(FileError, match=r"cannot make the folder .*/runs\n  found: .*/runs is a file"):
        runs.create(tmp_path / "runs", "x")


def test_predictions_come_back_bit_for_bit(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    rows = [PredictionRow("a:1", "né", (1 / 3, 2 / 3), "né"), PredictionRow("b", "x", (0.1 + 0.2, 1e-300), "y")]
    run.write_predictions("test", rows)
    assert run.predictions("test", PredictionRow) == rows
    with pytest.raises(RunError, match="no predictions for the validation"):
        run.predictions("validation", PredictionRow)


def test_predictions_of_thousands_of_labels_are_written_and_read_row_by_row(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    rows = [PredictionRow(str(n), "x", [1 / 3000] * 3000, "x") for n in range(50)]
    tracemalloc.start()
    run.write_predictions("test", rows)
    assert tracemalloc.get_traced_memory()[1] < 1e6  # the file has 3 MB
    rows = run.predictions("test", PredictionRow)
    assert tracemalloc.get_traced_memory()[0] < 2e6  # 8 bytes for each of 150,000 probabilities
    tracemalloc.stop()


def test_write_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.use(tmp_path / "run")
    run.write("scores.json", {"a": 1})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(FileError, match=r"cannot write .*scores.json\n  found: disk full"):
        run.write("scores.json", {"a": 2})
    assert run.read("scores.json") == {"a": 1}
    assert [path.name for path in run.path.iterdir()] == ["scores.json"]


def test_parallel_writers_leave_one_whole_file(tmp_path: Path) -> None:
    """Six writers of files of different length, each in pieces: what is there in the end is one of them."""
    contents = [[bytes([number]) * 10_000] * (number + 1) for number in range(6)]
    start = threading.Barrier(len(contents))

    def write(pieces: list[bytes]) -> None:
        for _ in range(10):
            start.wait()
            runs.write_whole(tmp_path / "out.csv", pieces)

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "out.csv").read_bytes() in [b"".join(pieces) for pieces in contents]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_metrics_survive_a_cut_last_line_but_not_damage_inside(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    run.log(LogEntry(1, loss=0.5))
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [LogEntry(1, loss=0.5)]
    (run.path / "metrics.jsonl").write_text('{"step"\n{"step": 2}\n')
    with pytest.raises(RunError, match="damaged"):
        run.metrics()


def test_find_and_listing(tmp_path: Path) -> None:
    for place in ("runs/one", "runs/compare/linear"):
        runs.use(tmp_path / place).save_manifest(tiny.manifest(name="linear"))
    assert [str(run.path.relative_to(tmp_path)) for run in runs.listing(tmp_path / "runs")] == [
        "runs/compare/linear",
        "runs/one",
    ]
    assert runs.find(tmp_path / "runs/one").manifest == tiny.manifest(name="linear")
    with pytest.raises(RunError, match=r"runs inside it: .*linear"):
        runs.find(tmp_path / "runs/compare")
    with pytest.raises(RunError, match="found: nothing"):
        runs.find(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not empty"):
        runs.use(tmp_path / "runs/one")
    assert runs.listing(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot list .*/file\n  found: .*/file is a file"):
        runs.listing(tmp_path / "file")


def test_a_folder_inside_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("one", "closed/linear"):
        runs.use(tmp_path / place).save_manifest(tiny.manifest(name="linear"))
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "closed")
    runs.listing(tmp_path)
    assert capsys.readouterr().err.splitlines() == [f"warning: {tmp_path / 'closed'} cannot be read, and is left out"]


def test_what_a_killed_writer_left_does_not_occupy_a_folder(tmp_path: Path) -> None:
    """A training that is killed before its recipe is written can be given again, and its scratch file goes."""
    code = """if 1:
        import os, signal
        from tunesmith import runs
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        runs.use("run").write("recipe.yaml", "seed: 1")
    """
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == -9
    (left,) = (tmp_path / "run").iterdir()
    assert left.name.startswith(".recipe.yaml.")
    runs.use(tmp_path / "run").write("recipe.yaml", "seed: 2")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    run.save_manifest(tiny.manifest())
    (run.path / "manifest.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(RunError, match=r"is damaged: manifest\.json is not JSON"):
        _ = run.manifest


def test_a_manifest_with_a_missing_key_or_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    run.save_manifest(tiny.manifest())
    content = run.read("manifest.json")
    run.write("manifest.json", {key: value for key, value in content.items() if key != "seed"})
    with pytest.raises(RunError, match=r"manifest.json is damaged\n  expected: a readable seed"):
        _ = run.manifest
    run.write("manifest.json", content | {"format": manifests.FORMAT + 1, "tunesmith": "9.0"})
    with pytest.raises(RunError, match=r"written by a newer tunesmith \(9.0\)"):
        _ = run.manifest


def test_decisions_survive_a_new_manifest(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    assert run.decision("step_size") is None
    run.record_decision("step_size", 8)
    run.save_manifest(tiny.manifest())
    assert (run.decision("step_size"), run.manifest) == (8, tiny.manifest())
    with pytest.raises(RunError, match="has not finished"):
        _ = run.finished


CHILD = """
import json, sys
from tunesmith import records
from tunesmith.processes import ProcessIdentity
print(json.dumps(records.dump(ProcessIdentity.current())), flush=True)
sys.stdin.read()
"""


def test_a_run_whose_process_was_killed_counts_as_interrupted(tmp_path: Path) -> None:
    run = runs.use(tmp_path / "run")
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        process = ProcessIdentity(**json.loads(child.stdout.readline()))
        run.save_manifest(tiny.manifest(process=process))
        assert run.manifest.state() == ("running", "")
        run.save_manifest(tiny.manifest(process=replace(process, started=process.started - 60)))
        assert run.manifest.state()[0] == "interrupted"  # an earlier process of the same number
        run.save_manifest(tiny.manifest(process=process))
        child.kill()
    assert run.manifest.state() == ("interrupted", f"process {process.pid} on {process.host} ended without a message")
    with pytest.raises(RunError, match=f"found: interrupted: process {process.pid}"):
        _ = run.finished
    run.save_manifest(tiny.manifest(process=replace(process, host="another")))
    assert run.manifest.state() == ("running", "")  # of which nothing is known here


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
@pytest.mark.parametrize("trace", ["", "metrics.jsonl", "checkpoints", "model"])
def test_a_run_that_ended_before_its_first_step_does_not_block_its_folder(
    status: Status, trace: str, tmp_path: Path
) -> None:
    run = runs.use(tmp_path / "run")
    run.save_manifest(tiny.manifest(status=status, reason="because"))
    if trace:
        (run.path / trace).touch()
    ended = status != "running"
    if ended and not trace:
        assert runs.use(run.path) == run
        assert not (run.path / "manifest.json").exists()
        return
    with pytest.raises(RunError, match="is not empty") as error:
        runs.use(run.path)
    assert (f"resume the run: tunesmith train --resume {run.path}" in str(error.value)) == ended


def test_two_processes_cannot_take_the_same_folder(tmp_path: Path) -> None:
    """All look whether it is empty; the manifest that the first of them writes is in it by then."""
    taken, refused = [], []

    def take() -> None:
        try:
            manifest = tiny.manifest(process=ProcessIdentity.current())
            taken.append(runs.use(tmp_path / "run", lambda run: run.save_manifest(manifest)))
        except RunError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 7)
    assert all("is not empty" in message for message in refused)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_others_may_read_a_model_as_far_as_the_umask_lets_them(tmp_path: Path, umask: int, mode: int) -> None:
    """A server often runs as another user; safetensors writes files that only their owner reads."""
    before = os.umask(umask)
    try:
        runs.write_folder(tmp_path / "model", lambda folder: save_file({"a": np.zeros(2)}, folder / "x.safetensors"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {"x.safetensors": mode, "hashes.json": mode}
