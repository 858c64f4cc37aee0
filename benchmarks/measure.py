"""Counting the work of a step, what it costs, and how fast two sides were."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]
"""What everything is timed by. CPU seconds of one thread bear a busy machine far better."""


@dataclass(frozen=True)
class Load:
    """What a model has to go through."""

    tokens: int
    pairs: int
    """Of a token and one that it attends to, itself included."""
    heads: int
    """Places at which the output head runs."""


@dataclass(frozen=True)
class Work:
    """Of some steps. needed: by the examples alone; done: with padding, or with shared prefixes computed once."""

    examples: int
    needed: Load
    done: Load


@dataclass(frozen=True)
class Costs:
    """FLOPs of matrix products, forward and backward; nothing is counted for computing something twice."""

    token: int
    pair: int
    head: int

    def of(self, load: Load) -> float:
        return float(self.token * load.tokens + self.pair * load.pairs + self.head * load.heads)


def costs(model: nn.Module, head: Collection[nn.Module]) -> Costs:
    """Forward and the gradient of activations cost 2 a weight each, the gradient of a weight that learns 2 more.

    Attention has two products of 2 a pair, layer and channel, and twice that backward. Tables are looked up, not
    multiplied. head: the modules that run only where something is predicted.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tops = {id(weight) for module in head for weight in module.parameters()}
    price = {id(p): p.numel() * (6 if p.requires_grad else 4) for p in model.parameters() if p.ndim == 2}
    config: Any = model.config
    channels = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return Costs(
        token=sum(value for key, value in price.items() if key not in tables | tops),
        pair=12 * channels * config.num_hidden_layers,
        head=sum(price[key] for key in tops & price.keys()),
    )


def summed(parts: Sequence[Work]) -> Work:
    def loads(each: Sequence[Load]) -> Load:
        return Load(sum(x.tokens for x in each), sum(x.pairs for x in each), sum(x.heads for x in each))

    return Work(sum(x.examples for x in parts), loads([x.needed for x in parts]), loads([x.done for x in parts]))


def machine_rate(size: int = 1024, repeats: int = 15) -> float:
    """FLOP/s of a float32 matrix product, median."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        start = clock()
        a @ b
        times.append(clock() - start)
    return 2 * size**3 / statistics.median(times)


@dataclass(frozen=True)
class Block:
    """A few steps of one side, timed together."""

    seconds: float
    steps: int
    work: Work


@dataclass(frozen=True)
class Round:
    """A block of each side, one right after the other. machine: FLOP/s of matrix products, just before."""

    machine: float
    ours: Block
    theirs: Block


def compare(rounds: Sequence[Round]) -> dict[str, Any]:
    """Ours over theirs, round by round, and of the sums over all rounds."""

    def speed(blocks: Sequence[Block], tokens: bool) -> float:
        done = sum(b.work.needed.tokens if tokens else b.work.examples for b in blocks)
        return done / sum(b.seconds for b in blocks)

    def ratio(some: Sequence[Round], tokens: bool) -> float:
        return speed([r.ours for r in some], tokens) / speed([r.theirs for r in some], tokens)

    return {
        name: {**spread([ratio([r], tokens) for r in rounds]), "of_sums": ratio(rounds, tokens)}
        for name, tokens in (("examples", False), ("tokens", True))
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def rates(blocks: Sequence[Block], machine: Sequence[float], price: Costs) -> dict[str, float]:
    """Medians over the rounds."""

    def middle(value: Callable[[Block], float]) -> float:
        return statistics.median(map(value, blocks))

    def used(load: Callable[[Work], Load]) -> float:
        shares = [price.of(load(b.work)) / b.seconds / rate for b, rate in zip(blocks, machine, strict=True)]
        return statistics.median(shares)

    return {
        "seconds a step": middle(lambda b: b.seconds / b.steps),
        "examples/s": middle(lambda b: b.work.examples / b.seconds),
        "learned/s": middle(lambda b: b.work.needed.heads / b.seconds),
        "real tokens/s": middle(lambda b: b.work.needed.tokens / b.seconds),
        "tokens computed per real token": middle(lambda b: b.work.done.tokens / b.work.needed.tokens),
        "FLOPs done per FLOP needed": middle(lambda b: price.of(b.work.done) / price.of(b.work.needed)),
        "utilisation, FLOPs needed": used(lambda work: work.needed),
        "utilisation, FLOPs done": used(lambda work: work.done),
    }
