"""Instances that end on their own, and cells that start again: nothing is lost, nothing is told twice."""

import asyncio
from pathlib import Path

import pytest

from cells.app import Cell
from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps.own_process import OwnProcess
from diego_py import chain
from diego_py.errors import ContainerVanished, DiegoError, HandleTaken, Outcome, OutOfMemory, ProcessExited
from diego_py.models.checks import Check, CommandCheck, TCPCheck
from diego_py.models.work import CellReport, InstanceState
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, plan_of, running_cell, work
from tests.fakes.garden import FakeGarden


def ended(report: CellReport) -> bool:
    return bool(report.ended)


def running(report: CellReport) -> bool:
    return any(instance.state is InstanceState.RUNNING for instance in report.instances)


def gone(cell: Cell) -> bool:
    return len(cell.work.books.instances) == 0 and cell.work.books.reservations.available().containers == 4


def failure_in(report: CellReport) -> DiegoError:
    return chain.rebuild(report.ended[0].failure)


async def test_exit_is_told_with_its_chain(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
        garden.write("i-1", "out of ideas")
        garden.end("i-1", 0)
        report = await bbs.report_with(ended)
        assert report.ended[0].instance_guid == "i-1"
        assert report.ended[0].failure["subject"]["guid"] == "web"
        assert [frame["hop"] for frame in report.ended[0].failure["chain"]] == ["rep", "executor"]
        error = failure_in(report)
        assert isinstance(error.root, ProcessExited)
        assert error.root.message == "exited with status 0"
        assert error.root.evidence is not None
        assert error.root.evidence["app_log_tail"] == ["out of ideas"]
        assert gone(cell)
        assert garden.containers() == []


@pytest.mark.parametrize(
    ("status", "oom", "kind", "told"),
    [
        (137, True, OutOfMemory, "killed by signal 9 (out of memory)"),
        (139, False, ProcessExited, "killed by signal 11"),
    ],
)
async def test_kinds_of_ends(
    tmp_path: Path, garden: FakeGarden, bbs: FakeBBS, status: int, oom: bool, kind: type[DiegoError], told: str
) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
        garden.end("i-1", status, oom_killed=oom)
        root = failure_in(await bbs.report_with(ended)).root
        assert isinstance(root, kind)
        assert root.message == told


async def test_vanished_container(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
    garden.vanish("i-1")
    async with running_cell(tmp_path, garden, bbs) as cell:
        assert gone(cell)
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work("i-2"))
        instance = next(iter(cell.work.books.instances))
        await cell.work.watcher.leave(instance)
        await cell.work.executor.programs.end("i-2")
        container = garden.containers()[0]
        garden.vanish("i-2")
        workload = Workload(health=HealthPlan(start_timeout_s=1.0), action=OwnProcess(begun=True))
        cell.work.watcher.begin(instance, container, workload)
        assert failure_in(await bbs.report_with(ended)).find(ContainerVanished) is not None


async def test_liveness(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        check = Check(tcp=TCPCheck(port=port, interval_ms=10))
        await cell.work.run_instance(call(), work(checks=(check,), script="echo serving; sleep 1000"))
        server.close()
        await server.wait_closed()
        report = await bbs.report_with(ended)
        assert report.ended[0].failure["code"] == "app.became_unhealthy"
        evidence = report.ended[0].failure["evidence"]
        assert evidence["check"]["kind"] == "tcp"
        assert evidence["check"]["target"] == f"127.0.0.1:{port}"
        assert evidence["check"]["answer"] == "connect: Connection refused"
        assert evidence["app_log_tail"] == ["serving"]
        assert garden.ops()[-1:] == ["destroy"]
        assert gone(cell)


async def test_check_the_host_cannot_do_kills_nothing(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        check = Check(command=CommandCheck(path="/bin/sh", args=("-c", "exit 0"), user="root", interval_ms=5))
        await cell.work.run_instance(call(), work(checks=(check,)))
        garden.failures["exec"] = DiegoError("the host is out of processes")
        seen = len(garden.calls.items)
        await garden.calls.first(lambda called: called[0] == "exec", seen)
        await garden.calls.first(lambda called: called[0] == "exec", seen + 1)
        assert [i.state for i in cell.work.books.instances] == [InstanceState.RUNNING]


async def test_ends_survive_until_acknowledged(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.acknowledges = False
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
        garden.end("i-1", 1)
        await bbs.report_with(ended)
        with pytest.raises(HandleTaken) as caught:
            await cell.work.run_instance(call(), work())
        assert caught.value.outcome is Outcome.NOT_STARTED
    seen = len(bbs.reports.items)
    async with running_cell(tmp_path, garden, bbs):
        await bbs.report_with(ended, seen)
    bbs.acknowledges = True
    async with running_cell(tmp_path, garden, bbs):
        pass
    seen = len(bbs.reports.items)
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.sync.report()
        assert not any(ended(report) for report in bbs.reports.items[seen:])
    assert list((tmp_path / "rep" / "ended").iterdir()) == []


async def test_running_containers_are_adopted(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        started = await cell.work.run_instance(call(), work(ports=(8080,)))
    assert garden.closed
    assert [container.state for container in garden.containers()] == ["running"]
    seen = len(bbs.reports.items)
    async with running_cell(tmp_path, garden, bbs) as cell:
        report = await bbs.report_with(running, seen)
        assert report.instances[0].net_info == started.net_info
        assert report.available.memory_mb == 1024 - 128
        again = await cell.work.run_instance(call(), work(ports=(8080,)))
        assert again.net_info == started.net_info
        garden.end("i-1", 4)
        assert failure_in(await bbs.report_with(ended, seen)).root.message == "exited with status 4"


async def test_what_ended_meanwhile_is_told(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
    garden.end("i-1", 9)
    async with running_cell(tmp_path, garden, bbs) as cell:
        assert failure_in(await bbs.report_with(ended)).root.message == "exited with status 9"
        assert gone(cell)
    assert garden.containers() == []


async def test_what_never_ran_is_removed(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    
    await garden.create(call(), plan_of(work(), 1.0).spec)
    async with running_cell(tmp_path, garden, bbs) as cell:
        assert gone(cell)
        assert garden.containers() == []
        await cell.sync.report()
        assert bbs.reports.items[-1].ended == ()


async def test_containers_of_others_are_left_alone(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    from cells.garden.spec import ContainerSpec

    await garden.create(call(), ContainerSpec("stray", "preloaded:base", "/bin/sh", ("-c", "sleep 1")))
    async with running_cell(tmp_path, garden, bbs):
        assert [container.handle for container in garden.containers()] == ["stray"]


async def test_ordered_stop(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs) as cell:
        await cell.work.run_instance(call(), work())
        bbs.stop = ("i-1", "never-heard-of")
        await cell.sync.report()
        await bbs.report_with(lambda report: not report.instances, len(bbs.reports.items))
        assert gone(cell)


async def test_ordered_stop_spares_what_is_being_claimed(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.hold_claims = asyncio.Event()
    bbs.stop = ("i-1",)
    async with running_cell(tmp_path, garden, bbs) as cell, asyncio.TaskGroup() as group:
        starting = group.create_task(cell.work.run_instance(call(), work()))
        await bbs.claims.first(lambda _: True)
        await cell.sync.report()
        bbs.stop = ()
        bbs.hold_claims.set()
        assert (await starting).instance_guid == "i-1"


async def test_next_bbs_is_tried(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    nobody = "http://127.0.0.1:1"
    async with running_cell(tmp_path, garden, bbs, bbs_urls=(nobody, bbs.url)) as cell:
        await cell.work.run_instance(call(), work())
        assert bbs.reports.items


async def test_all_bbses_gone(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, garden, bbs, report_interval_s=0.01) as cell:
        bbs.presence_ttl_ms = 0
        await cell.sync.report()
        assert cell.work.admission.lease.lacks() is not None
        with pytest.raises(DiegoError):
            await cell.work.run_instance(call(), work())


async def test_grace_time_for_work_under_way(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS) -> None:
    """A start that is not done when the process ends is undone, and whoever asked is told so."""
    garden.holds["run"] = asyncio.Event()
    async with asyncio.TaskGroup() as group, running_cell(tmp_path, garden, bbs, stop_grace_s=0.05) as cell:
        starting = group.create_task(outcome(cell))
        await garden.called("run")
    error = starting.result()
    assert isinstance(error, DiegoError)
    assert error.code == "shutting_down"
    assert garden.containers() == []


async def outcome(cell: Cell) -> object:
    try:
        return await cell.work.run_instance(call(), work())
    except DiegoError as failure:
        return failure
