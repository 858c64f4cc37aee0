"""What `serve` answers over HTTP, by a process of its own on a free port."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx

from tests.golden.cases import made
from tests.golden.record import Record
from tests.golden.workspace import Workspace

Golden = Callable[[str], Record]


@contextlib.contextmanager
def served(*words: str) -> Iterator[str]:
    """The address of a server that these words behind `serve` start."""
    command = [sys.executable, "-m", "tunesmith", "serve", *words, "port=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        line = next(line for line in process.stderr if line.startswith("serving "))
        yield line.split(" at ")[1].split(" ")[0]
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def wait_for(client: httpx.Client) -> None:
    """Until the server answers."""
    for _ in range(200):
        with contextlib.suppress(httpx.ConnectError):
            client.get("/healthz")
            return
        time.sleep(0.1)


def test_serve(workspace: Workspace, golden: Golden) -> None:
    record = golden("serve")
    runs = made(workspace, "linear", "encoder_pairs", "generator_full", "instruction_full")
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "Name the topic."}], "max_tokens": 4}
    words = {"model": "linear", "inputs": ["the goal of the team", "a robot"]}
    with served(*runs, "max_inputs=2", "block=secret") as address, httpx.Client(base_url=address, timeout=30) as client:
        wait_for(client)

        def ask(method: str, path: str, **more: Any) -> None:
            answer = client.request(method, path, **more)
            title = f"{method} {path} {more.get('json', more.get('content', ''))}".rstrip()
            if answer.headers["content-type"].startswith("application/json"):
                record.json(f"{title} -> {answer.status_code}", answer.json())
            else:
                record.add(f"{title} -> {answer.status_code}", answer.text)

        ask("GET", "/healthz")
        ask("GET", "/readyz")
        ask("GET", "/v1/models")
        ask("POST", "/predict", json=words)
        ask("POST", "/predict", json={"model": "linear", "inputs": "the vote"})
        ask("POST", "/predict", json={"model": "generator_full", "inputs": ["the vote"]})
        ask("POST", "/predict", json={"model": "encoder_pairs", "inputs": [{"text": "goal", "text_pair": "match"}]})
        ask("POST", "/v1/chat/completions", json=question | {"model": "instruction_full"})
        ask("POST", "/v1/chat/completions", json=question | {"model": "instruction_full", "stream": True})
        ask("POST", "/v1/completions", json={"model": "instruction_full", "prompt": "Name", "max_tokens": 3})
        ask("POST", "/prompt", json={"model": "instruction_full", "messages": question["messages"]})
        ask("POST", "/predict", json=words | {"model": "nobody"})
        ask("POST", "/predict", json=words | {"inputs": ["a", "b", "c"]})
        ask("POST", "/predict", json=words | {"inputs": "a secret"})
        ask("POST", "/predict", json=words | {"inputs": 3})
        ask("POST", "/predict", content="{")
        ask("POST", "/v1/chat/completions", json=question | {"model": "linear"})
        ask("GET", "/nowhere")
        ask("GET", "/predict")
        description = client.get("/openapi.json").json()
    record.json("paths of /openapi.json", description["paths"])
    record.json("schemas of /openapi.json", description["components"]["schemas"])
    record.check()
