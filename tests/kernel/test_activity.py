"""What a container's processes do, and that a command which fails at once is never taken for one that runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest

from cells.executor.executor import Executor
from cells.executor.pace import Pace
from cells.executor.plan import HealthPlan, Workload
from cells.garden.garden import Garden
from diego_py.errors import DiegoError, ProcessExited
from diego_py.service.clock import SystemClock
from tests.fakes.cell import executor_of
from tests.kernel.containers import call, every_runtime, shell, start, until_printed
from tests.kernel.images import until
from tests.slowness import patient

pytestmark = pytest.mark.kernel

LOOKS = 200
FAILURES = 50
SIDE_BY_SIDE = 10
WORKLOAD = Workload(health=HealthPlan(start_timeout_s=patient(60.0)))


@pytest.fixture
def load() -> Iterator[None]:
    """Twice as many busy processes as there are processors."""
    busy = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for process in busy:
        process.kill()
        process.wait()


def executor(garden: Garden) -> Executor:
    pace = Pace(settle_s=0.05, startup_interval_max_s=1.0, liveness_interval_s=30.0, graceful_stop_s=1.0)
    return executor_of(garden, SystemClock(), pace)


async def test_a_sleeper_waits_and_a_worker_is_busy(garden: Garden) -> None:
    await start(garden, shell("sleeper", "sleep 1000"))
    await start(garden, shell("worker", "(echo works; while :; do :; done) & sleep 1000"))
    await until_printed(garden, "worker", "works")
    await until(lambda: garden.activity("sleeper") == "waiting")
    assert {garden.activity("worker") for _ in range(LOOKS)} == {"busy"}
    assert garden.activity("nobody") == "ended"


@every_runtime
async def test_before_it_was_executed_and_after_its_end(garden: Garden) -> None:
    await garden.create(call(), shell("a", "exit 0"))
    assert garden.activity("a") == "busy"
    await garden.run(call(), "a")
    await garden.wait("a")
    assert garden.activity("a") == "ended"


@every_runtime
async def test_a_process_that_is_killed_before_it_begins(garden: Garden) -> None:
    await garden.create(call(), shell("a", "exit 0"))
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(garden.stop(call(), "a", 1.0))
        running = group.create_task(_failure(garden.run(call(), "a")))
    assert stopping.result().signal == 9 or running.result() is None


async def test_a_command_that_fails_at_once_never_counts_as_running(garden: Garden, load: None) -> None:
    async def fail(number: int) -> DiegoError | None:
        handle = f"a{number}"
        container = await garden.create(call(), shell(handle, "echo oops; exit 3"))
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failure = await _failure(executor(garden).start(call(), container, WORKLOAD, never))
        await garden.destroy(call(), handle)
        return failure

    for first in range(0, FAILURES, SIDE_BY_SIDE):
        async with asyncio.TaskGroup() as group:
            failing = [group.create_task(fail(number)) for number in range(first, first + SIDE_BY_SIDE)]
        for task in failing:
            failure = task.result()
            assert failure is not None
            assert failure.find(ProcessExited) is not None


async def _failure(work: object) -> DiegoError | None:
    try:
        await work  # type: ignore[misc]
    except DiegoError as failure:
        return failure
    return None
