"""What the server adds to the time of a model, for one client on one kept connection.

    python benchmarks/keep_alive.py --run RUN --texts D/ag_news/test.csv [--generator RUN] [--rounds 5]

RUN is a finished classification run, the other one a run that generates. The model's own time over the same requests is
what the server counts in its metrics: in another process or a minute later, the same model differs by more than what is
measured. The server may add MAX_MS. Generation is timed in this process, in turns with the server's streams.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from serve import ours, read

from tunesmith import runs
from tunesmith.pipeline.engines import load_generator
from tunesmith.protocols import AnswerRequest
from tunesmith.types import Message

MAX_MS = 2.0
PROMPT = "Write a few sentences about the sea."
TOKENS = 40


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--texts", required=True, help="CSV with a column `text`, or AG News as published")
    parser.add_argument("--generator", help="an instruction run, to measure the gaps between tokens of a stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=60, help="of a round")
    parser.add_argument("--set", nargs="*", default=[], metavar="serve.NAME=VALUE")
    parser.add_argument("--output")
    args = parser.parse_args()
    figures = classification(args)
    if args.generator:
        args.run = args.generator
        figures |= generation(args)
    print(json.dumps(figures, indent=2))
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


def classification(args: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds of /healthz, of /predict, of the model in it, and of all that is not the model."""
    texts = read(args.texts, args.requests)
    rounds: dict[str, list[float]] = {"healthz": [], "predict": [], "model": [], "added": []}
    with ours(args) as (address, _):
        connection = http.client.HTTPConnection(address.removeprefix("http://"))

        def request(method: str, path: str, body: str | None = None) -> str:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode()
            assert response.status == 200
            return content

        def model_seconds() -> float:
            lines = request("GET", "/metrics").splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith("tunesmith_model_seconds_total"))

        for _ in range(1 + args.rounds):
            rounds["healthz"].append(statistics.mean(times(lambda _: request("GET", "/healthz"), texts)))
            before = model_seconds()
            predict = statistics.mean(
                times(lambda text: request("POST", "/predict", json.dumps({"inputs": text})), texts)
            )
            model = (model_seconds() - before) / len(texts)
            rounds["predict"].append(predict)
            rounds["model"].append(model)
            rounds["added"].append(predict - model)
    return summary(rounds) | {"allowed_ms": MAX_MS}


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """Return medians in milliseconds between tokens: of a stream, and of the generation itself."""
    run = runs.find(args.run)
    generator = load_generator(run)
    prompt = generator.tokenize([Message("user", PROMPT)])
    body = {"messages": [{"role": "user", "content": PROMPT}], "stream": True, "max_tokens": TOKENS}
    with ours(args) as (address, _):
        connection = http.client.HTTPConnection(address.removeprefix("http://"))

        def streamed() -> list[float]:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200
            lines = [time.perf_counter() for line in response if line.startswith(b'data: {"id"')]
            return gaps(lines[1:-1])  # the first has only the role, the last why it ended

        def own() -> list[float]:
            moments: list[float] = []

            def on_token(*_: object) -> bool:
                moments.append(time.perf_counter())
                return True

            requests = [AnswerRequest(prompt, TOKENS, 0, run.recipe.generate, on_token)]
            generator.write(lambda free: [requests.pop()] if requests else [], 1)
            return gaps(moments)

        rounds: dict[str, list[float]] = {"stream_gap": [], "generation_gap": []}
        for _ in range(1 + args.rounds):
            rounds["stream_gap"].append(statistics.median(streamed()))
            rounds["generation_gap"].append(statistics.median(own()))
        return summary(rounds)


def summary(rounds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the median, the smallest and the largest of the rounds, in milliseconds; the first one warms up."""
    return {
        f"{name}_ms": [round(1000 * pick(values[1:]), 2) for pick in (statistics.median, min, max)]
        for name, values in rounds.items()
    }


def times(work: Callable[[str], object], texts: Sequence[str]) -> list[float]:
    """Seconds of some work for each text."""
    seconds = []
    for text in texts:
        start = time.perf_counter()
        work(text)
        seconds.append(time.perf_counter() - start)
    return seconds


def gaps(moments: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


if __name__ == "__main__":
    main()
