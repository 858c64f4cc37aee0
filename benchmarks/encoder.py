"""A fine-tuned encoder side by side with transformers' Trainer: one process, alternating blocks, the same weights.

How to run it: benchmarks/README.md. What it gave: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sft import (
    Block,
    InTurn,
    Turns,
    Work,
    child,
    compare,
    finish,
    machine_rate,
    our_steps,
    peer_arguments,
    rates,
    resident_mb,
    summed,
    table,
    time_budgets,
)
from torch import nn

from tunesmith.data import batches
from tunesmith.data.encode import Encoded, encode
from tunesmith.evaluation.intervals import wilson
from tunesmith.hardware import peak_memory_mb
from tunesmith.models import load
from tunesmith.recipe import Model
from tunesmith.training import loop, losses
from tunesmith.types import Example

PEERS: dict[str, dict[str, Any]] = {
    "padded": {},
    "grouped": {"train_sampling_strategy": "group_by_length"},
}
"""How Trainer draws: our order, each batch padded to its longest row; or its own order, similar lengths together."""
MODEL = Model(name_or_path="pypi:all-minilm-l6-v2", max_length=128)


def read(file: Path, limit: int) -> list[Example]:
    """Rows of a CSV with `text` and `label`, drawn once."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))[:limit]
    return [Example(f"{file.name}:{i + 2}", rows[i]["text"], label=rows[i]["label"]) for i in order]


class Materials:
    """Encoded rows and a model with a fresh head; both sides start from copies of it."""

    def __init__(self, args: Any) -> None:
        train, test = read(args.data / "train.csv.gz", args.rows), read(args.data / "test_even.csv.gz", args.test_rows)
        self.labels = tuple(sorted({str(row.label) for row in train}))
        self.tokenizer = load.tokenizer(MODEL)
        self.rows, _ = encode(train, self.tokenizer, MODEL.max_length, self.labels)
        self.test, _ = encode(test, self.tokenizer, MODEL.max_length, self.labels)
        self.model = load.sequence_classifier(MODEL, self.tokenizer, self.labels, seed=0)

    def feed(self, args: Any, budget: int | str) -> batches.Feed:
        tokens = batches.token_budget(budget, torch.device("cpu"))
        sampler = batches.Sampler(len(self.rows), args.batch, seed=0)
        return batches.Feed(self.rows, sampler, self.tokenizer, tokens)

    def loss(self) -> losses.Classification:
        return losses.Classification(torch.ones(len(self.labels)))


def total(args: Any) -> int:
    return int((args.rounds + 1) * args.steps)


def flops(model: nn.Module) -> Any:
    """Matrix products for real tokens, forward and backward; tables, pooler, head and attention itself left out."""
    body = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and ".encoder." in name)
    return lambda work: 6 * body * work.real


def our_work(feed: batches.Feed, step: int) -> Work:
    drawn = [feed.rows[i] for i in feed.sampler.draw(step)]
    computed = sum(batch.inputs["input_ids"].numel() for batch in feed(step))
    return Work(len(drawn), len(drawn), sum(map(len, drawn)), computed)


def our_block(steps: Iterator[loop.Step], feed: batches.Feed, count: int, blocks: list[Block]) -> None:
    done = sum(block.steps for block in blocks)
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    seconds = time.perf_counter() - start
    blocks.append(Block(seconds, count, summed([our_work(feed, step) for step in range(done, done + count)])))
    print(f"round {len(blocks) - 1}: ours {seconds / count:.2f} s a step", file=sys.stderr, flush=True)


