"""The cascade of the BBS on the store in memory, with cells that do as a test says."""

import asyncio

import pytest

from bbs import removal
from diego_py.errors import (
    ActualLRPNotFound,
    CellDraining,
    DeleteFailed,
    DesiredLRPNotFound,
    DesireFailed,
    HopUnreachable,
    Outcome,
    RestartFailed,
    SandboxFailed,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.identifiers import InstanceGuid, ProcessGuid
from tests.chain.awaited import until
from tests.contract.store.conftest import definition, problem
from tests.unit.bbs.stage import Stage, nothing


async def test_what_is_desired_is_started(stage: Stage) -> None:
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition(instances=2))
    placed = await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, False)
    assert [row.state for row in placed.actuals] == [ActualLRPState.RUNNING] * 2


async def test_what_crashed_since_is_offered_anew_by_who_resumes(stage: Stage) -> None:
    (row,) = await stage.scene.unclaimed()
    crashed = await stage.scene.crash(await stage.scene.start(await stage.scene.claim(row)), "f1")
    assert crashed is not None
    desired = await stage.desired()
    assert desired is not None
    placed = await stage.placement.resume(stage.scene.call, desired, [crashed], False)
    assert [row.state for row in placed.actuals] == [ActualLRPState.RUNNING]


async def fail() -> None:
    raise SandboxFailed("no namespaces left")


async def test_a_failed_create_is_rolled_back(stage: Stage) -> None:
    stage.cells.before_start = fail
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    with pytest.raises(DesireFailed) as failed:
        await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, True)
    assert failed.value.problem is not None
    assert failed.value.problem.outcome == "rolled_back"  # type: ignore[union-attr]
    assert await stage.scene.row() is None
    assert await stage.desired() is None


async def test_a_rollback_leaves_what_somebody_else_has_changed(stage: Stage) -> None:
    async def scaled_and_failed() -> None:
        await stage.scene.lifecycle.update(stage.scene.call, "app", DesiredLRPUpdate(instances=2))
        await fail()

    stage.cells.before_start = scaled_and_failed
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    with pytest.raises(DesireFailed):
        await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, True)
    desired = await stage.desired()
    assert desired is not None
    assert desired.definition.instances == 2
    row = await stage.scene.row()
    assert row is not None
    assert row.placement_error == "no namespaces left"


async def test_a_rollback_of_what_somebody_else_deleted_answers_why_it_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "UNDO_S", 0.0)  # it is deleted in the middle of the start, which then waits for that

    async def deleted_and_failed() -> None:
        await stage.placement.delete(stage.scene.call, ProcessGuid("app"))
        await fail()

    stage.cells.before_start = deleted_and_failed
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    with pytest.raises(DesireFailed) as failed:
        await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, True)
    assert failed.value.problem is not None
    assert failed.value.problem.outcome == "rolled_back"  # type: ignore[union-attr]
    assert failed.value.root.code == SandboxFailed.code


async def lose_the_answer() -> None:
    raise HopUnreachable("the cell did not answer", outcome=Outcome.UNKNOWN)


async def given_up(stage: Stage) -> InstanceGuid:
    """An attempt that the only cell claimed, whose answer was lost."""
    stage.cells.before_start = lose_the_answer
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    with pytest.raises(DesireFailed):
        await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, False)
    row = await stage.scene.row()
    assert row is not None
    assert (row.state, row.instance_guid) == (ActualLRPState.UNCLAIMED, None)
    guid = stored.actuals[0].instance_guid
    assert guid is not None
    return guid


async def test_a_cell_whose_answer_was_lost_is_asked_before_a_delete_is_answered(stage: Stage) -> None:
    guid = await given_up(stage)
    assert await stage.placement.delete(stage.scene.call, ProcessGuid("app")) == 1
    assert stage.cells.stopped == [guid]
    with pytest.raises(DesiredLRPNotFound):
        await stage.placement.delete(stage.scene.call, ProcessGuid("app"))


async def test_as_long_as_it_cannot_be_asked_a_delete_says_that_nobody_knows(stage: Stage) -> None:
    guid = await given_up(stage)
    stage.cells.before_stop = lose_the_answer
    for _ in range(2):
        with pytest.raises(DeleteFailed) as failed:
            await stage.placement.delete(stage.scene.call, ProcessGuid("app"))
        assert failed.value.outcome is Outcome.UNKNOWN
    stage.cells.before_stop = nothing
    assert await stage.placement.delete(stage.scene.call, ProcessGuid("app")) == 1
    assert stage.cells.stopped == [guid]


