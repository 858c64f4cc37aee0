"""Every command and every example in docs/guides/serving.md is run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.serving_fakes import listening, loaded
from tunesmith import cli, runs
from tunesmith.recipe import Serve
from tunesmith.serving import app, server

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
QUICK = ["bootstrap_samples=100", "max_steps=2", "max_new_tokens=4", "num_samples=0"]


def blocks(language: str = "") -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for marked, block in fences if marked == language]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that the page names."""
    folder = tmp_path_factory.mktemp("workspace")
    news = write_csv(
        folder / "news.csv", [(text, {"tech": "Business"}.get(label, label)) for text, label in tiny.texts(90)]
    )
    toxic = write_csv(
        folder / "toxic.csv", [(text, "toxic" if label == "sport" else "fine") for text, label in tiny.texts(90)]
    )
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(30)]
    (folder / "rows.json").write_text(json.dumps(rows))
    llama = tiny.generator("llama", folder / "llama")
    assistant = {
        "task": "instruction",
        "data": {"path": str(folder / "rows.json")},
        "model": {"name_or_path": str(llama)},
    }
    for name, source in {
        "ag-news": {"method": "linear", "data": {"path": str(news)}},
        "toxicity": {"method": "linear", "data": {"path": str(toxic)}},
        "assistant": assistant,
    }.items():
        tunesmith.train(source, QUICK, run_dir=folder / "runs" / name, quiet=True)
    (folder / "current").symlink_to(folder / "runs" / "ag-news")
    (folder / "runs" / "compare").mkdir()
    for name in ("linear", "encoder"):
        (folder / "runs" / "compare" / name).symlink_to(folder / "runs" / "ag-news")
    return folder


@pytest.fixture
def served(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> list[Serve]:
    """The settings of every server that a command starts and ends at once, on free ports."""
    settings: list[Serve] = []
    listen = server.listen
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(server, "listen", lambda asked: listen(asked.model_copy(update={"port": 0})))
    monkeypatch.setattr(server, "listen_admin", lambda asked: listen(asked.model_copy(update={"port": 0})))
    monkeypatch.setattr(server, "run", lambda app, asked, *_: settings.append(asked))
    return settings


def test_the_commands_run(served: list[Serve]) -> None:
    lines = [line for block in blocks() for line in block.splitlines() if line.startswith("tunesmith serve")]
    assert len(lines) == 4
    for line in lines:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, line
    assert [settings.port for settings in served] == [8000, 9000, 8000, 8000]
    assert served[1].guard.mask == ("email", "card")


def test_the_settings_are_those_of_a_recipe(served: list[Serve], workspace: Path) -> None:
    for block in blocks("yaml"):
        (workspace / "serve.yaml").write_text(block)
        assert cli.main(["serve", "runs/ag-news", "--recipe", "serve.yaml"]) == 0
        assert served[-1].model_dump(mode="json", exclude_unset=True) == yaml.safe_load(block)["serve"]


def test_the_requests_are_answered(workspace: Path) -> None:
    handlers = loaded([runs.find(workspace / "runs" / name) for name in ("ag-news", "assistant")], Serve())
    (curl,) = [block for block in blocks() if block.startswith("$ curl")]
    command, _, documented = curl.removeprefix("$ ").partition("\n")
    (python,) = blocks("python")
    with listening(app.create(handlers)) as address:
        if shutil.which("curl"):
            words = [word.replace("localhost:8000", address) for word in shlex.split(command)]
            answer = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
            assert list(answer) == list(json.loads(documented))
            assert list(answer["predictions"][0]) == list(json.loads(documented)["predictions"][0])
        code = python.replace("http://127.0.0.1:8000", address)
        subprocess.run([sys.executable, "-c", code], check=True)
    handlers.close()