def trainer(model: nn.Module, data: Materials, args: Any, folder: str) -> Any:
    """transformers' Trainer over our order of rows, which also notes each step's work."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    class Noting(Trainer):
        work: list[Work]

        def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> torch.Tensor:
            size, mask = len(inputs["input_ids"]), inputs["attention_mask"]
            self.work.append(Work(size, size, int(mask.sum()), mask.numel()))
            return super().training_step(model, inputs, *more, **named)

    sampler = batches.Sampler(len(data.rows), args.batch, seed=0)
    order = [data.rows[i] for step in range(total(args)) for i in sampler.draw(step)]
    rows = Dataset.from_list([{**row.inputs, "labels": row.label} for row in order])
    config = {**peer_arguments(folder, args.learning_rate, args.batch, total(args)), **PEERS[args.peer]}
    collator = DataCollatorWithPadding(data.tokenizer)
    made = Noting(model=model, args=TrainingArguments(**config), train_dataset=rows, data_collator=collator)
    made.remove_callback(PrinterCallback)
    made.work = []
    return made


@torch.no_grad()
def right(model: nn.Module, rows: Sequence[Encoded], tokenizer: Any) -> int:
    """How many rows the model gets right."""
    model.eval()
    hits = 0
    for group in batches.plan([len(row) for row in rows], 2048):
        batch = batches.collate([rows[i] for i in group], tokenizer)
        hits += int((model(**batch.inputs).logits.argmax(-1) == batch.labels).sum())
    return hits


def accuracy(model: nn.Module, data: Materials) -> dict[str, Any]:
    hits, count = right(model, data.test, data.tokenizer), len(data.test)
    return {"accuracy": hits / count, "interval": wilson(hits, count, 0.95)} if count else {}


def side_by_side(args: Any) -> dict[str, Any]:
    data = Materials(args)
    ours, theirs = data.model, copy.deepcopy(data.model)
    feed, needed, machine = data.feed(args, args.max_tokens), flops(data.model), [machine_rate()]
    with tempfile.TemporaryDirectory() as folder:
        peer = trainer(theirs, data, args, folder)
        steps = our_steps(ours, feed, data.loss(), args.learning_rate, total(args))
        blocks: list[Block] = []
        turns = Turns(args.steps, total(args), partial(our_block, steps, feed, args.steps, blocks), peer.work)
        peer.add_callback(turns)
        peer.train()
    machine.append(machine_rate())
    rate = statistics.median(machine)
    return {
        "ratio": compare(blocks, turns.blocks),
        "ours": {**rates(blocks, needed, rate), **accuracy(ours, data)},
        "theirs": {**rates(turns.blocks, needed, rate), **accuracy(theirs, data)},
        "machine_gflops": [one / 1e9 for one in machine],
        "blocks": {"ours": [asdict(b) for b in blocks], "theirs": [asdict(b) for b in turns.blocks]},
    }


def alone(args: Any) -> dict[str, float]:
    """One side in this process, an epoch of ours or the same number of steps of theirs: time and peak memory."""
    data = Materials(args)
    before = resident_mb()
    start = time.perf_counter()
    if args.side == "ours":
        list(our_steps(data.model, data.feed(args, args.max_tokens), data.loss(), args.learning_rate, total(args)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            trainer(data.model, data, args, folder).train()
    seconds = time.perf_counter() - start
    examples = min(total(args) * args.batch, len(data.rows))
    return {"peak_mb": peak_memory_mb(), "loaded_mb": before, "seconds": seconds, "examples": examples}


def growth(args: Any) -> dict[str, Any]:
    """An epoch of ours over 1, 2, 4 and 8 times `--rows`: each in a process of its own."""
    found = {}
    for factor in (1, 2, 4, 8):
        rows = factor * args.rows
        steps = -(-rows // args.batch)
        more = ("--rows", str(rows), "--steps", str(steps), "--rounds", "0", "--test-rows", "0")
        found[str(rows)] = child(__file__, "--side", "ours", *more)
    return found


def budgets(args: Any) -> dict[str, Any]:
    """Seconds of a step of ours with micro-batches of at most so many tokens."""
    data = Materials(args)
    feeds = [data.feed(args, budget) for budget in args.budgets]
    run = our_steps(data.model, InTurn(feeds), data.loss(), args.learning_rate, len(feeds) * args.steps)
    return {"seconds_per_step": time_budgets(run, args.budgets, args.steps)}


def show(args: Any, result: dict[str, Any]) -> str:
    a, b, ratio = result["ours"], result["theirs"], result["ratio"]
    names = {
        "examples_per_second": "examples/s",
        "real_tokens_per_second": "real tokens/s",
        "seconds_per_step": "seconds a step",
        "computed_per_real_token": "tokens computed per real token",
        "utilisation": "model FLOPs utilisation",
    }
    rows = [[f"batch {args.batch}", "tunesmith", f"Trainer, {args.peer}"]]
    rows += [[name, a[key], b[key]] for key, name in names.items()]
    if args.test_rows:
        cells = [f"{s['accuracy']:.3f} [{s['interval'][0]:.3f}, {s['interval'][1]:.3f}]" for s in (a, b)]
        rows.append([f"accuracy on {args.test_rows:,} rows", *cells])
    return "\n".join(
        [
            table(rows),
            "",
            f"examples/s, ours over theirs: {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] "
            f"over {ratio['rounds']} rounds of {args.steps} steps",
            f"machine: {', '.join(f'{one:.0f}' for one in result['machine_gflops'])} GFLOP/s (before, after)",
        ]
    )


def show_growth(found: dict[str, Any]) -> str:
    rows = [["rows", "seconds", "ms an example", "peak MB", "loaded MB"]]
    for count, one in found.items():
        each = 1000 * one["seconds"] / one["examples"]
        rows.append([count, one["seconds"], each, f"{one['peak_mb']:.0f}", f"{one['loaded_mb']:.0f}"])
    return table(rows)


def show_memory(args: Any, found: dict[str, Any]) -> str:
    a, b = found["ours"]["peak_mb"], found["theirs"]["peak_mb"]
    head = [f"batch {args.batch}, MB", "tunesmith", f"Trainer, {args.peer}", "ratio"]
    loaded = ["model loaded", *(f"{found[side]['loaded_mb']:.0f}" for side in ("ours", "theirs")), ""]
    return table([head, ["peak", f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}"], loaded])


def main() -> None:
    args = arguments()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(args.threads)
    if args.side:
        print(json.dumps(alone(args)))
        return
    if args.growth:
        result = growth(args)
        print(show_growth(result))
    elif args.memory:
        result = {side: child(__file__, "--side", side, "--test-rows", "0") for side in ("ours", "theirs")}
        print(show_memory(args, result))
    elif args.budgets:
        result = budgets(args)
        seconds = result["seconds_per_step"]
        print(table([["tokens a micro-batch at most", *seconds], ["seconds a step", *seconds.values()]]))
    else:
        result = side_by_side(args)
        print(show(args, result))
    named = {key: getattr(args, key) for key in ("batch", "peer", "steps", "rounds", "max_tokens", "rows")}
    finish({"settings": named, **result}, args.output)


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv.gz and test_even.csv.gz")
    parser.add_argument("--peer", choices=PEERS, default="padded", help="how Trainer draws its batches")
    parser.add_argument("--rows", type=int, default=3000, help="training rows")
    parser.add_argument("--test-rows", type=int, default=1500, help="test rows; 0 leaves accuracy out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count, after one that warms up")
    parser.add_argument("--max-tokens", type=lambda x: x if x == "auto" else int(x), default="auto")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budgets", type=int, nargs="+", help="time ours with these --max-tokens")
    parser.add_argument("--growth", action="store_true", help="ours over 1, 2, 4 and 8 times --rows")
    parser.add_argument("--memory", action="store_true", help="peak memory of both sides, each in its own process")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
