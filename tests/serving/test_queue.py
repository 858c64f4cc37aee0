"""The queue before a model: what is accepted is answered once, in order, beside its like, or out before it runs."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tunesmith.serving.queue import DeadlineExceeded, Limits, Queue, QueueClosed, QueuedRequest, QueueFull


class Model:
    """Doubles its jobs' contents; holds batches until it is let go."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        if not held:
            self.free.set()

    def __call__(self, jobs: Sequence[QueuedRequest]) -> None:
        self.begun.set()
        assert self.free.wait(10)
        self.batches.append([job.content for job in jobs])
        for job in jobs:
            if job.content == "bad":
                raise ValueError("bad")
            job.finish(2 * job.content)


def queue(
    model: Callable[[Sequence[QueuedRequest]], None], size: int = 1000, tokens: int = 10, wait: float = 0.002
) -> Queue:
    return Queue("test", model, Limits(size, tokens, 8, wait))


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from("xy"), st.integers(1, 3)), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_every_job_is_answered_once_and_batches_keep_their_limits(given_jobs: list[tuple[int, str, int]]) -> None:
    async def main() -> None:
        model = Model()
        one = queue(model)
        jobs = [
            QueuedRequest(number, inputs, tokens, kind=kind) for number, (tokens, kind, inputs) in enumerate(given_jobs)
        ]
        for job in jobs:
            one.submit(job)
        assert await asyncio.gather(*(job.result() for job in jobs)) == [2 * job.content for job in jobs]
        one.close()
        assert sorted(number for batch in model.batches for number in batch) == list(range(len(jobs)))
        for batch in model.batches:
            inside = [given_jobs[number] for number in batch]
            assert len({kind for _, kind, _ in inside}) == 1
            assert len(batch) == 1 or sum(tokens for tokens, _, _ in inside) <= 10
            assert len(batch) == 1 or sum(inputs for *_, inputs in inside) <= 8
            assert [tokens for tokens, *_ in inside] == sorted(tokens for tokens, *_ in inside)
        for kind in "xy":  # of one kind nobody is overtaken by a later batch
            order = [sorted(batch) for batch in model.batches if given_jobs[batch[0]][1] == kind]
            assert [number for batch in order for number in batch] == sorted(n for batch in order for n in batch)

    asyncio.run(main())


def test_what_waits_together_is_computed_together_and_nobody_waits_longer_than_that() -> None:
    async def main() -> None:
        model = Model()
        one = queue(model, tokens=100, wait=0.2)
        start = time.monotonic()
        jobs = [QueuedRequest(number) for number in range(5)]
        for job in jobs:
            one.submit(job)
            await asyncio.sleep(0.01)
        await asyncio.gather(*(job.result() for job in jobs))
        assert 0.2 <= time.monotonic() - start < 1
        assert model.batches == [[0, 1, 2, 3, 4]]
        one = queue(model, tokens=100, wait=0.03)
        start = time.monotonic()
        one.submit(
            first := QueuedRequest(0, kind="steady")
        )  # others keep coming, but the first waits no longer than that
        more = asyncio.create_task(keep_coming(one))
        await first.result()
        assert 0.03 <= time.monotonic() - start < 0.6
        more.cancel()
        one = queue(model, tokens=100, wait=0.2)
        start = time.monotonic()
        jobs = [QueuedRequest(number, inputs=2) for number in range(4)]  # the rows are full: no reason to wait
        for job in jobs:
            one.submit(job)
        await asyncio.gather(*(job.result() for job in jobs))
        assert time.monotonic() - start < 0.15

    asyncio.run(main())


async def keep_coming(one: Queue) -> None:
    """A job every ten milliseconds."""
    while True:
        one.submit(QueuedRequest(1, kind="steady"))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("more", [1, 3, 10])
def test_a_full_queue_refuses_exactly_what_is_too_much(more: int) -> None:
    """With K waiting and one being computed, of K + 1 + m exactly m are refused."""

    async def main() -> None:
        model = Model(held=True)
        one = queue(model, size=4)
        first = QueuedRequest(0)
        one.submit(first)
        assert await asyncio.to_thread(model.begun.wait, 5)
        refused, jobs, waits = 0, [first], []
        for number in range(1, 5 + more):
            try:
                one.submit(job := QueuedRequest(number))
                jobs.append(job)
            except QueueFull as full:
                refused += 1
                waits.append(full.retry)
        assert (refused, one.waiting, one.running) == (more, 4, 1)
        assert min(waits) >= 1
        model.free.set()
        assert await asyncio.gather(*(job.result() for job in jobs)) == [2 * job.content for job in jobs]

    asyncio.run(main())


