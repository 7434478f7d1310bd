"""A whole cell in the test's own process: everything real but garden and the BBS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cells.app import Cell, build
from cells.config import CellConfig
from cells.executor.checks.prober import Prober
from cells.executor.executor import Executor
from cells.executor.health import Health
from cells.executor.pace import Pace
from cells.executor.plan import Plan
from cells.executor.programs import Programs
from cells.executor.transfers.settings import TransferSettings
from cells.executor.transfers.transfers import Transfers
from cells.garden.images.unpack import UnpackLimits
from cells.rep.blueprint import blueprint_of
from diego_py.call import Call
from diego_py.clients.cell import CellClient
from diego_py.errors import DiegoError
from diego_py.http.client import HopClient
from diego_py.models.actions import Action, EnvironmentVariable, RunAction
from diego_py.models.checks import Check, CheckDefinition
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import Domain, InstanceGuid, TaskGuid
from diego_py.models.task import TaskDefinition
from diego_py.models.task_work import TaskWork
from diego_py.models.work import Work
from diego_py.secret import Secret
from diego_py.service.clock import Clock, SystemClock
from diego_py.service.log import logger
from diego_py.service.run import OwnedTasks
from tests.fakes.bbs import FakeBBS
from tests.fakes.garden import FakeGarden

CELL_ID = "cell-1"
SLEEP = "sleep 1000"


def config(state_dir: Path, *urls: str, **changes: Any) -> CellConfig:
    """Small, quick settings."""
    settings = CellConfig(
        cell_id=CELL_ID,
        zone="z1",
        listen_port=0,
        bbs_urls=urls,
        state_dir=str(state_dir),
        image_root=str(state_dir / "images"),
        memory_mb=1024,
        disk_mb=1024,
        containers_max=4,
        report_interval_s=60.0,
        graceful_stop_s=0.2,
        default_start_timeout_s=5.0,
        settle_ms=1,
        stop_grace_s=2.0,
    )
    return evolve(settings, **changes)



def plan_of(work: Work, start_timeout_default_s: float) -> Plan:
    """What a cell makes of it."""
    return blueprint_of(work.definition, start_timeout_default_s).plan(work)


@asynccontextmanager
async def running_cell(
    state_dir: Path, garden: FakeGarden, bbs: FakeBBS, log: StringIO | None = None, **changes: Any
) -> AsyncIterator[Cell]:
    """A started cell whose first report the BBS has taken."""
    settings = config(state_dir, bbs.url, **changes)
    cell = build(settings, garden, SystemClock(), logger("cell", CELL_ID, log or StringIO()))
    async with AsyncExitStack() as parts:
        for part in cell.parts:
            parts.push_async_callback(part.stop)
            await part.start()
        if bbs.report_refusal is None:
            await cell.sync.report()
        yield cell


def executor_of(
    garden: FakeGarden, clock: Clock, pace: Pace, settings: TransferSettings | None = None
) -> Executor:
    """An executor of its own. What it has under way ends with the loop of the test."""
    owned = OwnedTasks(logger("cell", CELL_ID, StringIO()), grace_s=0.0)
    transfers = Transfers(garden, settings or TransferSettings(directory=Path("/nowhere")), UnpackLimits(), clock)
    return Executor(
        cell_id=CELL_ID,
        garden=garden,
        health=Health(garden, Prober(garden), clock, pace),
        programs=Programs(garden, transfers, clock, pace.graceful_stop_s, owned),
        clock=clock,
        pace=pace,
    )


def url_of(cell: Cell) -> str:
    return f"http://127.0.0.1:{cell.listener.port}"


@asynccontextmanager
async def client_of() -> AsyncIterator[CellClient]:
    http = HopClient()
    try:
        yield CellClient(http)
    finally:
        await http.close()


def work(
    guid: str = "i-1",
    script: str = SLEEP,
    process_guid: str = "web",
    index: int = 0,
    checks: tuple[Check, ...] = (),
    epoch: int = 0,
    **changes: Any,
) -> Work:
    """One instance of a shell script."""
    action = Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root"))
    definition = DesiredLRPDefinition(
        process_guid=process_guid,
        domain="shop",
        environment_variables=(EnvironmentVariable(name="TOKEN", value=Secret("canary-secret")),),
        check_definition=CheckDefinition(checks=checks) if checks else None,
        **{"rootfs": "preloaded:base", "action": action, "memory_mb": 128, "disk_mb": 0, **changes},
    )
    return Work(
        process_guid=process_guid, index=index, domain="shop", instance_guid=guid, definition=definition, epoch=epoch
    )


def task_work(guid: str = "i-1", script: str = SLEEP, task_guid: str = "job", **changes: Any) -> TaskWork:
    """One attempt at a task that is a shell script."""
    action = Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root"))
    definition = TaskDefinition(
        environment_variables=(EnvironmentVariable(name="TOKEN", value=Secret("canary-secret")),),
        **{"rootfs": "preloaded:base", "action": action, "memory_mb": 128, "disk_mb": 0, **changes},
    )
    return TaskWork(
        task_guid=TaskGuid(task_guid), domain=Domain("shop"), instance_guid=InstanceGuid(guid), definition=definition
    )


def call(budget_ms: float = 10_000) -> Call:
    return Call.begin(SystemClock(), budget_ms)


async def failed_task(cell: Cell, guid: str = "i-1", script: str = SLEEP, **of_work: Any) -> DiegoError:
    """How running this task fails."""
    with pytest.raises(DiegoError) as caught:
        await cell.task_work.run_task(call(), task_work(guid, script, **of_work))
    return caught.value


async def failed(cell: Cell, **of_work: Any) -> DiegoError:
    """How running this work fails."""
    with pytest.raises(DiegoError) as caught:
        await cell.work.run_instance(call(), work(**of_work))
    return caught.value
