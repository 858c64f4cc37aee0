"""The queue before a model: what is accepted is answered once, in order, beside its like, or out before it runs."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tunesmith.serving.queue import Deadline, Join, Limits, Queue, QueuedRequest
from tunesmith.serving.refusal import DeadlineExceeded, QueueClosed, QueueFull


class Model:
    """Doubles its jobs' contents; holds batches until it is let go."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        if not held:
            self.free.set()

    def __call__(self, jobs: Sequence[QueuedRequest], join: Join) -> None:
        self.begun.set()
        assert self.free.wait(10)
        self.batches.append([job.content for job in jobs])
        for job in jobs:
            if job.content == "bad":
                raise ValueError("bad")
            job.finish(2 * job.content)


def queue(
    model: Callable[[Sequence[QueuedRequest], Join], None], size: int = 1000, tokens: int = 10, wait: float = 0.002
) -> Queue:
    return Queue("test", model, Limits(size, tokens, 8, wait))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_every_job_is_answered_once_and_batches_keep_their_limits(given_jobs: list[tuple[int, int]]) -> None:
    async def main() -> None:
        model = Model()
        one = queue(model)
        jobs = [QueuedRequest(number, inputs, tokens) for number, (tokens, inputs) in enumerate(given_jobs)]
        for job in jobs:
            one.submit(job)
        assert await asyncio.gather(*(job.result() for job in jobs)) == [2 * job.content for job in jobs]
        one.close()
        assert sorted(number for batch in model.batches for number in batch) == list(range(len(jobs)))
        for batch in model.batches:
            inside = [given_jobs[number] for number in batch]
            assert len(batch) == 1 or sum(tokens for tokens, _ in inside) <= 10
            assert len(batch) == 1 or sum(inputs for _, inputs in inside) <= 8
            assert [tokens for tokens, _ in inside] == sorted(tokens for tokens, _ in inside)
        order = [number for batch in model.batches for number in sorted(batch)]
        assert order == sorted(order)  # nobody is overtaken by a later batch

    asyncio.run(main())


def test_what_waits_together_is_computed_together() -> None:
    async def main() -> None:
        model = Model(held=True)
        one = queue(model, tokens=100, wait=0)
        jobs = [QueuedRequest(number) for number in range(6)]
        one.submit(jobs[0])
        assert await asyncio.to_thread(model.begun.wait, 20)
        for job in jobs[1:]:
            one.submit(job)
        model.free.set()
        await asyncio.gather(*(job.result() for job in jobs))
        assert model.batches == [[0], [1, 2, 3, 4, 5]]

    asyncio.run(main())


