"""Messages go through the logger `tunesmith`: printed by the command line, routed or silenced by everyone else."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tunesmith import cli, console


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    console.configure()


def test_the_command_line_prints_messages_and_marks_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("one")
    console.warn("two")
    assert capsys.readouterr().err == "one\nwarning: two\n"


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0xD800) if chr(code) not in "\t\n"]


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """Results, messages and errors of arguments hold them as JSON writes them; JSON has the same values as before."""
    console.show(json.dumps(CONTROLS, ensure_ascii=False))
    console.say("".join(CONTROLS[:-1]))
    with pytest.raises(SystemExit):
        cli.main(["check", "a.csv", "--\x1b[31m\x9b2J"])
    assert cli.main(["check", "\x1b]0;title\x07.csv"]) == 2
    printed = capsys.readouterr()
    assert set(printed.out + printed.err).isdisjoint(CONTROLS)
    assert json.loads(printed.out) == CONTROLS
    assert "\\u001b]0;title\\u0007.csv" in printed.err


def test_what_an_encoding_lacks_is_shown_too() -> None:
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    console.show(json.dumps({"text": "ä \U0001f600"}, ensure_ascii=False), file=file)
    file.seek(0)
    assert json.loads(file.read()) == {"text": "ä \U0001f600"}


@pytest.mark.usefixtures("trained_here")
def test_quiet_keeps_warnings_and_verbose_adds_details(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(reviews), "--methods", "linear", "linear.min_df=1"]
    shown = {}
    for flag in ("-q", "", "-v"):
        assert cli.main([*words, *filter(None, [flag])]) == 0
        shown[flag] = capsys.readouterr()
        assert "report: " in shown[flag].out, "results go to stdout whatever is logged"
    assert shown["-q"].err == ""
    assert "compared 1 run in" in shown[""].err
    assert "compare:" in shown["-v"].err, "the module and line of each message"


def test_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUNESMITH_LOG", "json")
    console.configure()
    console.say('a "quoted"\ntext')
    console.warn("é")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["message"]) == ("info", 'a "quoted"\ntext')
    assert (second["level"], second["message"], second["module"]) == ("warning", "é", "test_console")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None


def test_everything_that_is_logged_is_json(tmp_path: Path) -> None:
    """Values beside the message, other libraries, Python's warnings, and the error that ends a process."""
    code = """
import logging, warnings
from tunesmith import console
console.configure()
console.say("answered", status=200, where=__import__("pathlib").Path("x"))
console.report("failed")
logging.getLogger("uvicorn.error").warning("odd %s", "request")
warnings.warn("old name")
console.fail("cannot go on")
raise ValueError("what\\nhappened")
"""
    environment = os.environ | {"TUNESMITH_LOG": "json"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    expected = ["info", "error", "warning", "warning", "error", "critical"]
    assert [line["level"] for line in lines] == expected
    assert (lines[0]["status"], lines[0]["where"]) == (200, "x")
    assert [line["message"] for line in lines[1:3]] == ["failed", "odd request"]
    assert "old name" in lines[3]["message"]
    assert (lines[4]["message"], lines[5]["message"]) == ("cannot go on", "ValueError: what\nhappened")
    assert "raise ValueError" in lines[5]["traceback"] or "line" in lines[5]["traceback"]


def test_an_application_routes_or_silences_them(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    console.logger.handlers[:] = [logging.StreamHandler(stream)]
    console.say("routed")
    console.logger.setLevel(logging.ERROR)
    console.warn("dropped")
    assert (stream.getvalue(), capsys.readouterr().err) == ("routed\n", "")


def test_only_the_main_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with console.silence():
        console.warn("inside a server")
    monkeypatch.setenv("RANK", "1")
    console.warn("from another rank")
    assert capsys.readouterr().err == ""


def test_progress_away_from_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 4.0, 12.0, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(console.track("abc", "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "reading: 2/3 (6 s left)\n"


def test_progress_without_a_total_or_with_one_that_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for total in (None, 100):
        clock = iter([0.0, 10.0, 20.0])
        monkeypatch.setattr("time.monotonic", lambda clock=clock: next(clock))
        with console.meter("asking", total) as show:
            show(4, "0.4/s")
            show(8, "0.4/s", 16)
    assert capsys.readouterr().err.splitlines() == [
        "asking: 4 0.4/s",
        "asking: 8/16 0.4/s (20 s left)",
        "asking: 4/100 0.4/s (240 s left)",
        "asking: 8/16 0.4/s (20 s left)",
    ]
