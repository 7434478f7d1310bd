"""Ends of tasks are told until a BBS knows them: each again and again, none for another one's sake, none too many."""

from __future__ import annotations

import asyncio
from io import StringIO
from random import Random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from cells.rep.ended import EndedBook
from cells.rep.task_teller import JITTER, PAUSE_MAX_S, PAUSE_MIN_S, TOLD_AT_ONCE_MAX, TaskTeller
from cells.simulated.disk import MemoryDisk
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, TaskGuid
from diego_py.models.task_work import TaskEnd
from diego_py.service.log import logger
from tests.unit.diego_py.service.hand_clock import HandClock

LOG = logger("cell", "cell-1", StringIO())


def end(number: int = 1) -> TaskEnd:
    return TaskEnd(
        task_guid=TaskGuid(f"job-{number}"),
        domain=Domain("shop"),
        instance_guid=InstanceGuid(f"i-{number}"),
        cell_id=CellId("cell-1"),
        claim_id="claim-1",
        started=True,
        failed=False,
    )


@define
class Listening:
    """A BBS that takes ends, but those in `deaf`."""

    told: list[str] = field(factory=list)
    deaf: set[str] = field(factory=set)
    hold: asyncio.Event | None = None
    at_once: int = 0
    at_once_most: int = 0
    crowded: asyncio.Event = field(factory=asyncio.Event)
    """As many as may be are told at once."""

    async def task_ended(self, call: Call, end: TaskEnd) -> None:
        self.told.append(end.instance_guid)
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        if self.at_once >= TOLD_AT_ONCE_MAX:
            self.crowded.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
            if end.instance_guid in self.deaf:
                raise DiegoError("broken")
        finally:
            self.at_once -= 1


@define
class Stage:
    """A teller, and all that it has to do with."""

    book: EndedBook[TaskEnd]
    bbs: Listening
    clock: HandClock
    teller: TaskTeller

    async def add(self, *numbers: int, after_s: float = 0.0) -> None:
        for number in numbers:
            await self.book.add(end(number))
            self.teller.tell(InstanceGuid(f"i-{number}"), after_s)


def staged(seed: int = 1) -> Stage:
    book = EndedBook(TaskEnd, MemoryDisk(), LOG)
    bbs, clock = Listening(), HandClock()
    return Stage(book, bbs, clock, TaskTeller(book, bbs, clock, Random(seed), LOG))  # type: ignore[arg-type]


@pytest.fixture
def stage() -> Stage:
    return staged()


async def test_what_is_told_is_forgotten(stage: Stage) -> None:
    await stage.add(1, 2)
    await stage.teller.round()
    assert sorted(stage.bbs.told) == ["i-1", "i-2"]
    assert len(stage.book) == 0


async def test_only_what_is_due_is_told(stage: Stage) -> None:
    await stage.add(1)
    await stage.add(2, after_s=5.0)
    await stage.teller.round()
    assert stage.bbs.told == ["i-1"]
    stage.clock.pass_ms(5_000)
    await stage.teller.round()
    assert stage.bbs.told == ["i-1", "i-2"]


async def test_it_waits_for_something_to_tell(stage: Stage) -> None:
    """Also while the next one is due only later."""
    await stage.add(1, after_s=1_000.0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(stage.teller.round())
        await asyncio.sleep(0)
        assert not waiting.done()
        await stage.add(2)
    assert stage.bbs.told == ["i-2"]


async def test_what_is_no_longer_in_the_book_is_not_told(stage: Stage) -> None:
    """The answer to a report acknowledged it meanwhile."""
    await stage.add(1, 2)
    await stage.book.acknowledge([InstanceGuid("i-1")])
    await stage.teller.round()
    assert stage.bbs.told == ["i-2"]


async def test_who_does_not_listen_holds_up_nobody(stage: Stage) -> None:
    stage.bbs.deaf = {"i-1"}
    await stage.add(1, 2, 3)
    await stage.teller.round()
    assert [kept.instance_guid for kept in stage.book.all()] == ["i-1"]
    await stage.add(4)
    await stage.teller.round()
    assert stage.bbs.told.count("i-1") == 1, "not again before its pause is over"
    assert len(stage.book) == 1


@given(seed=st.integers(0, 2**32), failures=st.integers(1, 14))
async def test_pauses_grow_to_a_limit_and_are_never_the_same_for_all(seed: int, failures: int) -> None:
    stage = staged(seed)
    stage.bbs.deaf = {"i-1"}
    await stage.add(1)
    for number in range(1, failures + 1):
        before_s = stage.clock.monotonic()
        await stage.teller.round()
        pause_s = stage.teller._due[InstanceGuid("i-1")].at_s - before_s
        meant_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0**number)
        assert meant_s * (1 - JITTER) <= pause_s <= meant_s * (1 + JITTER)
        stage.clock.seconds += pause_s
    assert len(stage.bbs.told) == failures
    stage.bbs.deaf = set()
    await stage.teller.round()
    assert len(stage.book) == 0


async def test_few_at_once(stage: Stage) -> None:
    stage.bbs.hold = asyncio.Event()
    await stage.add(*range(3 * TOLD_AT_ONCE_MAX))
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.teller.round())
        await stage.bbs.crowded.wait()
        stage.bbs.hold.set()
    assert stage.bbs.at_once_most == TOLD_AT_ONCE_MAX
    assert len(stage.book) == 0


async def test_one_cancelled_while_it_waits_ends(stage: Stage) -> None:
    """The loop that calls it is stopped so; that is no timeout of its own."""
    await stage.add(1, after_s=1_000.0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(stage.teller.round())
        await asyncio.sleep(0)
        waiting.cancel()
    assert waiting.cancelled()
    assert len(stage.book) == 1
