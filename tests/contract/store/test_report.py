"""A cell's report: presence by the database's clock, and rows brought in line with what the cell has."""

from typing import Any

import msgspec
import pytest
from attrs import evolve

from bbs import outcome
from bbs.pace import NOT_RENEWED, Pace
from bbs.store import failures
from bbs.store.attempts import Start
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo
from diego_py.models.work import EndedReport, InstanceState
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import NET_INFO, Scene, problem, report, reported

UNCLAIMED, CLAIMED, RUNNING, CRASHED = ActualLRPState


def ended(scene: Scene, row: ActualLRP, **fields: Any) -> EndedReport:
    assert row.instance_guid is not None
    document = msgspec.json.decode(problem(scene.call, "cell-made").encode())
    return EndedReport(
        process_guid=row.process_guid,
        index=row.index,
        domain=row.domain,
        instance_guid=fields.pop("instance_guid", row.instance_guid),
        failure={**document, **fields},
    )


async def test_presence_lasts_until_it_runs_out(scene: Scene) -> None:
    await scene.cell()
    (known,) = await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_live())
    assert (known.presence, known.available, known.live) == (report().presence, report().available, True)
    assert known.seen_at is not None
    assert known.expires_at is not None
    assert (known.expires_at - known.seen_at).total_seconds() == pytest.approx(15, abs=0.1)
    assert await scene.store.run(scene.call, "expire", lambda tx: tx.cells.expire("cell-1"))
    assert await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_live()) == []
    (gone,) = await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_all())
    assert not gone.live
    assert await scene.store.run(scene.call, "delete", lambda tx: tx.cells.delete("cell-1"))
    assert not await scene.store.run(scene.call, "delete", lambda tx: tx.cells.delete("cell-1"))


async def test_an_older_report_never_overwrites(scene: Scene) -> None:
    async def accepted(boot: str, sequence: int) -> bool:
        outcome = await scene.lifecycle.report(scene.call, report("cell-1", boot, sequence))
        assert outcome.term == (Pace().term() if outcome.accepted else NOT_RENEWED)
        return outcome.accepted

    assert await accepted("boot-1", 5)
    assert not await accepted("boot-1", 4)
    assert await accepted("boot-1", 5)
    assert await accepted("boot-2", 0)
    assert not await accepted("boot-1", 6)
    assert await accepted("boot-2", 1)
    await scene.tampering.put("cells", "expires_at", SystemClock().now())
    assert await accepted("boot-1", 7)


async def test_an_old_report_stops_and_fails_nothing(scene: Scene) -> None:
    running = await scene.running()
    await scene.age(60)
    await scene.lifecycle.report(scene.call, report(sequence=9, instances=[reported(running)]))
    late = await scene.lifecycle.report(scene.call, report(sequence=8, ended=[ended(scene, running)]))
    assert (late.accepted, late.stop, late.acknowledged) == (False, (), ())
    now = await scene.row()
    assert now is not None
    assert now.state is RUNNING


async def test_what_runs_as_known_changes_nothing(scene: Scene) -> None:
    running = await scene.running()
    outcome = await scene.lifecycle.report(scene.call, report(instances=[reported(running)]))
    assert (outcome.accepted, outcome.stop, outcome.started, outcome.vanished) == (True, (), (), ())
    assert await scene.row() == running


@pytest.mark.parametrize("claimed", [True, False])
async def test_what_runs_and_is_not_known_to_is_started(scene: Scene, claimed: bool) -> None:
    row = await scene.claimed() if claimed else (await scene.unclaimed())[0]
    outcome = await scene.lifecycle.report(scene.call, report(instances=[reported(row)]))
    (started,) = outcome.started
    assert (started.state, started.cell_id, started.net_info) == (RUNNING, "cell-1", NET_INFO)
    assert started.availability_zone == "z1"
    assert await scene.row() == started


async def test_a_new_address_is_taken_up(scene: Scene) -> None:
    running = await scene.running()
    moved = evolve(reported(running), net_info=NetInfo(address="10.9.9.9"))
    (after,) = (await scene.lifecycle.report(scene.call, report(instances=[moved]))).started
    assert after.net_info == NetInfo(address="10.9.9.9")


@pytest.mark.parametrize("state", [InstanceState.RESERVED, InstanceState.CREATED])
async def test_what_is_on_its_way_is_left_alone(scene: Scene, state: InstanceState) -> None:
    (row,) = await scene.unclaimed()
    outcome = await scene.lifecycle.report(scene.call, report(instances=[reported(row, state)]))
    assert (outcome.stop, outcome.started) == ((), ())
    assert await scene.row() == row