def test_who_leaves_frees_a_place_and_is_never_computed() -> None:
    async def main() -> None:
        model = Model(held=True)
        one = queue(model, size=2)
        jobs = [QueuedRequest(number) for number in range(3)]
        one.submit(jobs[0])
        assert await asyncio.to_thread(model.begun.wait, 5)
        one.submit(jobs[1])
        one.submit(jobs[2])
        with pytest.raises(QueueFull):
            one.submit(QueuedRequest(3))
        one.cancel(jobs[1])
        one.submit(last := QueuedRequest(4))
        one.cancel(jobs[0])
        assert (one.waiting, one.running) == (2, 0)
        assert not jobs[0].tell("more")
        model.free.set()
        assert [await jobs[2].result(), await last.result()] == [4, 8]
        for job in jobs[:2]:
            with pytest.raises(QueueClosed):
                await job.result()
        assert [number for batch in model.batches for number in batch] == [0, 2, 4]

    asyncio.run(main())


def test_who_waits_too_long_is_told_and_never_computed() -> None:
    async def main() -> None:
        model = Model(held=True)
        one = queue(model)
        one.submit(QueuedRequest(0))
        assert await asyncio.to_thread(model.begun.wait, 5)
        one.submit(late := QueuedRequest(1, deadline=time.monotonic() + 0.05))
        one.submit(last := QueuedRequest(2))
        await asyncio.sleep(0.1)
        model.free.set()
        with pytest.raises(DeadlineExceeded):
            await late.result()
        assert await last.result() == 4
        assert model.batches == [[0], [2]]
        assert not QueuedRequest(3, deadline=time.monotonic() - 1).tell("piece")

    asyncio.run(main())


def test_an_error_belongs_to_its_batch_alone() -> None:
    async def main() -> None:
        one = queue(Model(), wait=0)
        one.submit(bad := QueuedRequest("bad"))
        with pytest.raises(ValueError, match="bad"):
            await bad.result()
        one.submit(good := QueuedRequest(1))
        assert await good.result() == 2
        silent = queue(lambda jobs: None)
        silent.submit(forgotten := QueuedRequest(1))
        with pytest.raises(RuntimeError, match="no result"):
            await forgotten.result()

    asyncio.run(main())


def test_a_closed_queue_finishes_what_it_has() -> None:
    async def main() -> None:
        model = Model(held=True)
        one = queue(model, wait=5)
        jobs = [QueuedRequest(number, tokens=6) for number in range(4)]
        for job in jobs:
            one.submit(job)
        one.close()
        with pytest.raises(QueueClosed):
            one.submit(QueuedRequest(9))
        model.free.set()
        assert await asyncio.gather(*(job.result() for job in jobs)) == [0, 2, 4, 6]

    asyncio.run(main())


def test_many_come_and_go_and_nothing_is_lost() -> None:
    """2,000 jobs of which a third are given up at random moments: the others all come back right, once."""

    async def main() -> None:
        draw = random.Random(0)
        model = Model()
        one = queue(model, size=10**6, tokens=50)
        answered = gone = 0

        async def client(number: int) -> None:
            nonlocal answered, gone
            await asyncio.sleep(draw.random() / 5)
            one.submit(job := QueuedRequest(number, tokens=draw.randint(1, 20), kind=draw.choice("xy")))
            if draw.random() < 0.33:
                await asyncio.sleep(draw.random() / 50)
                one.cancel(job)
                gone += 1
                return
            assert await job.result() == 2 * number
            answered += 1

        await asyncio.gather(*(client(number) for number in range(2000)))
        assert answered + gone == 2000
        computed = [number for batch in model.batches for number in batch]
        assert len(computed) == len(set(computed)) >= answered
        assert (one.waiting, one.running) == (0, 0)

    asyncio.run(main())
