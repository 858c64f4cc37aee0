"""Predictions of method `endpoint` through a server that answers at once: rows a second, CPU and memory.

The server is a process of its own. What is left is what tunesmith itself takes: prompts, requests, journal, reading.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tunesmith.console import silence
from tunesmith.endpoints.client import EndpointClient
from tunesmith.prediction.endpoint_model import EndpointModel
from tunesmith.prediction.endpoint_predictor import EndpointPredictor
from tunesmith.prediction.endpoint_prompts import EndpointPrompt
from tunesmith.recipe import Endpoint, Prompt
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import Example

TARGET = SingleLabel(("negative", "positive"))
REPLY = json.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "positive"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1},
    }
).encode()


class Handler(BaseHTTPRequestHandler):
    """Gives every request the same reply."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(REPLY)}\r\n\r\n"
        self.wfile.write(head.encode() + REPLY)


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="2000,20000", help="numbers of rows, separated by commas")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    prompt = EndpointPrompt.about(TARGET, (), Prompt(), delimiters=True)
    assert prompt is not None
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for rows in map(int, args.rows.split(",")):
            examples = [Example(str(n), f"Row {n}. " + "A text of some length. " * 10) for n in range(rows)]
            with tempfile.TemporaryDirectory() as folder, silence():
                client = EndpointClient("openai", address, "instant", concurrency=args.concurrency)
                model = EndpointModel(client, Path(folder), args.concurrency)
                predictor = EndpointPredictor(model, TARGET, prompt, Endpoint(), 0)
                start, cpu = time.monotonic(), time.process_time()
                found = predictor.predict(examples)
                seconds, cpu = time.monotonic() - start, time.process_time() - cpu
                assert {row.label for row in found} == {"positive"}
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            speed = f"{rows / seconds:,.0f} a second, {1000 * cpu / rows:.2f} ms of CPU each"
            print(f"{rows:,} rows: {speed}; peak {memory:,.0f} MB")
        server.kill()


if __name__ == "__main__":
    main()
