"""`tunesmith serve` of a classifier against a FastAPI application that calls transformers.pipeline for each request.

    python benchmarks/serve.py --run RUN --texts D/ag_news/test.csv            # throughput, side by side
    python benchmarks/serve.py --run RUN --texts D/ag_news/test.csv --overload # 60 s at twice the capacity, alone
    python benchmarks/serve.py --run RUN --texts D/ag_news/test.csv --latency  # p99 at half load
    python benchmarks/serve.py --run RUN --texts D/ag_news/test.csv --leave    # 200 clients that disconnect

RUN is a finished encoder run. Both servers are processes of their own and stay up; the clients take turns with short
rounds, so that a busy machine slows both. Everything is on this machine's loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import gzip
import itertools
import json
import multiprocessing
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

PEER = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

classify = pipeline("text-classification", model=sys.argv[1], top_k=None)
app = FastAPI()

class Request(BaseModel):
    inputs: str

@app.post("/predict")
def predict(request: Request):
    return classify(request.inputs, truncation=True)

@app.get("/readyz")
async def readyz():
    return {}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
"""The obvious first version. A plain `def` route: FastAPI runs it in a pool of 40 threads, in parallel."""
SINGLE = PEER.replace("app = FastAPI()", "app = FastAPI()\nimport threading\nlock = threading.Lock()").replace(
    "    return classify(", "    with lock:\n        return classify("
)
"""The same, one request after another, which is faster where there are more threads than cores."""


def main() -> None:
    """Run the chosen measurement, print its figures, and write them to --output."""
    args = arguments()
    texts = read(args.texts, args.rows)
    if args.latency:
        figures = latency(args, texts)
    elif args.overload:
        figures = overload(args, texts)
    elif args.leave:
        figures = disconnect(args, texts)
    else:
        figures = throughput(args, texts)
    print(json.dumps(figures, indent=2))
    if args.output:
        Path(args.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument(
        "--texts", required=True, help="CSV, plain or .gz, with a column `text`; or AG News as published"
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a round; of --overload and --latency in all")
    parser.add_argument("--peer", choices=["threads", "single"], default="threads")
    parser.add_argument("--set", nargs="*", default=[], metavar="serve.NAME=VALUE", help="settings of our side")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--leave", action="store_true")
    parser.add_argument("--output")
    return parser.parse_args()


def read(path: str, rows: int) -> list[str]:
    """The texts of a CSV file."""
    opened: Any = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        head = next(csv.reader(file))
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        if "text" in head:
            return [row["text"] for row in itertools.islice(csv.DictReader(file), rows)]
        return [f"{row[1]} {row[2]}" for row in itertools.islice(csv.reader(file), rows)]


# --- the two sides


@contextlib.contextmanager
def server(words: Sequence[str], port: int) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server process, wait until it is ready, and stop it in the end."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client() as http:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if http.get(f"{address}/readyz").status_code == 200:
                        break
                time.sleep(0.1)
        yield address, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ours(args: argparse.Namespace, *more: str) -> Any:
    """`tunesmith serve`."""
    port = free()
    words = [sys.executable, "-m", "tunesmith", "serve", args.run, f"serve.port={port}", *args.set, *more]
    return server(words, port)


def theirs(args: argparse.Namespace) -> Any:
    """The application over transformers.pipeline."""
    port = free()
    code = PEER if args.peer == "threads" else SINGLE
    return server([sys.executable, "-c", code, str(Path(args.run) / "model"), str(port)], port)


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- measurements


def throughput(args: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """Requests per second with clients that each wait for their response, both sides in turns."""
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    work: dict[str, list[float]] = {"ours": [], "theirs": []}
    with ours(args) as (a, mine), theirs(args) as (b, other):
        differing = differences(a, b, texts, 0.2 if any("int8" in word for word in args.set) else 1e-4)
        for address in (a, b):
            asyncio.run(closed_loop(address, texts, args.clients, 2.0))  # warm
        for number in range(args.rounds):
            sides = [("ours", a, mine), ("theirs", b, other)]
            for side, address, process in sides if number % 2 else sides[::-1]:
                before = cpu(process)
                rates[side].append(asyncio.run(closed_loop(address, texts, args.clients, args.seconds)))
                used = cpu(process) - before
                work[side].append((args.clients + rates[side][-1] * args.seconds) / used)
                print(f"{side}: {rates[side][-1]:.1f} texts/s, {work[side][-1]:.1f} a CPU second", file=sys.stderr)
        batches = re.findall(r"tunesmith_batch_inputs_(?:sum|count).*? ([\d.]+)", httpx.get(f"{a}/metrics").text)
    return {
        "clients": args.clients,
        "peer": args.peer,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "texts_per_second": {side: round(statistics.median(values), 1) for side, values in rates.items()},
        "ratio": ratios(rates),
        "texts_per_cpu_second": {s: round(statistics.median(w), 1) for s, w in work.items()},
        "cpu_ratio": ratios(work),
        "labels_that_differ_of_100": differing,
        "our_mean_batch": round(float(batches[1]) / float(batches[0]), 1),
    }


def ratios(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Our rate divided by theirs, round by round."""
    rounds = [ours / theirs for ours, theirs in zip(rates["ours"], rates["theirs"], strict=True)]
    return {"median": round(statistics.median(rounds), 2), "rounds": [round(ratio, 2) for ratio in rounds]}