def test_a_model_waits_for_more_unless_that_adds_nothing() -> None:
    """With an hour to wait for others: only a full batch, or the end of the queue, lets several be computed now."""

    async def main() -> None:
        model = Model(held=True)
        one = queue(model, tokens=100, wait=3600)
        jobs = [QueuedRequest(number, inputs=2) for number in range(8)]
        one.submit(jobs[0])  # alone, at once
        assert await asyncio.to_thread(model.begun.wait, 20)
        for job in jobs[1:5]:  # the rows are full
            one.submit(job)
        model.free.set()
        await asyncio.gather(*(job.result() for job in jobs[:5]))
        model.begun.clear()
        for job in jobs[5:]:
            one.submit(job)
        assert not await asyncio.to_thread(model.begun.wait, 0.1)
        one.close()
        await asyncio.gather(*(job.result() for job in jobs[5:]))
        assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_later_requests_join_what_is_being_computed() -> None:
    """Within the rows that the model has free, in order; each is counted when it is finished."""

    async def main() -> None:
        begun, free = threading.Event(), threading.Event()
        joined: list[list[int]] = []
        counted: list[int] = []

        def model(jobs: Sequence[QueuedRequest], join: Join) -> None:
            begun.set()
            assert free.wait(10)
            jobs[0].finish("first")
            for room in (2, 0, 8):
                later = join(room)
                joined.append([job.content for job in later])
                for job in later:
                    job.finish("later")

        one = Queue("test", model, Limits(1000, 100, 8, 0.0), lambda inputs, seconds: counted.append(inputs))
        jobs = [QueuedRequest(number) for number in range(6)]
        one.submit(jobs[0])
        assert await asyncio.to_thread(begun.wait, 20)
        for job in jobs[1:]:
            one.submit(job)
        one.cancel(jobs[3])
        free.set()
        assert await asyncio.gather(*(jobs[number].result() for number in (0, 1, 2, 4, 5))) == ["first", *["later"] * 4]
        one.close()
        assert joined == [[1, 2], [], [4, 5]]
        while sum(counted) < 5:
            await asyncio.sleep(0.01)
        assert counted == [1, 2, 2]
        assert (one.waiting, one.running) == (0, 0)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_client_on_its_own_is_not_kept_waiting() -> None:
    """With an hour to wait for others: only after a batch of several does a single request wait."""

    async def main() -> None:
        model = Model(held=True)
        one = Queue("test", model, Limits(1000, 100, 8, 3600))
        jobs = [QueuedRequest(number, inputs) for number, inputs in enumerate([1, 4, 4, 1])]
        one.submit(jobs[0])
        assert await asyncio.to_thread(model.begun.wait, 20)
        one.submit(jobs[1])
        one.submit(jobs[2])
        model.free.set()
        await asyncio.gather(*(job.result() for job in jobs[:3]))
        model.begun.clear()
        one.submit(jobs[3])
        assert not await asyncio.to_thread(model.begun.wait, 0.1)
        one.close()
        await jobs[3].result()
        assert model.batches == [[0], [1, 2], [3]]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_the_first_request_does_not_wait_for_ever_while_others_keep_coming() -> None:
    async def main() -> None:
        model = Model()
        one = Queue("test", model, Limits(10**6, 10**6, 10**6, 0.05))
        jobs: list[QueuedRequest] = []
        while not model.begun.is_set():
            jobs.append(QueuedRequest(len(jobs)))
            one.submit(jobs[-1])
            await asyncio.sleep(0.01)
        await jobs[0].result()
        one.close()

    asyncio.run(asyncio.wait_for(main(), 60))


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


def test_a_cancelled_request_frees_a_place_and_is_never_computed() -> None:
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
        assert not jobs[0].add("more")
        model.free.set()
        assert [await jobs[2].result(), await last.result()] == [4, 8]
        for job in jobs[:2]:
            with pytest.raises(QueueClosed):
                await job.result()
        assert [number for batch in model.batches for number in batch] == [0, 2, 4]

    asyncio.run(main())


def test_a_late_request_is_refused_and_never_computed() -> None:
    async def main() -> None:
        now = 0.0
        model = Model(held=True)
        one = queue(model)
        one.submit(QueuedRequest(0))
        assert await asyncio.to_thread(model.begun.wait, 20)
        deadline = Deadline(60, clock=lambda: now)
        one.submit(late := QueuedRequest(1, deadline=deadline))
        one.submit(last := QueuedRequest(2))
        assert late.add("piece")
        now = 60.0
        assert not late.add("piece")
        model.free.set()
        assert await last.result() == 4
        with pytest.raises(DeadlineExceeded):
            await late.result()
        assert model.batches == [[0], [2]]

    asyncio.run(main())


def test_a_deadline_cancels_what_is_awaited() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        with pytest.raises(DeadlineExceeded):
            await Deadline.after(0.01).enforce(work())
        assert cancelled.is_set()
        assert await Deadline().enforce(asyncio.sleep(0, "result")) == "result"

    asyncio.run(main())


def test_an_error_belongs_to_its_batch_alone() -> None:
    async def main() -> None:
        one = queue(Model(), wait=0)
        one.submit(bad := QueuedRequest("bad"))
        with pytest.raises(ValueError, match="bad"):
            await bad.result()
        one.submit(good := QueuedRequest(1))
        assert await good.result() == 2
        silent = queue(lambda jobs, join: None)
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
            one.submit(job := QueuedRequest(number, tokens=draw.randint(1, 20)))
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
