"""The cascade of the cell: what is answered, and what is true afterwards."""

import asyncio
from pathlib import Path

import pytest

from cells.app import Cell
from cells.garden.spec import EgressRule
from diego_py.errors import (
    BudgetSpent,
    CellDraining,
    CellIdTaken,
    ClaimLost,
    ClaimRefused,
    ContainerNotFound,
    DestroyFailed,
    DiegoError,
    EpochNotKept,
    ExecNotFound,
    HandleTaken,
    InsufficientResources,
    InvalidSpec,
    MountFailed,
    Outcome,
    ProcessExited,
    StaleEpoch,
    StoppedWhileStarting,
    UnsupportedField,
)
from diego_py.models.checks import Check, TCPCheck
from diego_py.models.egress import EgressProtocol, SecurityGroupRule
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.work import EgressChange, InstanceState
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, config, failed, running_cell, work
from tests.fakes.garden import FakeGarden

NEVER = (Check(tcp=TCPCheck(port=1)),)


def assert_nothing_left(cell: Cell, garden: FakeGarden) -> None:
    assert garden.containers() == []
    assert len(cell.work.books.instances) == 0
    available = cell.work.books.reservations.available()
    assert (available.memory_mb, available.containers) == (1024, 4)


async def test_started(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    seen = len(bbs.reports.items)
    started = await cell.work.run_instance(call(), work(ports=(8080,)))
    assert started.available.memory_mb == 1024 - 128
    assert [port.container_port for port in started.net_info.ports] == [8080]
    assert started.net_info.instance_address == garden.address
    claims = bbs.claim_requests.items[0]
    (claim,) = claims.instances
    assert (claim.process_guid, claim.index, claim.instance_guid, claims.cell_id) == ("web", 0, "i-1", "cell-1")
    await cell.sync.report()
    report = await bbs.report_with(lambda r: [i.state for i in r.instances] == [InstanceState.RUNNING], seen)
    assert report.instances[0].instance_guid == "i-1"
    assert report.instances[0].net_info == started.net_info
    assert report.sequence > started.sequence


async def test_environment_reaches_the_container(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work())
    env = garden.env_of("i-1")
    assert env["TOKEN"] == "canary-secret"
    assert env["CF_INSTANCE_GUID"] == "i-1"
    assert env["CF_INSTANCE_PORTS"] == "[]"


async def test_repeat_joins_the_first_request(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.hold_claims = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cell.work.run_instance(call(), work()))
        await garden.called("create")
        second = group.create_task(cell.work.run_instance(call(), work()))
        await bbs.claims.first(lambda _: True)
        bbs.hold_claims.set()
    third = await cell.work.run_instance(call(), work())
    assert first.result() == second.result()
    assert third.net_info == first.result().net_info
    assert garden.ops() == ["create", "run"]
    assert len(bbs.claims.items) == 1


async def test_repeat_gets_the_same_failure(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["create"] = asyncio.Event()
    garden.failures["create"] = MountFailed("mount overlay")
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(failed(cell)) for _ in range(2)]
        await garden.called("create")
        garden.holds["create"].set()
    one, other = (task.result() for task in tries)
    assert one is not other
    assert [link.message for link in one.links()] == [link.message for link in other.links()]


async def test_other_instance_under_the_same_guid_is_refused(cell: Cell) -> None:
    await cell.work.run_instance(call(), work())
    error = await failed(cell, index=1)
    assert isinstance(error, HandleTaken)
    assert error.outcome is Outcome.NOT_STARTED


async def test_claim_refused_runs_nothing(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.refusal = ClaimRefused("the row is not waiting for this instance")
    error = await failed(cell)
    assert error.find(ClaimRefused) is not None
    assert error.outcome is Outcome.ROLLED_BACK
    assert "run" not in garden.ops()
    assert_nothing_left(cell, garden)


async def test_claim_without_an_answer_runs_nothing(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.refusal = DiegoError("broken")
    error = await failed(cell)
    assert error.find(ClaimLost) is not None
    assert "run" not in garden.ops()
    assert_nothing_left(cell, garden)


async def test_no_process_before_the_claim(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.hold_claims = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(cell.work.run_instance(call(), work()))
        await garden.called("create")
        await bbs.claims.first(lambda _: True)
        assert garden.ops() == ["create"]
        bbs.hold_claims.set()
    assert garden.ops() == ["create", "run"]


@pytest.mark.parametrize(("op", "cause"), [("create", MountFailed), ("run", ExecNotFound)])
async def test_failing_step_is_undone(cell: Cell, garden: FakeGarden, op: str, cause: type[DiegoError]) -> None:
    garden.failures[op] = cause(f"{op} it")
    error = await failed(cell)
    assert isinstance(error.root, cause)
    assert error.outcome is Outcome.ROLLED_BACK
    assert garden.ops()[-1] == "destroy"
    assert_nothing_left(cell, garden)


async def test_process_that_exits_at_once(cell: Cell, garden: FakeGarden) -> None:
    error = await failed(cell, script="echo bad config; exit 3")
    root = error.root
    assert isinstance(root, ProcessExited)
    assert root.message == "exited with status 3"
    assert root.evidence is not None
    assert root.evidence["exit_status"] == 3
    assert root.evidence["app_log_tail"] == ["bad config"]
    assert_nothing_left(cell, garden)


async def test_undo_that_fails_says_what_is_left(cell: Cell, garden: FakeGarden) -> None:
    garden.failures["destroy"] = DestroyFailed("unmount the root")
    error = await failed(cell, script="exit 1")
    assert error.outcome is Outcome.PARTIAL
    assert error.root.evidence is not None
    left = {"handle": "i-1", "code": "garden.destroy_failed", "detail": "unmount the root"}
    assert error.root.evidence["left"] == [left]
    assert cell.work.books.reservations.available().containers == 3
    assert [i.state for i in cell.work.books.instances] == [InstanceState.STOPPING]
    del garden.failures["destroy"]
    assert (await cell.work.stop_instance(call(), "i-1")).existed  # type: ignore[arg-type]
    assert_nothing_left(cell, garden)


async def test_no_room(cell: Cell, garden: FakeGarden) -> None:
    error = await failed(cell, memory_mb=2048)
    assert isinstance(error, InsufficientResources)
    assert error.outcome is Outcome.NOT_STARTED
    assert error.placement is not None
    assert error.placement["need"]["memory_mb"] == 2048
    assert error.placement["have"]["memory_mb"] == 1024
    assert garden.ops() == []


async def test_concurrent_requests_never_overbook(cell: Cell, garden: FakeGarden) -> None:
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(attempt(cell, guid=f"i-{n}", index=n, memory_mb=400)) for n in range(6)
        ]
    outcomes = [task.result() for task in tries]
    assert sum(isinstance(outcome, InsufficientResources) for outcome in outcomes) == 4
    assert len(garden.containers()) == 2


async def attempt(cell: Cell, **of_work: object) -> object:
    try:
        return await cell.work.run_instance(call(), work(**of_work))  # type: ignore[arg-type]
    except DiegoError as failure:
        return failure


async def test_draining(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    """Also after a restart, until it is told otherwise."""
    async with running_cell(tmp_path, garden, bbs) as cell:
        cell.work.admission.drain.set(True)
        assert isinstance(await failed(cell), CellDraining)
        assert garden.ops() == []
    async with running_cell(tmp_path, garden, bbs) as later:
        assert isinstance(await failed(later), CellDraining)
        assert later.sync.snapshot().presence.draining
        later.work.admission.drain.set(False)
        assert not later.sync.snapshot().presence.draining
        await later.work.run_instance(call(), work())
    async with running_cell(tmp_path, garden, bbs) as latest:
        assert not latest.sync.snapshot().presence.draining


async def test_egress_rules_of_what_runs(cell: Cell, garden: FakeGarden) -> None:
    """Also of what is still starting, which is waited for; not of what is not there."""
    rule = SecurityGroupRule(protocol=EgressProtocol.TCP, destinations=("192.0.2.0/24",), ports=(80,))
    change = EgressChange(egress_rules=(rule,))
    garden.holds["create"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(cell.work.run_instance(call(), work()))
        await garden.calls.first(lambda happened: happened[0] == "create")
        changing = group.create_task(cell.work.set_egress(call(), InstanceGuid("i-1"), change))
        await asyncio.sleep(0)
        assert not changing.done()
        garden.holds["create"].set()
    assert garden._box("i-1").egress == (EgressRule("tcp", ("192.0.2.0/24",), ((80, 80),)),)
    with pytest.raises(ContainerNotFound):
        await cell.work.set_egress(call(), InstanceGuid("i-2"), change)


async def test_stale_epoch(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work("i-1", epoch=7))
        assert isinstance(await failed(cell, guid="i-2", epoch=6), StaleEpoch)
        await cell.work.run_instance(call(), work("i-3", index=3, epoch=0))
    async with running_cell(tmp_path, garden, bbs) as later:
        assert isinstance(await failed(later, guid="i-4", epoch=6), StaleEpoch)


async def test_a_leader_that_cannot_be_remembered_is_not_obeyed(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS
) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        in_the_way = config(tmp_path, bbs.url).rep_state / ".epoch.new"
        in_the_way.mkdir()
        refused = await failed(cell, epoch=7)
        assert isinstance(refused, EpochNotKept)
        assert isinstance(refused.__cause__, IsADirectoryError)
        assert_nothing_left(cell, garden)
        in_the_way.rmdir()
        await cell.work.run_instance(call(), work(epoch=7))


async def test_a_namesake_says_why_it_gets_no_work(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    """Another cell of this id reports already: it keeps trying, and comes in once that one is gone."""
    bbs.report_refusal = CellIdTaken("cell cell-1 reports already, from http://other:1800")
    async with running_cell(tmp_path, garden, bbs) as second:
        with pytest.raises(DiegoError):
            await second.sync.report()
        assert "reports already, from http://other:1800" in str(second.work.admission.lease.lacks())
        assert isinstance(await failed(second), ClaimLost)
        bbs.report_refusal = None
        await second.sync.report()
        home = second.sync.snapshot().presence.home_id
        await second.work.run_instance(call(), work())
    async with running_cell(tmp_path, garden, bbs) as again:
        assert again.sync.snapshot().presence.home_id == home, "the same cell, started again"
    async with running_cell(tmp_path / "elsewhere", FakeGarden(), bbs) as other:
        assert other.sync.snapshot().presence.home_id != home


async def test_nothing_is_claimed_without_a_lease(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.report_refusal = DiegoError("broken")
    async with running_cell(tmp_path, garden, bbs) as alone:
        error = await failed(alone)
        assert isinstance(error, ClaimLost)
        assert error.outcome is Outcome.NOT_STARTED
    assert bbs.claims.items == []


@pytest.mark.parametrize("guid", ["../../etc", "", "a/b", "x" * 256])
async def test_guid_that_would_be_a_path(cell: Cell, garden: FakeGarden, guid: str) -> None:
    assert isinstance(await failed(cell, guid=guid), InvalidSpec)
    assert garden.ops() == []


async def test_unsupported_field(cell: Cell, garden: FakeGarden) -> None:
    assert isinstance(await failed(cell, metrics_guid="m"), UnsupportedField)
    assert garden.ops() == []


async def test_budget_spent_is_undone(cell: Cell, garden: FakeGarden) -> None:
    with pytest.raises(DiegoError) as caught:
        await cell.work.run_instance(call(600), work(checks=NEVER))
    assert caught.value.find(BudgetSpent) is not None
    assert caught.value.outcome is Outcome.ROLLED_BACK
    assert caught.value.root.evidence is not None
    assert caught.value.root.evidence["check"]["answer"] == "connect: Connection refused"
    assert_nothing_left(cell, garden)


async def test_budget_spent_on_arrival(cell: Cell, garden: FakeGarden) -> None:
    with pytest.raises(BudgetSpent) as caught:
        await cell.work.run_instance(call(20), work())
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert garden.ops() == []


async def test_caller_that_hangs_up_changes_nothing(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["run"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(cell.work.run_instance(call(), work()))
        await garden.called("run")
        asking.cancel()
    garden.holds["run"].set()
    started = await cell.work.run_instance(call(), work())
    assert started.instance_guid == "i-1"
    assert garden.ops() == ["create", "run"]


async def test_stop(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    await cell.work.run_instance(call(), work())
    seen = len(bbs.reports.items)
    assert (await cell.work.stop_instance(call(), "i-1")).existed  # type: ignore[arg-type]
    assert_nothing_left(cell, garden)
    assert not (await cell.work.stop_instance(call(), "i-1")).existed  # type: ignore[arg-type]
    report = await bbs.report_with(lambda r: not r.instances, seen)
    assert report.ended == ()


async def test_stop_while_starting(cell: Cell, garden: FakeGarden) -> None:
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(attempt(cell, checks=NEVER))
        await garden.called("run")
        stopped = await cell.work.stop_instance(call(), "i-1")  # type: ignore[arg-type]
        assert stopped.existed
        assert garden.containers() == []
    error = starting.result()
    assert isinstance(error, DiegoError)
    assert error.find(StoppedWhileStarting) is not None
    assert_nothing_left(cell, garden)


async def test_stop_while_creating(cell: Cell, garden: FakeGarden) -> None:
    garden.holds["create"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(attempt(cell))
        await garden.called("create")
        stopping = group.create_task(cell.work.stop_instance(call(), "i-1"))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        garden.holds["create"].set()
    assert isinstance(starting.result(), StoppedWhileStarting)
    assert stopping.result().existed
    assert "run" not in garden.ops()
    assert_nothing_left(cell, garden)


async def test_stop_that_fails_can_be_repeated(cell: Cell, garden: FakeGarden) -> None:
    await cell.work.run_instance(call(), work())
    garden.failures["destroy"] = DestroyFailed("unmount the root")
    with pytest.raises(DiegoError) as caught:
        await cell.work.stop_instance(call(), "i-1")  # type: ignore[arg-type]
    assert caught.value.outcome is Outcome.PARTIAL
    assert cell.work.books.reservations.available().containers == 3
    del garden.failures["destroy"]
    assert (await cell.work.stop_instance(call(), "i-1")).existed  # type: ignore[arg-type]
    assert_nothing_left(cell, garden)


async def test_stop_removes_a_container_nobody_knows(cell: Cell, garden: FakeGarden) -> None:
    from cells.garden.spec import ContainerSpec

    await garden.create(call(), ContainerSpec("stray", "preloaded:base", "/bin/sh", ("-c", "sleep 1")))
    assert (await cell.work.stop_instance(call(), "stray")).existed  # type: ignore[arg-type]
    with pytest.raises(ContainerNotFound):
        await garden.wait("stray")