def differences(a: str, b: str, texts: Sequence[str], most: float) -> int:
    """Count of 100 texts that the sides label differently; asserts that probabilities differ by less than `most`."""
    count = 0
    with httpx.Client(timeout=60) as http:
        for text in texts[:100]:
            mine = http.post(f"{a}/predict", json={"inputs": text}).json()["predictions"][0]
            other = http.post(f"{b}/predict", json={"inputs": text}).json()
            scores = {row["label"]: row["score"] for row in (other[0] if isinstance(other[0], list) else other)}
            assert max(abs(mine["scores"][label] - score) for label, score in scores.items()) < most, text
            count += mine["label"] != max(scores, key=lambda label: scores[label])
    return count


async def closed_loop(address: str, texts: Sequence[str], clients: int, seconds: float) -> float:
    """Responses per second where every client sends its next request as soon as it has a response."""
    source, count = itertools.cycle(texts), 0
    until = time.monotonic() + seconds

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal count
        while time.monotonic() < until:
            answer = await http.post("/predict", json={"inputs": next(source)})
            assert answer.status_code == 200, answer.text
            count += time.monotonic() < until

    async with opened(address) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return count / seconds


def opened(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=120, limits=httpx.Limits(max_connections=None))


async def open_loop(address: str, texts: Sequence[str], rate: float, seconds: float) -> list[tuple[int, float]]:
    """Status and seconds of requests that are sent at a steady rate, whether others are answered or not."""
    source, responses = itertools.cycle(texts), []

    async def client(http: httpx.AsyncClient) -> None:
        start = time.monotonic()
        answer = await http.post("/predict", json={"inputs": next(source)})
        responses.append((answer.status_code, time.monotonic() - start))

    async with opened(address) as http:
        tasks, start = [], time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(client(http)))
        await asyncio.gather(*tasks)
    return responses


