"""Calls that may take for ever: each has a thread, and threads are taken again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cells.garden.threads import IDLE_MAX, Threads, Workers
from diego_py.errors import ContainerStuck
from tests.chain.awaited import until_true

PATIENCE_S = 60.0
AT_ONCE_S = 0.001


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.close()


async def test_what_it_answers_and_raises_is_the_callers(workers: Workers) -> None:
    threads = Threads(workers)
    assert await threads.run(PATIENCE_S, "divide", divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(PATIENCE_S, "divide", divmod, 7, 0)
    assert not threads.busy


async def test_a_thread_whose_call_has_ended_takes_the_next_one(workers: Workers) -> None:
    threads = Threads(workers)
    idents = {await threads.run(PATIENCE_S, "look", threading.get_ident) for _ in range(5)}
    assert len(idents) == 1
    assert idents != {threading.get_ident()}


async def test_one_that_does_not_come_back_holds_up_its_own_container_alone(workers: Workers) -> None:
    stuck, other, answer = Threads(workers), Threads(workers), threading.Event()
    with pytest.raises(ContainerStuck) as told:
        await stuck.run(AT_ONCE_S, "wait for a server", answer.wait)
    assert (told.value.evidence or {})["waiting"][0]["what"] == "wait for a server"
    await until_true("its thread is at it", lambda: "wait for a server" in _names())
    with pytest.raises(ContainerStuck):
        await stuck.run(AT_ONCE_S, "wait for the one before", divmod, 7, 2)
    assert await other.run(PATIENCE_S, "divide", divmod, 7, 2) == (3, 1)
    answer.set()
    assert await stuck.run(PATIENCE_S, "divide", divmod, 7, 2) == (3, 1)
    assert "wait for a server" not in _names()


async def test_few_threads_are_kept_whatever_there_was_to_do_at_once(workers: Workers) -> None:
    before, all_there = threading.enumerate(), threading.Barrier(2 * IDLE_MAX + 1)
    async with asyncio.TaskGroup() as calls:
        for _ in range(2 * IDLE_MAX):
            calls.create_task(Threads(workers).run(PATIENCE_S, "meet", all_there.wait))
        await asyncio.to_thread(all_there.wait)
    await _until_left(before, IDLE_MAX)
    workers.close()
    await _until_left(before, 0)


async def test_a_call_that_ends_after_the_last_one_leaves_no_thread(workers: Workers) -> None:
    before, answer = threading.enumerate(), threading.Event()
    threads = Threads(workers)
    with pytest.raises(ContainerStuck):
        await threads.run(AT_ONCE_S, "wait", answer.wait)
    workers.close()
    answer.set()
    await threads.none(PATIENCE_S)
    await _until_left(before, 0)


def _names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def _until_left(before: list[threading.Thread], count: int) -> None:
    """Wait until so many threads are left of those that were begun since, but for those of the loop's pool."""

    def is_so() -> bool:
        begun = {*threading.enumerate()} - {*before}
        return sum(not thread.name.startswith("asyncio_") for thread in begun) == count

    await until_true(f"{count} threads are left", is_so)
