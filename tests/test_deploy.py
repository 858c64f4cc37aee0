"""The files of deploy/ are valid, agree with each other, and name what the server really has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests import small_runs, tiny
from tests.kubernetes_fields import KINDS, objects
from tests.server_process import serving
from tunesmith import cli, recipe as recipes
from tunesmith.recipe import Serve

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KEY_FILE = "key_file=/run/secrets/tunesmith_keys"


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with what follows them, each on one line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], " ".join(line.partition(" ")[2].split())) for line in joined if line]


def settings(words: list[str]) -> Serve:
    """The settings of a command to serve, which `tunesmith` understands."""
    _, unknown = cli.parser().parse_known_args(words)
    assert (words[0], unknown) == ("serve", [])
    return recipes.load({"data": {"path": "x.csv"}}, words[2:], sections=("serve",)).serve


def test_the_image_holds_what_the_dockerfile_copies_and_nothing_else() -> None:
    steps = instructions(DEPLOY / "Dockerfile")
    copied = [source for name, rest in steps if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
    allowed = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert allowed[0] == "*"
    assert sorted(line[1:] for line in allowed if line.startswith("!")) == sorted(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_the_container_serves_without_rights_and_is_watched() -> None:
    steps = instructions(DEPLOY / "Dockerfile")
    final = steps[max(number for number, (name, _) in enumerate(steps) if name == "FROM") :]
    last = dict(final)
    assert last["USER"] == "10001:10001"
    assert not [rest for name, rest in final if name == "RUN"]  # nothing is installed as another user after the build
    assert json.loads(last["ENTRYPOINT"]) == ["tunesmith"]
    words = json.loads(last["CMD"])
    serve = settings(words)
    assert (serve.host, f"key_file={serve.key_file}") == ("0.0.0.0", KEY_FILE)
    assert last["EXPOSE"] == str(serve.port)
    assert f":{serve.port}/healthz" in last["HEALTHCHECK"]
    bases = [rest for name, rest in steps if name in ("ARG", "FROM")]
    assert bases[:2] == ["BASE=python:3.11-slim-bookworm", "${BASE} AS python"]
    packages = next(rest for name, rest in steps if name == "ARG" and rest.startswith("PACKAGES="))
    assert shlex.split(packages) == [f"PACKAGES={' '.join(cli.NEURAL)}"]


def test_compose_follows_its_schema_and_agrees_with_the_image() -> None:
    path = DEPLOY / "compose.yaml"
    command = [sys.executable, "-W", "ignore", "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    server = content["services"]["tunesmith"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    assert int(server["stop_grace_period"].removesuffix("s")) > Serve().drain_seconds
    assert f"key_file=/run/secrets/{server['secrets'][0]}" == KEY_FILE
    for service in content["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service.get("volumes", []):
            if isinstance(volume, str) and volume.startswith("./"):
                assert (DEPLOY / volume.split(":")[0]).is_file()
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": [f"tunesmith:{Serve().port}"]}]
    assert f"key_file={scrape['authorization']['credentials_file']}" == KEY_FILE
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yaml").read_text(encoding="utf-8"))["datasources"]
    assert {source["uid"]} == {panel["datasource"]["uid"] for panel in panels()}


def test_the_unit_starts_the_server_and_lets_requests_finish() -> None:
    text = (DEPLOY / "tunesmith.service").read_text(encoding="utf-8")
    options = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    program, *words = shlex.split(options["ExecStart"])
    assert program == "/opt/tunesmith/bin/tunesmith"
    serve = settings(words)
    assert serve.host == "127.0.0.1"
    assert serve.key_file == f"%d/{options['LoadCredential'].split(':')[0]}"
    assert int(options["TimeoutStopSec"]) > serve.drain_seconds


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """In the opinion of systemd: from 0, nothing can go wrong, to 10, everything."""
    program = tmp_path / "tunesmith"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "tunesmith.service"
    text = (DEPLOY / "tunesmith.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("ExecStart=/opt/tunesmith/bin/tunesmith", f"ExecStart={program}"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "tunesmith.service" not in done.stderr, done.stderr
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "nrecognized option" in done.stderr:
        pytest.skip("an old systemd-analyze")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_manifest_has_the_fields_of_kubernetes_and_agrees_with_the_server() -> None:
    parts = objects(DEPLOY / "kubernetes.yaml")
    for kind, content in parts.items():
        jsonschema_rs.validate(KINDS[kind], content)
    spec = parts["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == parts["Service"]["spec"]["selector"]
    serve = settings(container["args"])
    (port,) = container["ports"]
    assert port["containerPort"] == serve.port
    assert {port["name"]} == {
        container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")
    }
    assert parts["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")]
    assert paths == ["/readyz", "/readyz", "/healthz"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name != "scratch")
    assert Path(str(serve.key_file)).is_relative_to(mounts["keys"]["mountPath"])
    assert Path(container["args"][1]).is_relative_to(mounts["runs"]["mountPath"])
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["terminationGracePeriodSeconds"] > serve.drain_seconds
    user = dict(instructions(DEPLOY / "Dockerfile"))["USER"]
    assert user == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"


# --- the dashboard


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana" / "tunesmith.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def ask(address: str, path: str, body: Any = None, **headers: str) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"content-type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of the series that a server has after requests of all kinds -> their labels."""
    folder = tmp_path_factory.mktemp("served")
    reviews = folder / "reviews.csv"
    reviews.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny.texts(120)))
    small_runs.classify(folder, reviews, folder / "topics", method="linear")
    small_runs.instruct(tiny.generator("llama", folder / "llama"), folder / "assistant")
    command = [sys.executable, "-m", "tunesmith", "serve", str(folder / "topics"), str(folder / "assistant"), "port=0"]
    chat = {"model": "assistant", "messages": [{"role": "user", "content": "Why?"}], "stream": True, "max_tokens": 3}
    with serving([*command, "serve.guard.mask=[email]"], dict(os.environ)) as address:
        assert "predictions" in ask(address, "/predict", {"inputs": "a text by me@example.com"})
        assert "data:" in ask(address, "/v1/chat/completions", chat)
        assert "error" in ask(address, "/predict", {"inputs": "a text"}, host="example.com")
        page = ask(address, "/metrics")
    series = re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", page, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for name, labels in series:
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def expressions() -> Iterator[tuple[str, str, str]]:
    """The title of each panel with its expressions and their legends."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def test_every_expression_of_the_dashboard_names_series_and_labels_of_the_server(
    exported: dict[str, set[str]],
) -> None:
    for title, expression, legend in expressions():
        series = re.findall(r"tunesmith_\w+", expression)
        assert series, title
        for name in series:
            assert name in exported, f"{title}: {name}"
        labels = {label for name in series for label in exported[name]}
        grouped = {label for names in re.findall(r"by \(([^)]*)\)", expression) for label in names.split(", ")}
        matched = set(re.findall(r"[{,](\w+)=~?", expression))
        assert grouped - {"instance"} <= labels, title
        assert matched <= labels, title
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped, title


def test_the_dashboard_shows_every_metric(exported: dict[str, set[str]]) -> None:
    """So that a new one is not forgotten."""
    shown = {
        re.sub("_(total|bucket|sum|count)$", "", name)
        for _, text, _ in expressions()
        for name in re.findall(r"tunesmith_\w+", text)
    }
    assert shown == {re.sub("_(total|bucket|sum|count|created)$", "", name) for name in exported}
