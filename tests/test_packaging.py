"""What is published holds what it needs and nothing else, installs, and runs; without torch the linear method does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import urllib.request
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import tunesmith
from tests import tiny
from tests.server_process import serving

ROOT = Path(__file__).parents[1]
NEURAL = {"accelerate", "peft", "torch", "transformers"}
"""Dependencies that the method `linear` does not need."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def files() -> list[str]:
    """What belongs to the project: what git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a clone of the repository")
    return sorted(name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution of a clean copy, and the wheel that was built from it."""
    copy = tmp_path_factory.mktemp("source")
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-W", "ignore", "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_source_distribution_is_the_repository_without_what_is_hidden(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    top = f"tunesmith-{tunesmith.__version__}/"
    assert path.name == f"{top[:-1]}.tar.gz"
    with tarfile.open(path) as archive:
        packed = sorted(member.name for member in archive if member.isfile())
    made = {"PKG-INFO", "setup.cfg"}
    egg = "src/tunesmith.egg-info/"
    ours = [name.removeprefix(top) for name in packed if not name.removeprefix(top).startswith(egg)]
    assert all(name.startswith(top) for name in packed)
    assert sorted({*ours} - made) == [name for name in files() if not name.startswith(".")]


def test_the_wheel_is_the_package_and_its_metadata(dist: Path) -> None:
    with zipfile.ZipFile(wheel(dist)) as archive:
        packed = sorted(name for name in archive.namelist() if not name.endswith("/"))
    info = f"tunesmith-{tunesmith.__version__}.dist-info/"
    metadata = [
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "licenses/NOTICE",
        "top_level.txt",
    ]
    package = [name.removeprefix("src/") for name in files() if name.startswith("src/")]
    assert "tunesmith/py.typed" in package
    assert packed == sorted([*package, *(info + name for name in metadata)])


def test_the_metadata_is_valid(dist: Path) -> None:
    """By packaging's own checks, which are those of PyPI."""
    with zipfile.ZipFile(wheel(dist)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(name)
    metadata = Metadata.from_email(text, validate=True)
    assert str(metadata.version) == tunesmith.__version__
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    supported = [str(minor) for minor in range(10, 20) if f"3.{minor}.0" in (metadata.requires_python or "")]
    named = [line.rpartition(".")[2] for line in metadata.classifiers or [] if "Python :: 3." in line]
    assert named == [minor for minor in supported if int(minor) <= int(named[-1])]


def test_the_version_stands_once() -> None:
    """In `tunesmith.__version__`; the newest release in the changelog has it, and a date."""
    assert PROJECT["dynamic"] == ["version"]
    done = subprocess.run([sys.executable, "-m", "tunesmith", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tunesmith {tunesmith.__version__}\n"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, *releases = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert unreleased == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", release) for release in releases)
    assert releases[0].split(" - ")[0] == tunesmith.__version__
    kinds = re.findall(r"^### (.+)$", changelog, re.MULTILINE)
    assert {*kinds} <= {"Highlights", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# --- installed into a fresh environment


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, in which other packages are those of this one."""

    folder: Path

    def command(self, *words: str) -> list[str]:
        return [str(self.folder / "bin" / "tunesmith"), *words]

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment(), capture_output=True, text=True, check=False, timeout=200
        )

    def output(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr


def install(dist: Path, folder: Path, *, without: set[str]) -> Installed:
    """Make an environment; packages are linked one by one, so that what is left out is not there."""
    venv.create(folder, symlinks=True)
    links = folder / "dependencies"
    links.mkdir()
    here = [path for folder in sys.path if folder.endswith("site-packages") for path in Path(folder).iterdir()]
    for name, path in {path.name: path for path in reversed(here)}.items():
        package = re.split(r"[-.]", name)[0]
        if path.suffix != ".pth" and "tunesmith" not in package and package not in without:
            (links / name).symlink_to(path)
    installed = Installed(folder)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (purelib / "dependencies.pth").write_text(f"{links}\n")
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index"]
    command.append(str(wheel(dist)))
    done = subprocess.run(command, env=installed.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return installed


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(dist, tmp_path_factory.mktemp("installed") / "venv", without=set())


@pytest.fixture(scope="module")
def without_torch(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Of the dependencies, those that `deploy/linear.txt` names and what is in extras."""
    return install(dist, tmp_path_factory.mktemp("linear") / "venv", without=NEURAL)


def test_the_installed_command_works(installed: Installed) -> None:
    assert installed.output("--version") == f"tunesmith {tunesmith.__version__}\n"
    text = installed.output("--help")
    assert "usage: tunesmith" in text
    assert "quickstart" in text
    code = "import tunesmith; print(tunesmith.__file__)"
    done = subprocess.run(
        [str(installed.folder / "bin" / "python"), "-c", code],
        env=installed.environment(),
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed.folder), done.stderr


def test_the_installed_package_trains_and_writes_reports(installed: Installed, reviews: Path) -> None:
    """Its templates are in the wheel."""
    installed.output("compare", str(reviews), "--methods", "linear", "output_dir=runs")
    (report,) = Path("runs").glob("*/report.html")
    assert "<table" in report.read_text(encoding="utf-8")


@pytest.mark.real
def test_the_quickstart_runs_where_the_wheel_is_installed(installed: Installed) -> None:
    done = installed.run("quickstart", "--methods", "linear")
    if "cannot download" in done.stderr:
        pytest.skip(f"assets are out of reach: {done.stderr}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "accuracy" in done.stdout


# --- without torch


def test_linear_needs_what_deploy_says() -> None:
    listed = (ROOT / "deploy" / "linear.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in listed if line and not line.startswith("#")]
    serve = PROJECT["optional-dependencies"]["serve"]
    needed = [line for line in PROJECT["dependencies"] if Requirement(line).name not in NEURAL]
    assert sorted(named) == sorted([*needed, *serve])


def test_linear_works_where_torch_is_not_installed(without_torch: Installed, reviews: Path) -> None:
    run = without_torch.output
    run("check", str(reviews), "method=linear")
    run("compare", str(reviews), "--methods", "linear", "output_dir=runs")
    run("train", str(reviews), "method=linear", "--run-dir", "run")
    prediction = json.loads(run("predict", "run", "--text", tiny.texts(1)[0][0]).splitlines()[0])
    assert prediction["score"] > 0.5
    run("predict", "run", "--data", str(reviews), "--output", "out.csv")
    run("evaluate", "run", "--data", str(reviews))
    run("explain", "run", "--text", tiny.texts(1)[0][0])
    run("audit", str(reviews), "--method", "linear", "output_dir=runs")
    run("export", "run", "--to", "safetensors")
    assert "linear" in run("runs", "list", ".")


def test_linear_is_served_where_torch_is_not_installed(without_torch: Installed, reviews: Path) -> None:
    without_torch.output("train", str(reviews), "method=linear", "--run-dir", "run")
    with serving(without_torch.command("serve", "run", "port=0"), without_torch.environment()) as address:
        body = json.dumps({"inputs": tiny.texts(1)[0][0]}).encode()
        request = urllib.request.Request(f"{address}/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["predictions"][0]["score"] > 0.5


@pytest.mark.parametrize(
    "words", [["train", "method=encoder"], ["compare", "--methods", "probe"], ["audit"], ["doctor"]]
)
def test_what_needs_torch_says_so(without_torch: Installed, reviews: Path, words: list[str]) -> None:
    done = without_torch.run(words[0], *([] if words == ["doctor"] else [str(reviews)]), *words[1:])
    assert done.returncode == 2
    assert "torch is not installed" in done.stderr
    assert "Traceback" not in done.stderr