async def test_it_is_asked_before_the_instance_is_stopped_or_started_anew(stage: Stage) -> None:
    guid = await given_up(stage)
    stage.cells.before_start = nothing
    desired = await stage.desired()
    assert desired is not None
    row = await stage.placement.restart(stage.scene.call, desired, 0)
    assert (row.state, stage.cells.stopped) == (ActualLRPState.RUNNING, [guid])
    await stage.scene.lifecycle.offer(stage.scene.call, await given_up_row(stage, row))
    row_now = await stage.scene.row()
    assert row_now is not None
    await stage.placement.stop(stage.scene.call, row_now)
    assert stage.cells.stopped == [guid, row.instance_guid]


async def given_up_row(stage: Stage, row: ActualLRP) -> ActualLRP:
    """A running instance that convergence took for lost."""
    return await stage.scene.lifecycle.lose(stage.scene.call, row, None, problem(stage.scene.call, "lost"))


async def test_an_earlier_attempt_counts_when_the_last_one_began_nothing(stage: Stage) -> None:
    """Whoever was told `not_started` may ask elsewhere; the container of the first attempt may run."""
    await stage.joins("cell-2")
    answers = iter([HopUnreachable("the cell did not answer", outcome=Outcome.UNKNOWN), CellDraining("no new work")])

    async def differently() -> None:
        raise next(answers)

    stage.cells.before_start = differently
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    with pytest.raises(DesireFailed) as failed:
        await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, False)
    assert (failed.value.outcome, failed.value.root.code) == (Outcome.UNKNOWN, CellDraining.code)
    row = await stage.scene.row()
    assert row is not None
    assert len(await stage.placement.removal.abandoned(stage.scene.call, row)) == 2


async def test_who_restarts_asks_the_cell_whose_answer_was_lost_although_another_one_runs_it(stage: Stage) -> None:
    await stage.joins("cell-2")
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    (first,) = (await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, False)).actuals
    begun: list[InstanceGuid | None] = []

    async def lose_the_first_answer() -> None:
        row = await stage.scene.row()
        assert row is not None
        begun.append(row.instance_guid)
        if len(begun) == 1:
            await lose_the_answer()

    stage.cells.before_start = lose_the_first_answer
    row = await stage.placement.restart(stage.scene.call, stored.desired, 0)
    assert row.instance_guid == begun[1]
    assert stage.cells.stopped == [first.instance_guid, begun[0]]


async def test_as_long_as_that_cell_cannot_be_asked_a_restart_is_not_answered_as_done(stage: Stage) -> None:
    await stage.joins("cell-2")
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    answers = iter([lose_the_answer, nothing])
    stage.cells.before_start = lambda: next(answers)()
    stage.cells.before_stop = lose_the_answer
    with pytest.raises(RestartFailed) as failed:
        await stage.placement.restart(stage.scene.call, stored.desired, 0)
    assert failed.value.outcome is Outcome.PARTIAL
    row = await stage.scene.row()
    assert row is not None
    assert row.state is ActualLRPState.RUNNING


async def test_who_resumes_takes_up_what_moved_on_since_it_was_read(stage: Stage) -> None:
    """The first process was only frozen: it stored its failure after the rows were read here."""
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    seen = await stage.scene.claim(stored.actuals[0])
    assert await stage.scene.lifecycle.fail(stage.scene.call, seen, problem(stage.scene.call, "too late"))
    placed = await stage.placement.resume(stage.scene.call, stored.desired, [seen], False)
    assert [row.state for row in placed.actuals] == [ActualLRPState.RUNNING]


async def test_who_resumes_and_finds_a_row_gone_does_not_know(stage: Stage) -> None:
    stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
    await stage.placement.stop(stage.scene.call, stored.actuals[0])
    with pytest.raises(ActualLRPNotFound) as failed:
        await stage.placement.resume(stage.scene.call, stored.desired, stored.actuals, False)
    assert (failed.value.outcome, failed.value.frame is None) == (Outcome.UNKNOWN, False)


async def test_a_delete_is_answered_once_what_was_being_started_is_undone(stage: Stage) -> None:
    """The row is gone before its cell has claimed it: nothing says where it is being made."""
    told: list[str] = []

    async def no_row() -> bool:
        return await stage.scene.row() is None

    async with asyncio.TaskGroup() as group:

        async def deleted_meanwhile() -> None:
            deleting = group.create_task(stage.placement.delete(stage.scene.call, ProcessGuid("app")))
            deleting.add_done_callback(lambda _: told.append("deleted"))
            await until("the row is gone", no_row)
            told.append("undone")

        stage.cells.before_claim = deleted_meanwhile
        stored = await stage.scene.lifecycle.desire(stage.scene.call, definition())
        with pytest.raises(DesireFailed):
            await stage.placement.desire(stage.scene.call, stored.desired, stored.actuals, False)
    assert told == ["undone", "deleted"]
