"""An action that succeeds while something asks how the instance is: it went to the background, as in Diego."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cells.app import Cell
from diego_py import chain
from diego_py.errors import BecameUnhealthy, DiegoError, ProcessExited
from diego_py.models.actions import Action, ParallelAction, RunAction
from diego_py.models.checks import Check, CommandCheck, TCPCheck
from diego_py.models.desired_lrp import Sidecar
from diego_py.models.work import CellReport, InstanceState
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import SLEEP, call, running_cell, work
from tests.fakes.garden import FakeGarden

LOOK_S = 0.02


def sh(script: str) -> Action:
    return Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root"))


GOOD = sh("exit 0")


@pytest.fixture
async def cell(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> AsyncIterator[Cell]:
    async with running_cell(tmp_path, garden, bbs, healthy_interval_s=LOOK_S) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[asyncio.Server]:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield listening
    listening.close()


def check_of(server: asyncio.Server) -> Check:
    return Check(tcp=TCPCheck(port=server.sockets[0].getsockname()[1], interval_ms=int(LOOK_S * 1000)))


def state(cell: Cell) -> InstanceState:
    (instance,) = cell.work.books.instances
    return instance.state


async def told(bbs: FakeBBS) -> DiegoError:
    report: CellReport = await bbs.report_with(lambda report: bool(report.ended))
    return chain.rebuild(report.ended[0].failure)  # type: ignore[return-value]


async def test_a_monitor_keeps_several_up_until_it_fails(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    both = Action(parallel=ParallelAction(actions=(GOOD, GOOD)))
    await cell.work.run_instance(call(), work(action=both, monitor=GOOD))
    await garden.called("launch", 6)
    assert state(cell) is InstanceState.RUNNING
    garden.failures["launch"] = ProcessExited("exited with status 1")
    failure = await told(bbs)
    assert isinstance(failure.root, BecameUnhealthy)
    assert failure.root.evidence is not None
    assert failure.root.evidence["check"]["kind"] == "monitor"


async def test_the_failure_of_what_is_monitored_is_its_end(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.work.run_instance(call(), work(monitor=GOOD))
    garden.end("i-1", 3)
    failure = await told(bbs)
    assert isinstance(failure.root, ProcessExited)
    assert failure.root.message == "exited with status 3"


async def test_what_a_monitored_process_left_keeps_it_up_also_over_a_restart(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS
) -> None:
    """The monitor fails, but is not asked: nothing can be executed beside an own process that has ended."""
    async with running_cell(tmp_path, garden, bbs, healthy_interval_s=LOOK_S) as cell:
        await cell.work.run_instance(call(), work(monitor=GOOD))
        garden.failures["launch"] = ProcessExited("exited with status 1")
        garden.end("i-1", 0, left_behind=True)
    async with running_cell(tmp_path, garden, bbs, healthy_interval_s=LOOK_S) as cell:
        await bbs.report_with(lambda report: any(one.state is InstanceState.RUNNING for one in report.instances))
        garden.end_left_behind("i-1")
        failure = await told(bbs)
        assert isinstance(failure.root, ProcessExited)
        assert failure.root.message == "exited with status 0"


async def test_a_process_that_goes_to_the_background_before_its_monitor_was_asked_is_healthy(
    cell: Cell, garden: FakeGarden
) -> None:
    garden.failures["launch"] = ProcessExited("exited with status 1")
    async with asyncio.TaskGroup() as group:
        group.create_task(cell.work.run_instance(call(), work(monitor=GOOD)))
        await garden.called("launch", 1)
        garden.end("i-1", 0, left_behind=True)
    assert state(cell) is InstanceState.RUNNING


async def test_sidecars_end_with_the_success_of_the_action(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.work.run_instance(call(), work(monitor=GOOD, sidecars=(Sidecar(action=sh(SLEEP)),)))
    main, sidecar, *_ = garden.launched("i-1")
    main.end(0)
    assert isinstance((await told(bbs)).root, ProcessExited)
    assert (await sidecar.wait()).signal == 15


async def test_a_check_keeps_several_up_that_are_done(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, server: asyncio.Server
) -> None:
    both = Action(parallel=ParallelAction(actions=(GOOD, GOOD)))
    await cell.work.run_instance(call(), work(action=both, checks=(check_of(server),)))
    assert state(cell) is InstanceState.RUNNING
    server.close()
    assert isinstance((await told(bbs)).root, BecameUnhealthy)


async def test_a_check_keeps_up_what_the_own_process_left(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS, server: asyncio.Server
) -> None:
    """Also over a restart of the cell."""
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work(checks=(check_of(server),)))
        garden.end("i-1", 0, left_behind=True)
    seen = len(bbs.reports.items)
    async with running_cell(tmp_path, garden, bbs) as cell:
        await bbs.report_with(lambda report: any(one.state is InstanceState.RUNNING for one in report.instances), seen)
        assert state(cell) is InstanceState.RUNNING
        server.close()
        assert isinstance((await told(bbs)).root, BecameUnhealthy)
        assert garden.containers() == []


@pytest.mark.parametrize(("status", "left_behind"), [(0, False), (1, True)])
async def test_one_that_left_nothing_or_failed_has_ended(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, server: asyncio.Server, status: int, left_behind: bool
) -> None:
    await cell.work.run_instance(call(), work(checks=(check_of(server),)))
    garden.end("i-1", status, left_behind=left_behind)
    failure = await told(bbs)
    assert isinstance(failure.root, ProcessExited)
    assert failure.root.message == f"exited with status {status}"


async def test_a_check_that_is_a_process_needs_the_own_one(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    check = Check(command=CommandCheck(path="/bin/sh", args=("-c", "exit 0"), user="root"))
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work(checks=(check,)))
        garden.end("i-1", 0, left_behind=True)
        assert isinstance((await told(bbs)).root, ProcessExited)
