"""What the server adds to the time of a model, for one client on one kept connection.

    python benchmarks/keep_alive.py --run RUN --texts D/ag_news/test.csv [--generator RUN] [--rounds 5]

RUN is a finished classification run, the other one a run that generates. The model's own time is taken in this process
in turns with the server's, over the same texts, on the engine that the server takes. The server may add MAX_MS.
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

from tunesmith import recipe as recipes, runs
from tunesmith.pipeline.commands.serve import engine
from tunesmith.pipeline.engines import load_generator
from tunesmith.protocols import AnswerRequest, Classifier
from tunesmith.types import Example, Message

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
    """Return medians in milliseconds of /healthz, of /predict, and of the model itself."""
    texts = read(args.texts, args.requests)
    run = runs.find(args.run)
    model = engine(run, recipes.load(run.recipe, args.set, sections=("serve",)).serve)
    assert isinstance(model, Classifier)
    with ours(args) as (address, _):
        connection = http.client.HTTPConnection(address.removeprefix("http://"))

        def request(method: str, path: str, body: str | None = None) -> None:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200

        return in_turns(
            args.rounds,
            healthz=lambda: times(lambda _: request("GET", "/healthz"), texts),
            predict=lambda: times(lambda text: request("POST", "/predict", json.dumps({"inputs": text})), texts),
            model=lambda: times(lambda text: model.predict([Example("0", text)]), texts),
        ) | {"allowed_ms": MAX_MS}


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

        return in_turns(args.rounds, stream_gap=streamed, generation_gap=own)


def in_turns(rounds: int, **sides: Callable[[], list[float]]) -> dict[str, Any]:
    """Return the median, and the smallest and largest of the rounds' medians, in milliseconds; one round warms up."""
    medians: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + rounds):
        for name, measure in sides.items():
            medians[name].append(1000 * statistics.median(measure()))
    return {
        f"{name}_ms": [round(pick(values[1:]), 2) for pick in (statistics.median, min, max)]
        for name, values in medians.items()
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