def latency(args: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """Latency at a low rate and at half of the capacity, open loop."""
    with ours(args) as (address, _):
        asyncio.run(closed_loop(address, texts, args.clients, 3.0))
        capacity = asyncio.run(closed_loop(address, texts, args.clients, args.seconds))
        rounds = []
        for _ in range(args.rounds):
            alone = asyncio.run(open_loop(address, texts, min(5.0, capacity / 10), args.seconds))
            half = asyncio.run(open_loop(address, texts, capacity / 2, args.seconds))
            p50, p99 = quantile(alone, 0.5), quantile(half, 0.99)
            rounds.append({"p50_alone_ms": p50, "p50_half_ms": quantile(half, 0.5), "p99_half_ms": p99})
            rounds[-1]["ratio"] = round(p99 / p50, 2)
            assert {status for status, _ in half} == {200}
    ratio = statistics.median(figures["ratio"] for figures in rounds)
    return {"capacity": round(capacity, 1), "rounds": rounds, "median_ratio": ratio}


def quantile(responses: Sequence[tuple[int, float]], share: float) -> float:
    """Milliseconds within which a share of the responses came."""
    times = sorted(seconds for _, seconds in responses)
    return round(1000 * times[min(len(times) - 1, int(share * len(times)))], 1)


def overload(args: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """Twice the capacity, open loop; another process watches health and memory."""
    with ours(args) as (address, process):
        asyncio.run(closed_loop(address, texts, args.clients, 3.0))
        used = cpu(process)
        capacity = asyncio.run(closed_loop(address, texts, args.clients, 8.0))
        normal = (8 * capacity + args.clients) / (cpu(process) - used)
        before, used = served(address), cpu(process)

        context = multiprocessing.get_context("spawn")  # a process of its own: this one is busy with clients
        ended, seen = context.Event(), context.Queue()
        watch = context.Process(target=health, args=(address, process.pid, ended, seen))
        watch.start()
        start = time.monotonic()
        responses = asyncio.run(open_loop(address, texts, 2 * capacity, args.seconds))
        passed, used = time.monotonic() - start, cpu(process) - used
        after = served(address)
        ended.set()
        times, memory = seen.get()
        again = asyncio.run(closed_loop(address, texts, args.clients, 8.0))
    counts = Counter(str(status) for status, _ in responses)
    good = [(status, seconds) for status, seconds in responses if status == 200]
    return {
        "capacity": round(capacity, 1),
        "capacity_after": round(again, 1),
        "sent": len(responses),
        "answered": dict(counts),
        "server_counted": dict(after - before),
        "goodput_share": round(len(good) / passed / statistics.mean((capacity, again)), 2),
        "goodput_share_by_cpu": round(len(good) / used / normal, 2),
        "accepted_p99_ms": quantile(good, 0.99),
        "health_ms": {
            "p50": quantile([(0, t) for t in times], 0.5),
            "p99": quantile([(0, t) for t in times], 0.99),
            "max": round(1000 * max(times), 1),
            "asked": len(times),
        },
        "memory_mb": [memory[len(memory) * part // 6] for part in range(6)] + [memory[-1]],
    }


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    return float(sum(process.cpu_times()[:2]))


def health(address: str, pid: int, ended: Any, seen: Any) -> None:
    """Request /healthz ten times a second, and record the memory."""
    times, memory, process = [], [], psutil.Process(pid)
    with httpx.Client(timeout=30) as http:
        while not ended.is_set():
            start = time.monotonic()
            assert http.get(f"{address}/healthz").status_code == 200
            times.append(time.monotonic() - start)
            memory.append(round(process.memory_info().rss / 2**20, 1))
            time.sleep(0.1)
    seen.put((times, memory))


def served(address: str) -> Counter[str]:
    """The server's own count of responses of /predict, by status."""
    page = httpx.get(f"{address}/metrics").text
    rows = re.findall(r'tunesmith_requests_total\{route="/predict",status="(\d+)"\} ([\d.]+)', page)
    return Counter({status: int(float(count)) for status, count in rows})


def disconnect(args: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """Disconnect 200 clients after 0 to 500 ms, and measure how soon nothing waits or runs any more."""
    with ours(args, "serve.queue_size=1000") as (address, process):
        asyncio.run(closed_loop(address, texts, args.clients, 2.0))
        first, memory = alone(address, texts), process.memory_info().rss

        async def main() -> float:
            async with opened(address) as http:

                async def client(number: int) -> None:
                    with contextlib.suppress(TimeoutError):
                        body = {"inputs": texts[number % len(texts)]}
                        await asyncio.wait_for(http.post("/predict", json=body), number * 0.0025)

                await asyncio.gather(*(client(number) for number in range(200)))
                start = time.monotonic()
                while busy((await http.get("/metrics")).text):
                    await asyncio.sleep(0.01)
                return time.monotonic() - start

        freed = [asyncio.run(main()) for _ in range(args.rounds)]
        return {
            "clients": 200,
            "rounds": args.rounds,
            "free_after_seconds": [round(seconds, 3) for seconds in freed],
            "next_request_ms": round(1000 * alone(address, texts), 1),
            "before_ms": round(1000 * first, 1),
            "memory_growth_mb": round((process.memory_info().rss - memory) / 2**20, 1),
        }


def busy(page: str) -> bool:
    """Whether the metrics say that something waits or runs."""
    return any(float(count) for count in re.findall(r"tunesmith_(?:waiting|running)\{.*?\} ([\d.]+)", page))


def alone(address: str, texts: Sequence[str]) -> float:
    """Seconds of a request while the server is idle: the median of nine."""
    times = []
    with httpx.Client() as http:
        for text in texts[:9]:
            start = time.monotonic()
            http.post(f"{address}/predict", json={"inputs": text})
            times.append(time.monotonic() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
