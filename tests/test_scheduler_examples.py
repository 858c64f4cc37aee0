"""The scripts and manifests in examples/ are valid: shell, sbatch, Kubernetes, torchrun and tunesmith read them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from torch.distributed import run as torchrun

from tests import tiny
from tests.conftest import write_csv
from tests.kubernetes_fields import KINDS, objects
from tunesmith import cli
from tunesmith.runs import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted((EXAMPLES / "slurm").iterdir())
MANIFESTS = sorted((EXAMPLES / "kubernetes").iterdir())
SBATCH = {
    "array": r"\d+-\d+(%\d+)?",
    "cpus-per-task": r"\d+",
    "gpus": r"\d+",
    "gpus-per-node": r"\d+",
    "job-name": r"[\w-]+",
    "mem": r"\d+G",
    "nodes": r"\d+",
    "ntasks": r"\d+",
    "ntasks-per-node": r"\d+",
    "output": r"%x-%(j|A_%a)\.log",
    "signal": r"(B:)?TERM@\d+",
    "time": r"(\d+-)?\d\d:\d\d:\d\d",
}
"""Options of sbatch(1), and what their values look like."""


def script(path: Path) -> str:
    """What a shell runs."""
    if path in SCRIPTS:
        return path.read_text()
    (container,) = objects(path)["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/bash", "-c"]
    (code,) = container["args"]
    return str(code)


def commands(code: str) -> list[tuple[list[str], list[str]]]:
    """The words of each command for torchrun, where it launches it, and for tunesmith."""
    lines = [line for line in code.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    launches = [line for line in lines if " tunesmith " in line]
    found = []
    for line in launches:
        launcher, _, words = line.partition(" tunesmith ")
        options = shlex.split(launcher.removesuffix(" -m").partition("torchrun ")[2])
        assert launcher.endswith(" -m") == ("torchrun" in launcher)
        found.append((options, shlex.split(words)))
    return found


@pytest.mark.parametrize("path", [*SCRIPTS, *MANIFESTS], ids=lambda path: path.name)
def test_the_shell_torchrun_and_tunesmith_understand_the_commands(path: Path) -> None:
    code = script(path)
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in code
    found = commands(code)
    assert found
    numbers = {"$SLURM_GPUS": "4", "$SLURM_GPUS_ON_NODE": "4", "$SLURM_JOB_NUM_NODES": "2"}
    for options, words in found:
        if options:
            torchrun.get_args_parser().parse_args([*(numbers.get(word, word) for word in options), "-m", "tunesmith"])
        assert words[0] in cli.COMMANDS
        _, unknown = cli.parser().parse_known_args(words)
        assert not [word for word in unknown if word.startswith("-")], unknown
        for word in (word for word in unknown if "=" in word):
            assert "." in word.partition("=")[0]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_sbatch_knows_its_options(path: Path) -> None:
    """They stand before the first command, where sbatch looks for them."""
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert options == [line for line in lines[:first] if line.startswith("#SBATCH")]
    for line in options:
        match = re.fullmatch(r"#SBATCH --([a-z-]+)=(\S+)", line)
        assert match, line
        assert re.fullmatch(SBATCH[match[1]], match[2]), line
    for name in set(re.findall(r"SLURM_\w+", path.read_text())):
        assert name in {"SLURM_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_have_the_fields_of_kubernetes_and_agree_with_themselves(path: Path) -> None:
    parts = objects(path)
    for kind, content in parts.items():
        jsonschema_rs.validate(KINDS[kind], content)
    job = parts["Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    launched = [torchrun.get_args_parser().parse_args([*options, "x"]) for options, _ in commands(script(path))]
    gpus = {str(args.nproc_per_node) for args in launched}
    assert gpus == {container["resources"]["limits"]["nvidia.com/gpu"]}
    if "Service" in parts:
        name, service = job["metadata"]["name"], parts["Service"]
        assert service["spec"]["selector"] == {"job-name": name}
        assert pod["subdomain"] == service["metadata"]["name"]
        port = service["spec"]["ports"][0]["port"]
        assert container["ports"] == [{"containerPort": port}]
        assert {args.rdzv_endpoint for args in launched} == {f"{name}-0.{pod['subdomain']}:{port}"}
        assert {args.nnodes for args in launched} == {str(job["spec"]["completions"])}
        assert job["spec"]["parallelism"] == job["spec"]["completions"]
        assert job["spec"]["completionMode"] == "Indexed"


def test_every_example_is_explained() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for path in (*SCRIPTS, *MANIFESTS):
        assert f"{path.parent.name}/{path.name}" in text


def test_a_slurm_script_trains_on_two_nodes(tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    """With an srun that starts its command once for each node, here; the same command again finds it finished."""
    write_csv(tmp_path / "reviews.csv", tiny.texts(60))
    content = {"method": "probe", "data": {"path": "reviews.csv"}, "model": {"name_or_path": str(tiny_models("bert"))}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "srun": '"$@" & "$@" & wait -n && wait -n',
        "scontrol": "echo localhost; echo other",
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o700)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "node[1-2]"}
    slurm |= {"SLURM_JOB_ID": str(os.getpid()), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment = os.environ | slurm | {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["bash", str(EXAMPLES / "slurm" / "train-nodes.sbatch"), "recipe.yaml", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert Run(tmp_path / "run").finished.name == "probe"
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "run has finished already" in done.stderr
