"""The files for GitHub, pre-commit and lawyers are valid, agree with the project and give away nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
FORMS = sorted(set((GITHUB / "ISSUE_TEMPLATE").iterdir()) - {GITHUB / "ISSUE_TEMPLATE/config.yml"})
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": FORMS,
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE/config.yml"],
    "dependabot": [GITHUB / "dependabot.yml"],
}
"""Schemas that come with check-jsonschema -> the files that they describe."""
WRITING = {
    ("docs.yml", "publish"): {"pages": "write", "id-token": "write"},
    ("release.yml", "publish"): {"id-token": "write"},
}
"""The only jobs that may do more than read, and what they may do."""

pytestmark = pytest.mark.skipif(not GITHUB.exists(), reason="a source distribution has no hidden files")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The file, name and content of every job."""
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            yield path.name, name, job


@pytest.mark.parametrize(("schema", "paths"), SCHEMAS.items(), ids=SCHEMAS.keys())
def test_files_for_github_follow_its_schemas(schema: str, paths: list[Path]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_may_do_what_they_need_and_no_more() -> None:
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text(encoding="utf-8")
    assert {(file, name): job["permissions"] for file, name, job in jobs() if "permissions" in job} == WRITING
    for _, name, job in jobs():
        assert "uses" in job or job["timeout-minutes"] <= 120, name
        for step in job.get("steps", []):
            if "uses" in step:
                assert re.fullmatch(r"(actions/[\w-]+|pypa/gh-action-pypi-publish)@[0-9a-f]{40}", step["uses"])
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}
            # what others choose, such as the name of a branch, is not pasted into a shell
            assert "${{" not in step.get("run", "")


def test_workflows_give_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    runs = [step["run"] for _, _, job in jobs() for step in job.get("steps", []) if "run" in step]
    named = {
        target for run in runs for words in re.findall(r"^make (.+)$", run, re.MULTILINE) for target in words.split()
    }
    assert {"lint", "types", "test", "docs-site"} == named
    assert named <= targets


def test_every_supported_python_is_tested() -> None:
    (versions,) = (job["strategy"]["matrix"]["python"] for _, _, job in jobs() if "strategy" in job)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r"Python :: 3\.\d", line)]
    assert versions == named
    assert project["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize(("tag", "code"), [(f"v{tunesmith.__version__}", 0), ("v0.0.1", 1), ("v0", 1)])
def test_a_release_needs_its_version_and_its_date(tag: str, code: int) -> None:
    """The step of the workflow itself."""
    release = load(GITHUB / "workflows" / "release.yml")["jobs"]
    assert {"tests", "build"} == set(release["publish"]["needs"])
    (step,) = (step for step in release["build"]["steps"] if "TAG" in step.get("env", {}))
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=ROOT, env={"TAG": tag, "PATH": "/usr/bin:/bin"}, check=False
    )
    assert done.returncode == code


def test_hooks_before_a_commit_are_the_programs_of_make_check() -> None:
    repos = load(ROOT / ".pre-commit-config.yaml")["repos"]
    (local,) = (repo["hooks"] for repo in repos if repo["repo"] == "local")
    programs = [hook["entry"].split()[0] for hook in local]
    assert programs == ["ruff", "ruff", "mypy"]
    assert all(shutil.which(program, path=str(Path(sys.executable).parent)) for program in programs)
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"]) for repo in repos if repo["repo"] != "local")


def test_the_notice_names_files_that_exist() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    named = re.findall(r"src/[\w/]+\.py", notice)
    assert len(named) == 3
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize("name", ["CODE_OF_CONDUCT.md", "SECURITY.md", "NOTICE"])
def test_no_address_is_invented(name: str) -> None:
    """Reports go through the repository's own security page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"\S+@\S+\.\w+", text)
    assert name == "NOTICE" or "Report a vulnerability" in text
