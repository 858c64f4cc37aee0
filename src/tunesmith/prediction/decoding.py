"""Generation token by token, for many prompts at once: the loop behind `generate`.

A waiting prompt takes the place of an answer that has ended, so that no answer waits for its neighbours (continuous
batching; Yu et al. 2022, Orca), and prompts that start together compute their common beginnings once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from tunesmith.models import onednn_linear
from tunesmith.models.generation_cache import GenerationCache
from tunesmith.prediction.sampling import GenerationRow, choose_tokens

REFILL = 4
"""Prompts start when a quarter of the places is free: together they share beginnings, and fill the processor."""
Take = Callable[[int], Sequence[GenerationRow]]
"""Receives the number of free places, and returns as many rows or fewer to start with."""


def decode(
    cache: GenerationCache, take: Take, ends: Callable[[GenerationRow], bool], places: int
) -> Iterator[GenerationRow]:
    """Generate answers, and yield each row when its answer has ended.

    cache: empty. take: called between any two tokens; generation ends when nothing is under way and it returns nothing.
    ends: called for every token, which is the last one of `row.answer`. places: answers under way at once.
    """
    with torch.inference_mode(), onednn_linear.enabled():
        rows: list[GenerationRow] = []
        tokens: list[int] = []
        while True:
            first = len(rows)
            if new := take(places - first):
                rows += new
                tokens += choose_tokens(new, cache.start([row.prompt for row in new]))
            elif rows:
                first, tokens = 0, choose_tokens(rows, cache.advance(tokens))
            else:
                return
            for row, token in zip(rows[first:], tokens[first:], strict=True):
                row.answer.append(token)
            ended = {i for i in range(first, len(rows)) if ends(rows[i])}
            yield from (rows[i] for i in sorted(ended))
            if ended:
                kept = [i for i in range(len(rows)) if i not in ended]
                order = cache.keep(kept)
                rows, tokens = [rows[i] for i in order], [tokens[i] for i in order]


def queue(rows: Sequence[GenerationRow], places: int) -> Take:
    """Return a `Take` of all these rows; those whose prompts begin alike start together."""
    waiting = deque(sorted(rows, key=lambda row: row.prompt))

    def take(free: int) -> list[GenerationRow]:
        if free < min(len(waiting), -(-places // REFILL)):
            return []
        return [waiting.popleft() for _ in range(min(free, len(waiting)))]

    return take
