"""The cascade of a task on its cell: what is answered, what is true afterwards, and that nothing begins twice."""

from __future__ import annotations

import asyncio
from itertools import chain, combinations

import pytest

from cells.app import Cell
from cells.rep.task_watch import ANSWERED_FIRST_S
from diego_py.errors import (
    BudgetSpent,
    CellDraining,
    ClaimLost,
    ClaimRefused,
    DestroyFailed,
    DiegoError,
    ExecNotFound,
    HandleTaken,
    InsufficientResources,
    InvalidSpec,
    MountFailed,
    Outcome,
    StoppedWhileStarting,
)
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import CellTaskState
from diego_py.models.work import TaskStarted
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import CELL_ID, call, failed_task, task_work, work
from tests.fakes.garden import FakeGarden

GUID = InstanceGuid("i-1")
FAULTS = {
    "claim": ClaimRefused("the row is not waiting for this attempt"),
    "create": MountFailed("mount overlay"),
    "run": ExecNotFound("find /bin/sh"),
    "destroy": DestroyFailed("unmount the root"),
}
EVERY_SET_OF_FAULTS = list(chain.from_iterable(combinations(FAULTS, size) for size in range(len(FAULTS) + 1)))


def assert_nothing_left(cell: Cell, garden: FakeGarden) -> None:
    assert garden.containers() == []
    assert len(cell.task_work.books.tasks) == 0
    available = cell.task_work.books.reservations.available()
    assert (available.memory_mb, available.containers) == (1024, 4)


async def attempt(cell: Cell, guid: str = "i-1", **of_work: object) -> TaskStarted | DiegoError:
    try:
        return await cell.task_work.run_task(call(), task_work(guid, **of_work))  # type: ignore[arg-type]
    except DiegoError as failure:
        return failure


