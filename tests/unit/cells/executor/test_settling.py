"""When a process without a check counts as running: it has gone to sleep, or was busy for the settle time."""

from __future__ import annotations

import asyncio

import pytest
from attrs import define

from cells.executor.executor import Executor
from cells.executor.health import SETTLE_PATIENCE
from cells.executor.pace import Pace
from cells.executor.plan import HealthPlan, Workload
from cells.garden.spec import Container, ContainerSpec
from diego_py.errors import DiegoError, ProcessExited
from diego_py.service.clock import SystemClock
from tests.fakes.cell import SLEEP, call, executor_of
from tests.fakes.garden import FakeGarden

SETTLE_S = 1.0


@define
class JumpingClock(SystemClock):
    """Every sleep is over at once, and everybody else had their turn."""

    slept_s: float = 0.0

    def monotonic(self) -> float:
        return self.slept_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        await asyncio.sleep(0)


async def started(garden: FakeGarden, script: str = SLEEP) -> tuple[Executor, Container, JumpingClock]:
    clock = JumpingClock()
    garden.clock = clock
    pace = Pace(settle_s=SETTLE_S, startup_interval_max_s=1.0, liveness_interval_s=1.0, graceful_stop_s=1.0)
    container = await garden.create(call(), ContainerSpec("h", "preloaded:base", "/bin/sh", ("-c", script)))
    return executor_of(garden, clock, pace), container, clock


def start(executor: Executor, container: Container) -> asyncio.Future[None]:
    workload = Workload(health=HealthPlan(start_timeout_s=60.0))
    return asyncio.ensure_future(executor.start(call(), container, workload, asyncio.Future()))  # noqa: TID251


async def test_one_that_waits_is_running_at_once() -> None:
    executor, container, clock = await started(FakeGarden())
    await start(executor, container)
    assert clock.slept_s == 0


async def test_one_that_is_busy_is_running_after_the_settle_time() -> None:
    executor, container, clock = await started(FakeGarden(activities={"h": "busy"}))
    await start(executor, container)
    assert clock.slept_s == pytest.approx(SETTLE_S, abs=0.1)


async def test_one_that_gets_no_processor_has_longer() -> None:
    executor, container, clock = await started(FakeGarden(activities={"h": "busy"}, starved={"h"}))
    await start(executor, container)
    assert clock.slept_s == pytest.approx(SETTLE_PATIENCE * SETTLE_S, abs=0.1)


async def test_one_that_goes_to_sleep_is_running_then() -> None:
    garden = FakeGarden(activities={"h": "busy"})
    executor, container, clock = await started(garden)
    starting = start(executor, container)
    await garden.called("run")
    await asyncio.sleep(0)
    garden.activities["h"] = "waiting"
    await starting
    assert clock.slept_s < SETTLE_S


async def test_one_that_ended_is_never_running_however_late_its_end_is_told() -> None:
    garden = FakeGarden()
    executor, container, clock = await started(garden)
    garden.activities["h"] = "ended"
    starting = start(executor, container)
    while clock.slept_s <= 2 * SETTLE_S and not starting.done():  # noqa: ASYNC110 - it is this clock that is awaited
        await asyncio.sleep(0)
    assert not starting.done()
    garden.end("h", 3)
    with pytest.raises(DiegoError) as failed:
        await starting
    assert failed.value.find(ProcessExited) is not None
