"""Setup, actions of several processes, sidecars and monitors in a whole cell, and what a restart makes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cells.app import Cell
from diego_py import chain
from diego_py.errors import (
    ActionTimedOut,
    CodependentExited,
    DiegoError,
    ExecNotFound,
    NeverHealthy,
    Outcome,
    ProcessExited,
    ProgramLost,
    StoppedWhileStarting,
)
from diego_py.models.actions import (
    Action,
    CodependentAction,
    EnvironmentVariable,
    ParallelAction,
    RunAction,
    TimeoutAction,
)
from diego_py.models.desired_lrp import Sidecar
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.work import CellReport
from diego_py.secret import Secret
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import SLEEP, call, failed, running_cell, work
from tests.fakes.garden import FakeGarden


def sh(script: str, **more: Any) -> Action:
    return Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root", **more))


SLEEPING = sh(SLEEP)
SEVERAL = Action(parallel=ParallelAction(actions=(sh("echo one; sleep 1000", log_source="ONE"), SLEEPING)))


def told(report: CellReport) -> DiegoError:
    return chain.rebuild(report.ended[0].failure)  # type: ignore[return-value]


def ended(report: CellReport) -> bool:
    return bool(report.ended)


async def test_setup_runs_before_the_process_begins(cell: Cell, garden: FakeGarden) -> None:
    secret = (EnvironmentVariable(name="KEY", value=Secret("of the action")),)
    await cell.work.run_instance(call(), work(setup=sh("echo ready; exit 0"), action=sh(SLEEP, env=secret)))
    assert garden.ops() == ["create", "launch", "run"]
    env = dict(garden.launched("i-1")[0].process.env)
    assert "KEY" not in env
    assert env["CF_INSTANCE_INTERNAL_IP"] == garden.address
    assert garden.env_of("i-1")["KEY"] == "of the action"


async def test_a_setup_that_fails_is_the_apps_failure_and_nothing_else_runs(cell: Cell, garden: FakeGarden) -> None:
    error = await failed(cell, setup=sh("echo no; exit 4"))
    assert isinstance(error.root, ProcessExited)
    assert error.outcome is Outcome.ROLLED_BACK
    assert garden.ops() == ["create", "launch", "destroy"]
    assert garden.containers() == []


async def test_stopped_during_its_setup(cell: Cell, garden: FakeGarden) -> None:
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(failed(cell, setup=SLEEPING))
        await garden.called("launch")
        await cell.work.stop_instance(call(), InstanceGuid("i-1"))
    assert starting.result().find(StoppedWhileStarting) is not None
    assert "run" not in garden.ops()


async def test_the_budget_bounds_the_setup_and_its_undoing(cell: Cell, garden: FakeGarden) -> None:
    with pytest.raises(DiegoError) as caught:
        await cell.work.run_instance(call(400), work(setup=sh("trap '' TERM; sleep 1000")))
    assert caught.value.root.code == "budget_spent"
    assert garden.containers() == []


async def test_several_processes_in_an_idle_container(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work(action=SEVERAL))
    assert garden.spec_of("i-1").idle
    assert garden.ops() == ["create", "run", "launch", "launch"]
    assert ("ONE", "one") in [(line.source, line.text) for line in garden.log_of("i-1")]


async def test_one_of_several_that_cannot_begin(cell: Cell, garden: FakeGarden) -> None:
    garden.failures["launch"] = ExecNotFound("no such file")
    error = await failed(cell, action=SEVERAL)
    assert [(link.frame.hop, link.frame.op) for link in error.links() if link.frame] == [
        ("executor", "start"),
        ("garden", "launch"),
    ]
    assert error.find(ExecNotFound) is not None


async def test_the_end_of_all_of_several_is_told(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.work.run_instance(call(), work(action=SEVERAL))
    first, second = garden.launched("i-1")
    first.end(3)
    second.end(0)
    error = told(await bbs.report_with(ended))
    assert error.find(ProcessExited) is not None
    assert "ONE: exited with status 3" in error.root.message
    assert garden.containers() == []


async def test_a_sidecar_and_its_action_end_together(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.work.run_instance(call(), work(action=SLEEPING, sidecars=(Sidecar(action=sh("echo side; sleep 1")),)))
    main, sidecar = garden.launched("i-1")
    sidecar.end(1)
    error = told(await bbs.report_with(ended))
    assert isinstance(error.root, ProcessExited)
    assert (await main.wait()).signal == 15


async def test_codependent_processes(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    both = Action(codependent=CodependentAction(actions=(SLEEPING, SLEEPING)))
    await cell.work.run_instance(call(), work(action=both))
    garden.launched("i-1")[0].end(0)
    assert isinstance(told(await bbs.report_with(ended)).root, CodependentExited)


async def test_stop_lets_several_processes_end_within_the_grace_time(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work(action=SEVERAL))
    processes = list(garden.launched("i-1"))
    await cell.work.stop_instance(call(), InstanceGuid("i-1"))
    assert [(await process.wait()).signal for process in processes] == [15, 15]
    assert garden.ops().index("signal 15") < garden.ops().index("destroy")
    assert garden.containers() == []


async def test_a_timeout_around_the_only_process(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    action = Action(timeout=TimeoutAction(action=SLEEPING, timeout_ms=100))
    await cell.work.run_instance(call(), work(action=action))
    assert not garden.spec_of("i-1").idle
    assert isinstance(told(await bbs.report_with(ended)).root, ActionTimedOut)
    assert garden.containers() == []


async def test_a_monitor_is_asked_until_it_succeeds(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work(monitor=sh("exit 0")))
    assert garden.ops() == ["create", "run", "launch"]
    assert not garden.spec_of("i-1").idle


async def test_a_monitor_that_never_succeeds(cell: Cell, garden: FakeGarden) -> None:
    error = await failed(cell, monitor=sh("exit 1"), start_timeout_ms=120)
    never = error.find(NeverHealthy)
    assert never is not None
    assert never.evidence is not None
    assert never.evidence["check"]["kind"] == "monitor"
    assert "exited with status 1" in never.evidence["check"]["answer"]
    assert garden.containers() == []


async def test_a_restart_takes_up_one_process_and_gives_up_several(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS
) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work("i-1", setup=sh("exit 0")))
        await cell.work.run_instance(call(), work("i-2", action=SEVERAL))
    began = garden.ops().count("launch")
    async with running_cell(tmp_path, garden, bbs) as cell:
        report = await bbs.report_with(ended)
        assert [one.instance_guid for one in report.ended] == ["i-2"]
        lost = told(report)
        assert isinstance(lost.root, ProgramLost)
        assert [container.handle for container in garden.containers()] == ["i-1"]
        assert garden.ops().count("launch") == began
        assert garden.ops().count("run") == 2