async def test_started(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    seen = len(bbs.reports.items)
    started = await cell.task_work.run_task(call(), task_work())
    assert started.available.memory_mb == 1024 - 128
    ((task_guid, claim),) = bbs.task_claims.items
    assert (task_guid, claim.instance_guid, claim.cell_id) == ("job", "i-1", CELL_ID)
    assert claim.boot_id == cell.task_work.boot_id
    report = await bbs.report_with(lambda r: [t.state for t in r.tasks] == [CellTaskState.RUNNING], seen)
    assert report.sequence > claim.sequence, "so that it can be told from one that was made before the claim"
    assert garden.env_of("i-1")["TOKEN"] == "canary-secret"


@pytest.mark.parametrize("faults", EVERY_SET_OF_FAULTS, ids=lambda faults: "+".join(faults) or "none")
async def test_whatever_fails_is_undone_and_told(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, faults: tuple[str, ...]
) -> None:
    """With every set of faults: what began, what is left, what the outcome says, and what is told later."""
    bbs.refusal = FAULTS["claim"] if "claim" in faults else None
    garden.failures = {op: FAULTS[op] for op in faults if op != "claim"}
    answer = await attempt(cell)
    began = not {"claim", "create"} & set(faults)
    fails = bool({"claim", "create", "run"} & set(faults))
    assert garden.ops().count("run") == began, "no process before the claim, nor without a container"
    assert isinstance(answer, DiegoError) == fails
    ends = cell.task_work.books.task_ends.all()
    if not isinstance(answer, DiegoError):
        assert ends == ()
        assert [task.state for task in cell.task_work.books.tasks] == [CellTaskState.RUNNING]
        return
    kept = "destroy" in faults
    assert answer.outcome is (Outcome.PARTIAL if kept else Outcome.ROLLED_BACK if began else Outcome.NOT_STARTED)
    assert answer.subject is not None
    assert answer.subject["claim_id"] == bbs.task_claims.items[0][1].claim_id
    assert [(end.started, end.failed, end.claim_id) for end in ends] == [(began, True, answer.subject["claim_id"])]
    assert bbs.task_ends.items == [], "whoever asked has time to store it"
    assert cell.task_work.books.reservations.available().containers == (3 if kept else 4)
    if not kept:
        assert_nothing_left(cell, garden)
        return
    assert answer.root.evidence is not None
    assert answer.root.evidence["left"][0]["code"] == DestroyFailed.code
    again = await attempt(cell)
    assert isinstance(again, HandleTaken), "what is not gone is not begun again"
    assert again.outcome is Outcome.UNKNOWN
    garden.failures = {}
    assert (await cell.task_work.stop_task(call(), GUID)).existed
    assert_nothing_left(cell, garden)


async def test_a_claim_without_an_answer_may_have_been_granted(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.refusal = DiegoError("broken")
    error = await failed_task(cell)
    assert error.find(ClaimLost) is not None
    assert error.outcome is Outcome.NOT_STARTED
    assert "run" not in garden.ops()
    (end,) = cell.task_work.books.task_ends.all()
    assert not end.started
    due = cell.task_work.watcher.teller._due[GUID]
    assert due.at_s > cell.task_work.watcher.clock.monotonic() + ANSWERED_FIRST_S / 2
    assert_nothing_left(cell, garden)


async def test_what_was_never_claimed_is_told_to_nobody(cell: Cell, bbs: FakeBBS) -> None:
    assert isinstance(await failed_task(cell, memory_mb=2048), InsufficientResources)
    cell.task_work.admission.drain.set(True)
    assert isinstance(await failed_task(cell), CellDraining)
    assert bbs.task_claims.items == []
    assert cell.task_work.books.task_ends.all() == ()


async def test_a_repeat_joins_the_first_request(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.hold_claims = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cell.task_work.run_task(call(), task_work()))
        await garden.called("create")
        second = group.create_task(cell.task_work.run_task(call(), task_work()))
        await bbs.task_claims.first(lambda _: True)
        assert garden.ops() == ["create"], "no process before the claim was granted"
        bbs.hold_claims.set()
    third = await cell.task_work.run_task(call(), task_work())
    assert first.result() == second.result()
    assert third.instance_guid == "i-1"
    assert garden.ops() == ["create", "run"]
    assert len(bbs.task_claims.items) == 1


async def test_both_hear_how_it_failed(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["create"] = asyncio.Event()
    garden.failures["create"] = MountFailed("mount overlay")
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(failed_task(cell)) for _ in range(2)]
        await garden.called("create")
        garden.holds["create"].set()
    one, other = (task.result() for task in tries)
    assert one is not other
    assert [link.message for link in one.links()] == [link.message for link in other.links()]
    assert len(cell.task_work.books.task_ends) == 1


@pytest.mark.parametrize("other", [{"task_guid": "another"}, {"memory_mb": 64}])
async def test_another_task_under_the_same_guid(cell: Cell, garden: FakeGarden, other: dict[str, object]) -> None:
    await cell.task_work.run_task(call(), task_work())
    error = await failed_task(cell, **other)  # type: ignore[arg-type]
    assert isinstance(error, HandleTaken)
    assert error.outcome is Outcome.UNKNOWN
    assert garden.ops() == ["create", "run"]


async def test_an_instance_of_an_lrp_under_the_same_guid(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work())
    assert isinstance(await failed_task(cell), HandleTaken)
    assert garden.ops() == ["create", "run"]


async def test_what_ended_is_not_begun_again_while_its_container_is_there(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["destroy"] = asyncio.Event()
    await cell.task_work.run_task(call(), task_work())
    garden.end("i-1", 0)
    await garden.called("destroy")
    assert isinstance(await failed_task(cell), HandleTaken)
    garden.holds["destroy"].set()
    assert garden.ops().count("run") == 1


async def test_concurrent_requests_never_overbook(cell: Cell, garden: FakeGarden) -> None:
    """LRPs and tasks share one cell."""
    async with asyncio.TaskGroup() as group:
        lrp = group.create_task(cell.work.run_instance(call(), work("lrp", memory_mb=400)))
        tries = [
            group.create_task(attempt(cell, f"i-{n}", task_guid=f"job-{n}", memory_mb=400)) for n in range(5)
        ]
    assert lrp.result().instance_guid == "lrp"
    assert sum(isinstance(task.result(), InsufficientResources) for task in tries) == 4
    assert len(garden.containers()) == 2


@pytest.mark.parametrize("guid", ["../../etc", "", "a/b", "x" * 256])
async def test_guid_that_would_be_a_path(cell: Cell, garden: FakeGarden, guid: str) -> None:
    assert isinstance(await failed_task(cell, guid), InvalidSpec)
    assert garden.ops() == []


async def test_a_spent_budget_is_undone_and_says_what_is_true(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    with pytest.raises(BudgetSpent) as late:
        await cell.task_work.run_task(call(20), task_work())
    assert late.value.outcome is Outcome.NOT_STARTED
    assert garden.ops() == []
    bbs.hold_claims = asyncio.Event()
    with pytest.raises(DiegoError) as caught:
        await cell.task_work.run_task(call(1_500), task_work())
    assert caught.value.find(BudgetSpent) is not None
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert "run" not in garden.ops()
    assert_nothing_left(cell, garden)


async def test_a_caller_that_hangs_up_changes_nothing(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["run"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(cell.task_work.run_task(call(), task_work()))
        await garden.called("run")
        asking.cancel()
    garden.holds["run"].set()
    assert (await cell.task_work.run_task(call(), task_work())).instance_guid == "i-1"
    assert garden.ops() == ["create", "run"]


@pytest.mark.parametrize("held", ["create", "claim", "run"])
async def test_stopped_while_it_starts(cell: Cell, garden: FakeGarden, bbs: FakeBBS, held: str) -> None:
    """Whatever it is at: both answers come when nothing is left, and what did not begin yet does not begin."""
    hold = asyncio.Event()
    if held == "claim":
        bbs.hold_claims = hold
    else:
        garden.holds[held] = hold
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(attempt(cell))
        await (bbs.task_claims.first(lambda _: True) if held == "claim" else garden.called(held))
        stopping = group.create_task(cell.task_work.stop_task(call(), GUID))
        for task in cell.task_work.books.tasks:
            await task.stop_asked.wait()
        hold.set()
    error = starting.result()
    assert isinstance(error, DiegoError)
    assert error.find(StoppedWhileStarting) is not None
    assert error.outcome is (Outcome.ROLLED_BACK if held == "run" else Outcome.NOT_STARTED)
    assert stopping.result().existed
    assert ("run" in garden.ops()) == (held == "run")
    assert_nothing_left(cell, garden)


async def test_stop(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.task_work.run_task(call(), task_work())
    seen = len(bbs.reports.items)
    assert (await cell.task_work.stop_task(call(), GUID)).existed
    assert_nothing_left(cell, garden)
    assert not (await cell.task_work.stop_task(call(), GUID)).existed
    report = await bbs.report_with(lambda r: not r.tasks, seen)
    assert report.tasks == ()
    assert cell.task_work.books.task_ends.all() == (), "its end is told by whoever had it stopped"


async def test_stop_that_fails_can_be_repeated(cell: Cell, garden: FakeGarden) -> None:
    await cell.task_work.run_task(call(), task_work())
    garden.failures["destroy"] = DestroyFailed("unmount the root")
    with pytest.raises(DiegoError) as caught:
        await cell.task_work.stop_task(call(), GUID)
    assert caught.value.outcome is Outcome.PARTIAL
    assert cell.task_work.books.reservations.available().containers == 3
    del garden.failures["destroy"]
    assert (await cell.task_work.stop_task(call(), GUID)).existed
    assert_nothing_left(cell, garden)


async def test_stop_of_one_that_is_just_ending_waits_for_that(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    """Its end is kept and told all the same: it came first."""
    garden.holds["destroy"] = asyncio.Event()
    await cell.task_work.run_task(call(), task_work(result_file="/tmp/out", script="echo 42 > /tmp/out; sleep 1000"))
    garden.end("i-1", 0)
    await garden.called("destroy")
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(cell.task_work.stop_task(call(), GUID))
        await asyncio.sleep(0)
        assert not stopping.done()
        garden.holds["destroy"].set()
    end = await bbs.task_ends.first(lambda _: True)
    assert (end.failed, end.failure_reason) == (False, None), end
    assert end.result == "42\n"
    assert_nothing_left(cell, garden)
