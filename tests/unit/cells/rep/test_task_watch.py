"""Tasks that end on their own, and cells that start again: no end is lost, none is told twice, nothing runs twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from attrs import evolve

from cells.app import Cell
from cells.rep.task_watch import ANSWERED_FIRST_S
from diego_py import chain
from diego_py.errors import (
    ContainerNotFound,
    DestroyFailed,
    DiegoError,
    OutOfMemory,
    ProcessExited,
    ResultMissing,
    ResultTooLarge,
    TaskInterrupted,
    TaskNeverBegan,
)
from diego_py.models.actions import Action, ParallelAction, RunAction
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task import RESULT_BYTES_MAX
from diego_py.models.task_work import CellTaskState, TaskEnd
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, failed_task, running_cell, task_work
from tests.fakes.garden import FakeGarden

GUID = InstanceGuid("i-1")
ONE = Action(run=RunAction(path="/bin/sh", args=("-c", "sleep 1000"), user="root"))


def any_end(_: object) -> bool:
    return True


def gone(cell: Cell) -> bool:
    return len(cell.task_work.books.tasks) == 0 and cell.task_work.books.reservations.available().containers == 4


def failure_in(end: TaskEnd) -> DiegoError:
    assert end.failure is not None
    return chain.rebuild(dict(end.failure))


async def forgotten(cell: Cell) -> None:
    """Return when every end is acknowledged, also on disk, and nothing of any task is left in the books."""
    for _ in range(10_000):  # Nothing tells when the last acknowledgement is on disk.
        if gone(cell) and not cell.task_work.books.task_ends.disk.names():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("something of a task is still in the books")


async def test_an_end_is_told_with_its_result(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.task_work.run_task(call(), task_work(script="echo 42 > /tmp/out; exit 0", result_file="/tmp/out"))
    end = await bbs.task_ends.first(any_end)
    assert (end.task_guid, end.instance_guid, end.cell_id) == ("job", "i-1", "cell-1")
    assert (end.started, end.failed, end.failure, end.result) == (True, False, None, "42\n")
    assert end.claim_id == bbs.task_claims.items[0][1].claim_id
    assert garden.containers() == []
    assert gone(cell)


@pytest.mark.parametrize(
    ("status", "oom", "kind", "told"),
    [
        (3, False, ProcessExited, "exited with status 3"),
        (137, True, OutOfMemory, "killed by signal 9 (out of memory)"),
        (139, False, ProcessExited, "killed by signal 11"),
    ],
)
async def test_kinds_of_ends(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, status: int, oom: bool, kind: type[DiegoError], told: str
) -> None:
    await cell.task_work.run_task(call(), task_work())
    garden.write("i-1", "out of ideas")
    garden.end("i-1", status, oom_killed=oom)
    end = await bbs.task_ends.first(any_end)
    assert (end.started, end.failed, end.result) == (True, True, "")
    error = failure_in(end)
    assert isinstance(error.root, kind)
    assert error.root.message == told
    assert error.root.evidence is not None
    assert "out of ideas" in error.root.evidence["app_log_tail"]
    assert [link.frame.hop for link in error.links() if link.frame is not None] == ["rep", "executor"]
    assert end.failure is not None
    assert end.failure["subject"]["claim_id"] == end.claim_id  # type: ignore[index, call-overload]
    assert "canary" not in str(end)


async def test_a_result_that_is_not_there_is_a_failure(cell: Cell, bbs: FakeBBS) -> None:
    await cell.task_work.run_task(call(), task_work(script="exit 0", result_file="/tmp/none"))
    end = await bbs.task_ends.first(any_end)
    assert failure_in(end).find(ResultMissing) is not None
    assert end.failed


async def test_a_result_that_is_too_long_is_a_failure(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.task_work.run_task(call(), task_work(result_file="/tmp/out"))
    garden.files_of("i-1")["/tmp/out"] = b"x" * (RESULT_BYTES_MAX + 1)
    garden.end("i-1", 0)
    assert failure_in(await bbs.task_ends.first(any_end)).find(ResultTooLarge) is not None


async def test_a_container_that_somebody_removed(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.task_work.run_task(call(), task_work(result_file="/tmp/out"))
    hold = asyncio.Event()
    garden.holds["stop"] = hold
    garden.end("i-1", 0)
    await garden.called("stop")
    garden.vanish("i-1")
    hold.set()
    end = await bbs.task_ends.first(any_end)
    assert end.failed
    assert end.started
    assert failure_in(end).find(ContainerNotFound) is not None
    assert gone(cell)


async def test_an_end_is_kept_before_anything_is_removed(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS
) -> None:
    """A cell that dies in between: the next one removes the container, tells the same end, and runs nothing."""
    garden.holds["destroy"] = asyncio.Event()
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), task_work(script="echo 42 > /tmp/out; exit 0", result_file="/tmp/out"))
        await garden.called("destroy")
        (kept,) = cell.task_work.books.task_ends.all()
        assert bbs.task_ends.items == [], "not told while something of it is left"
    assert [container.handle for container in garden.containers()] == ["i-1"]
    garden.holds["destroy"].set()
    async with running_cell(tmp_path, garden, bbs) as later:
        assert await bbs.task_ends.first(any_end) == kept
        await forgotten(later)
        assert garden.containers() == []
    async with running_cell(tmp_path, garden, bbs) as latest:
        assert latest.task_work.books.task_ends.all() == ()
    assert bbs.task_ends.items == [kept]
    assert garden.ops().count("run") == 1


async def test_an_end_is_told_when_its_container_could_not_be_removed(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS
) -> None:
    """What is left stays in the books, and a stop removes it."""
    await cell.task_work.run_task(call(), task_work())
    garden.failures["destroy"] = DestroyFailed("unmount the root")
    garden.end("i-1", 0)
    end = await bbs.task_ends.first(any_end)
    assert not end.failed
    assert [task.state for task in cell.task_work.books.tasks] == [CellTaskState.STOPPING]
    assert cell.task_work.books.reservations.available().containers == 3
    garden.failures.clear()
    assert (await cell.task_work.stop_task(call(), GUID)).existed
    assert gone(cell)


async def test_an_end_that_no_bbs_takes_is_told_by_the_next_boot(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS
) -> None:
    bbs.end_refusal = DiegoError("broken")
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), task_work(script="exit 0"))
        await bbs.task_ends_refused.first(any_end)
    bbs.end_refusal = None
    async with running_cell(tmp_path, garden, bbs) as later:
        end = await bbs.task_ends.first(any_end)
        await forgotten(later)
    assert (end.instance_guid, end.failed) == ("i-1", False)
    assert len(bbs.task_ends.items) == 1


async def test_a_task_that_runs_goes_on_under_the_next_boot(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), task_work(result_file="/tmp/out"))
    async with running_cell(tmp_path, garden, bbs) as later:
        assert [task.state for task in later.task_work.books.tasks] == [CellTaskState.RUNNING]
        started = await later.task_work.run_task(call(), task_work(result_file="/tmp/out"))
        assert started.instance_guid == "i-1"
        garden.files_of("i-1")["/tmp/out"] = b"42"
        garden.end("i-1", 0)
        end = await bbs.task_ends.first(any_end)
        await forgotten(later)
    assert (end.failed, end.result) == (False, "42")
    assert end.claim_id == bbs.task_claims.items[0][1].claim_id, "of the start, not of the boot that tells"
    assert len(bbs.task_claims.items) == 1
    assert garden.ops().count("run") == 1


async def test_an_end_while_no_cell_was_there(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), task_work())
    garden.end("i-1", 3)
    async with running_cell(tmp_path, garden, bbs) as later:
        end = await bbs.task_ends.first(any_end)
        await forgotten(later)
    assert failure_in(end).root.message == "exited with status 3"


@pytest.mark.parametrize(
    ("held", "kind", "started"), [("create", TaskNeverBegan, False), ("run", TaskInterrupted, True)]
)
async def test_a_cell_that_dies_in_the_middle_of_a_start(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS, held: str, kind: type[DiegoError], started: bool
) -> None:
    """What was not even asked to begin may be tried elsewhere; nobody knows how far anything else came."""
    made = task_work(action=ONE)
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), made)
    container = garden._box("i-1").container
    garden._box("i-1").container = (
        evolve(container, state="created", started_at=None)
        if held == "create"
        else evolve(container, state="created")
    )
    async with running_cell(tmp_path, garden, bbs) as later:
        end = await bbs.task_ends.first(any_end)
        await forgotten(later)
    assert (end.started, end.failed) == (started, True)
    assert failure_in(end).find(kind) is not None
    assert end.claim_id == bbs.task_claims.items[0][1].claim_id
    assert garden.containers() == []
    assert garden.ops().count("run") == 1


async def test_several_processes_cannot_be_taken_up(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.task_work.run_task(call(), task_work(action=Action(parallel=ParallelAction(actions=(ONE, ONE)))))
    async with running_cell(tmp_path, garden, bbs) as later:
        end = await bbs.task_ends.first(any_end)
        await forgotten(later)
    assert (end.started, end.failed) == (True, True)
    assert failure_in(end).find(TaskInterrupted) is not None


async def test_a_failed_start_is_told_late(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    """Whoever asked stores it himself; a cell that starts again does not know whether he did, and tells it."""
    garden.failures["run"] = DiegoError("broken")
    async with running_cell(tmp_path, garden, bbs) as cell:
        error = await failed_task(cell)
        (end,) = cell.task_work.books.task_ends.all()
        due = cell.task_work.watcher.teller._due[GUID]
        assert ANSWERED_FIRST_S / 2 < due.at_s - cell.task_work.watcher.clock.monotonic() <= ANSWERED_FIRST_S
        assert failure_in(end).root.message == error.root.message
    async with running_cell(tmp_path, garden, bbs) as later:
        assert await bbs.task_ends.first(any_end) == end
        await forgotten(later)