async def test_an_end_that_is_not_over_is_asked_for_again(scene: Scene) -> None:
    """A stop may have failed half-way: nobody else would ever finish it, and the row would stay RUNNING."""
    running = await scene.running()
    outcome = await scene.lifecycle.report(scene.call, report(instances=[reported(running, InstanceState.STOPPING)]))
    assert outcome.stop == (running.instance_guid,)
    assert await scene.row() == running
    await scene.age(6)
    gone = await scene.lifecycle.report(scene.call, report(sequence=2))
    assert [row.state for row in gone.vanished] == [UNCLAIMED]


async def test_what_has_no_row_is_stopped(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    offered = await scene.lifecycle.offer(scene.call, row)
    outcome = await scene.lifecycle.report(scene.call, report(instances=[reported(row)]))
    assert outcome.stop == (row.instance_guid,)
    assert await scene.row() == offered


async def test_what_another_cell_has_is_stopped_here_and_untouched_there(scene: Scene) -> None:
    """I11: the same instance_guid on two cells; a report never moves another cell's row."""
    running = await scene.running()
    await scene.age(60)
    before = await scene.row()
    other = report("cell-2", instances=[reported(running)], ended=[])
    outcome = await scene.lifecycle.report(scene.call, other)
    assert (outcome.stop, outcome.started) == ((running.instance_guid,), ())
    outcome = await scene.lifecycle.report(scene.call, report("cell-2", sequence=2, ended=[ended(scene, running)]))
    assert (outcome.acknowledged, outcome.crashed) == ((running.instance_guid,), ())
    assert await scene.row() == before


async def test_an_instance_under_another_name_is_stopped(scene: Scene) -> None:
    running = await scene.running()
    misnamed = evolve(reported(running), index=5)
    assert (await scene.lifecycle.report(scene.call, report(instances=[misnamed]))).stop == (running.instance_guid,)


@pytest.mark.parametrize("running", [True, False])
async def test_what_the_cell_no_longer_has_is_put_back(scene: Scene, running: bool) -> None:
    row = await scene.running() if running else await scene.claimed()
    young = await scene.lifecycle.report(scene.call, report(sequence=1))
    assert young.vanished == ()
    await scene.age(6)
    outcome = await scene.lifecycle.report(scene.call, report(sequence=2))
    (vanished,) = outcome.vanished
    assert (vanished.state, vanished.instance_guid, vanished.cell_id) == (UNCLAIMED, None, None)
    assert vanished.next_attempt_at is not None
    now = await scene.row()
    assert now == vanished
    assert now is not None
    assert now.failure is not None
    assert (now.failure["code"], now.failure["outcome"]) == ("executor.container_vanished", "rolled_back")
    assert [frame["hop"] for frame in now.failure["chain"]][-1] == "rep"
    assert now.failure["instance"].startswith("/v1/failures/")
    assert str(row.instance_guid) in str(now.placement_error)


async def test_a_crash_is_counted_and_acknowledged_once(scene: Scene) -> None:
    running = await scene.running()
    told = report(sequence=3, ended=[ended(scene, running)])
    first = await scene.lifecycle.report(scene.call, told)
    assert first.acknowledged == (running.instance_guid,)
    (crashed,) = first.crashed
    assert (crashed.state, crashed.crash_count) == (CRASHED, 1)
    again = await scene.lifecycle.report(scene.call, told)
    assert (again.acknowledged, again.crashed) == ((running.instance_guid,), ())
    listed = await scene.store.read(scene.call, "list", lambda tx: tx.failures.list_page(failures.Filter()))
    assert [failure.code for failure in listed] == ["app.exited"]
    assert (listed[0].cell_id, listed[0].instance_guid) == ("cell-1", running.instance_guid)
    assert listed[0].document["instance"] == f"/v1/failures/{listed[0].id}"
    where = await scene.store.read(scene.call, "last", lambda tx: tx.failures.last_on_a_cell("app", 0))
    assert where == ("cell-1", running.instance_guid)


async def test_a_crash_says_when_the_next_start_is_and_at_last_that_there_is_none(scene: Scene) -> None:
    await scene.cell()
    for crashes in (2, 199):
        (row,) = await scene.unclaimed(f"app-{crashes}")
        running = await scene.start(await scene.claim(row))
        await scene.tampering.put("actual_lrps", "crash_count", crashes, f"app-{crashes}")
        await scene.lifecycle.report(scene.call, report(sequence=crashes, ended=[ended(scene, running)]))
    waits, given_up = [await scene.row(f"app-{crashes}") for crashes in (2, 199)]
    assert waits is not None
    assert waits.failure is not None
    assert waits.next_attempt_at is not None
    assert waits.failure["next_attempt_at"] == outcome.instant(waits.next_attempt_at)
    assert (waits.next_attempt_at - waits.since).total_seconds() == 30
    assert given_up is not None
    assert given_up.failure is not None
    assert (given_up.crash_count, given_up.next_attempt_at) == (200, None)
    assert "next_attempt_at" not in given_up.failure
    first, *others = given_up.failure["next"]
    assert first["run"] == "diego restart app-199 0"
    assert "200 crashes" in first["do"]
    assert others, "what the cell advises stays"


async def test_a_document_of_nonsense_is_stored_all_the_same(scene: Scene) -> None:
    running = await scene.running()
    odd = ended(scene, running, code=None, status="x", detail="a\0b", chain="?", fault=["f"], request_id={})
    outcome = await scene.lifecycle.report(scene.call, report(ended=[odd]))
    assert [row.crash_reason for row in outcome.crashed] == ["a\N{REPLACEMENT CHARACTER}b"]


async def test_several_differences_of_one_report(scene: Scene) -> None:
    await scene.cell()
    rows = await scene.unclaimed(instances=5)
    claimed = [await scene.claim(row) for row in rows[:4]]
    ran = await scene.start(claimed[3])
    await scene.age(10)
    outcome = await scene.lifecycle.report(
        scene.call,
        report(
            sequence=5,
            instances=[reported(claimed[0]), reported(claimed[1], InstanceState.CREATED)],
            ended=[ended(scene, ran)],
        ),
    )
    assert [row.index for row in outcome.started] == [0]
    assert [row.index for row in outcome.vanished] == [2]
    assert [row.index for row in outcome.crashed] == [3]
    now = [await scene.row(index=index) for index in range(5)]
    assert [row.state for row in now if row] == [RUNNING, CLAIMED, UNCLAIMED, CRASHED, UNCLAIMED]


@pytest.mark.parametrize("readiness", [False, True])
async def test_readiness_changes_nothing_but_whether_it_is_routable(scene: Scene, readiness: bool) -> None:
    await scene.running()
    await scene.age(400)
    before = await scene.row()
    assert before is not None
    await scene.lifecycle.report(scene.call, report(sequence=2, instances=[reported(before, routable=readiness)]))
    after = await scene.row()
    assert after is not None
    assert (after.routable, after.since, after.crash_count) == (readiness, before.since, before.crash_count)
    assert (after == before) is readiness
    await scene.lifecycle.report(scene.call, report(sequence=3, instances=[reported(after, routable=True)]))
    again = await scene.row()
    assert again is not None
    assert (again.routable, again.since) == (True, before.since)


async def test_one_that_starts_unready_is_not_routable_before_its_cell_says_so(scene: Scene) -> None:
    claimed = await scene.claimed()
    assert claimed.instance_guid is not None
    key = (claimed.process_guid, claimed.index, claimed.instance_guid)
    unready = Start(*key, "cell-1", NET_INFO, "z1", routable=False)
    started = await scene.lifecycle.start(scene.call, unready)
    assert (started.state, started.routable) == (ActualLRPState.RUNNING, False)
    await scene.lifecycle.report(scene.call, report(sequence=2, instances=[reported(started)]))
    late = await scene.lifecycle.start(scene.call, unready)
    assert late.routable


@pytest.mark.parametrize(("ran_s", "waits"), [(10, True), (400, False)])
async def test_an_end_by_the_platforms_fault_is_no_crash(scene: Scene, ran_s: float, waits: bool) -> None:
    running = await scene.running()
    await scene.age(ran_s)
    told = ended(scene, running, code="executor.program_lost", fault="platform", detail="restarted")
    outcome = await scene.lifecycle.report(scene.call, report(sequence=2, ended=[told]))
    assert outcome.acknowledged == (running.instance_guid,)
    row = await scene.row()
    assert row is not None
    assert (row.state, row.crash_count, row.placement_error) == (ActualLRPState.UNCLAIMED, 0, "restarted")
    assert row.next_attempt_at is not None
    assert ((row.next_attempt_at - row.since).total_seconds() > 1) is waits
