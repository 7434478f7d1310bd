"""Work outlives who waits for it, loops outlive failures but not defects, and parts end in reverse order."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import pytest
import structlog
from attrs import define, field

from diego_py.errors import DatabaseUnavailable, RepairFailed, ShuttingDown
from diego_py.service.log import logger
from diego_py.service.run import Loop, OwnedTasks, Process


@pytest.fixture
def written() -> StringIO:
    return StringIO()


@pytest.fixture
def log(written: StringIO) -> structlog.stdlib.BoundLogger:
    return logger("bbs", "bbs-1", written)


def events(written: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


@define
class Work:
    """Waits to be let go on, and says how it ended."""

    began: asyncio.Event = field(factory=asyncio.Event)
    go_on: asyncio.Event = field(factory=asyncio.Event)
    done: bool = False
    undone: bool = False

    async def run(self) -> str:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.undone = True
            raise
        self.done = True
        return "result"


# Owned tasks.


async def test_finish_gives_the_result(log: structlog.stdlib.BoundLogger) -> None:
    tasks, work = OwnedTasks(log), Work()
    await tasks.start()
    work.go_on.set()
    assert await tasks.finish(work.run(), "work") == "result"


async def test_work_goes_on_when_its_waiter_is_cancelled(log: structlog.stdlib.BoundLogger) -> None:
    tasks, work = OwnedTasks(log), Work()
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(tasks.finish(work.run(), "work"))
        await work.began.wait()
        waiter.cancel()
        await asyncio.wait([waiter])
    assert waiter.cancelled()
    assert not work.undone
    work.go_on.set()
    await tasks.stop()
    assert work.done


async def test_stop_waits_for_what_is_under_way(log: structlog.stdlib.BoundLogger) -> None:
    tasks, work = OwnedTasks(log, grace_s=30), Work()
    task = tasks.begin(work.run(), "work")
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(tasks.stop())
        await work.began.wait()
        assert not stopping.done()
        work.go_on.set()
    assert task.result() == "result"


async def test_stop_cancels_what_outlives_the_grace_time_and_waits_for_its_undoing(
    log: structlog.stdlib.BoundLogger,
) -> None:
    tasks, work = OwnedTasks(log, grace_s=0), Work()
    task = tasks.begin(work.run(), "work")
    await work.began.wait()
    await tasks.stop()
    assert task.cancelled()
    assert work.undone


async def test_nothing_begins_once_stopping_began(log: structlog.stdlib.BoundLogger) -> None:
    tasks = OwnedTasks(log)
    await tasks.stop()
    with pytest.raises(ShuttingDown, match="desire web: this process is stopping") as caught:
        tasks.begin(Work().run(), "desire web")
    assert caught.value.retry_after_s == 1.0


async def test_a_defect_that_nobody_waits_for_is_logged(log: structlog.stdlib.BoundLogger, written: StringIO) -> None:
    tasks = OwnedTasks(log)

    async def raising(error: Exception) -> None:
        raise error

    tasks.begin(raising(KeyError("k")), "defect")
    tasks.begin(raising(RepairFailed("stored elsewhere")), "failure")
    await tasks.stop()
    (event,) = events(written)
    assert (event["event"], event["task"], event["level"]) == ("owned_task_defect", "defect", "error")
    assert "KeyError" in event["exception"]


# Loops.


async def test_a_loop_survives_failures_and_stops_the_process_at_a_defect(
    log: structlog.stdlib.BoundLogger, written: StringIO
) -> None:
    process = Process(log)
    outcomes: list[Exception | None] = [None, DatabaseUnavailable("read"), RepairFailed("repair"), KeyError("defect")]
    rounds: list[Exception | None] = []

    async def round() -> None:
        rounds.append(outcomes[len(rounds)])
        if rounds[-1] is not None:
            raise rounds[-1]

    loop = Loop("convergence", round, log, process.defect)
    await loop.start()
    await process.stopping.wait()
    assert rounds == outcomes
    assert process.failed
    assert [(event["event"], event.get("code")) for event in events(written)] == [
        ("loop_round_failed", "database_unavailable"),
        ("loop_round_failed", "bbs.repair_failed"),
        ("loop_defect", None),
    ]
    await loop.stop()


async def test_a_stopped_loop_ends_in_the_middle_of_its_round(log: structlog.stdlib.BoundLogger) -> None:
    work = Work()
    loop = Loop("convergence", _ignoring(work.run), log)
    await loop.start()
    await work.began.wait()
    await loop.stop()
    await loop.stop()
    assert work.undone
    assert not work.done


def _ignoring(work: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[None]]:
    async def round() -> None:
        await work()

    return round


# Processes.


@define
class Recorded:
    """A part that writes down what happens to it."""

    name: str
    story: list[str]
    start_error: Exception | None = None
    stop_error: Exception | None = None

    async def start(self) -> None:
        self.story.append(f"start {self.name}")
        if self.start_error is not None:
            raise self.start_error

    async def stop(self) -> None:
        self.story.append(f"stop {self.name}")
        if self.stop_error is not None:
            raise self.stop_error


async def test_parts_start_in_order_and_stop_in_reverse(log: structlog.stdlib.BoundLogger, written: StringIO) -> None:
    story: list[str] = []
    process = Process(log)

    def ready() -> None:
        story.append("ready")
        process.stopping.set()

    status = await process.run([Recorded("database", story), Recorded("listener", story)], ready)
    assert status == 0
    assert story == ["start database", "start listener", "ready", "stop listener", "stop database"]
    assert [event["event"] for event in events(written)] == ["ready", "stopping", "stopped"]


async def test_a_defect_ends_the_process_with_status_1(log: structlog.stdlib.BoundLogger) -> None:
    process = Process(log)
    story: list[str] = []
    assert await process.run([Recorded("a", story)], process.defect) == 1
    assert story == ["start a", "stop a"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process(log: structlog.stdlib.BoundLogger, number: signal.Signals) -> None:
    process = Process(log)
    story: list[str] = []
    assert await process.run([Recorded("a", story)], lambda: os.kill(os.getpid(), number)) == 0
    assert story == ["start a", "stop a"]


async def test_what_was_started_is_stopped_when_a_later_part_does_not_start(
    log: structlog.stdlib.BoundLogger, written: StringIO
) -> None:
    story: list[str] = []
    parts = [Recorded("a", story), Recorded("b", story, start_error=OSError("address in use")), Recorded("c", story)]
    with pytest.raises(OSError, match="address in use"):
        await Process(log).run(parts)
    assert story == ["start a", "start b", "stop b", "stop a"]
    told = [(event["event"], event["part"], event["detail"]) for event in events(written)]
    assert told == [("cannot_start", "Recorded", "address in use")]


async def test_a_part_that_does_not_stop_well_keeps_no_other_from_it(log: structlog.stdlib.BoundLogger) -> None:
    story: list[str] = []
    process = Process(log)
    parts = [Recorded("a", story), Recorded("b", story, stop_error=OSError("stuck"))]
    with pytest.raises(OSError, match="stuck"):
        await process.run(parts, process.stopping.set)
    assert story[-2:] == ["stop b", "stop a"]
