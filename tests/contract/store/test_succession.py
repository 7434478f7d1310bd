"""Old and new rows of one index: whatever becomes of the new one, exactly one instance is the ordinary one."""

from typing import Any

import pytest
from attrs import evolve

from bbs.lifecycle import ReportOutcome
from bbs.succession import Pair, Succession
from diego_py.errors import CellIdTaken, ConflictError, DesiredLRPNotFound, IllegalTransition, PreconditionFailed
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRPUpdate, UpdateStrategy
from diego_py.models.identifiers import Domain
from tests.contract.store.conftest import Scene, definition, outcomes, problem, report, reported
from tests.contract.store.test_report import ended

UNCLAIMED, CLAIMED, RUNNING, CRASHED = ActualLRPState
ORDINARY, EVACUATING, SUSPECT = Presence


def succession(scene: Scene) -> Succession:
    return Succession(scene.store, scene.lifecycle)


async def rows(scene: Scene) -> list[ActualLRP]:
    async def read(tx: Any) -> list[ActualLRP]:
        found = await tx.actual_lrps.list_of("app")
        return [await tx.actual_lrps.get(row.process_guid, row.index, row.presence) for row in found]

    return await scene.store.read(scene.call, "list", read)


async def replaced(scene: Scene, memory_mb: int = 64) -> int:
    """The definition is another one now; its revision."""
    return (await succession(scene).replace(scene.call, definition(memory_mb=memory_mb))).desired.revision


async def displaced(scene: Scene) -> Pair:
    """A running instance with its replacement beside it."""
    running = await scene.running()
    return await succession(scene).displace(scene.call, running, await replaced(scene))


async def test_the_old_one_goes_on_serving_beside_the_new_one(scene: Scene) -> None:
    running = await scene.running()
    pair = await succession(scene).displace(scene.call, running, await replaced(scene))
    old, new = await rows(scene)
    assert (old, new) == (pair.old, pair.new)
    same = ("instance_guid", "cell_id", "net_info", "since", "state", "routable", "revision")
    assert [getattr(old, name) for name in same] == [getattr(running, name) for name in same]
    assert (old.presence, new.presence) == (EVACUATING, ORDINARY)
    assert (new.state, new.revision, old.revision) == (UNCLAIMED, 1, 0)
    assert new.instance_guid not in (None, old.instance_guid)
    assert list(old.rules()) == list(new.rules()) == []
    await scene.start(await scene.claim(new))
    assert await succession(scene).drop(scene.call, old)
    (row,) = await rows(scene)
    assert (row.instance_guid, row.state, row.revision) == (new.instance_guid, RUNNING, 1)
    assert not await succession(scene).drop(scene.call, old)


@pytest.mark.parametrize("became", ["waits", "claimed", "crashed", "gone"])
async def test_recalled_when_the_new_one_failed(scene: Scene, became: str) -> None:
    pair = await displaced(scene)
    if became == "claimed":
        await scene.claim(pair.new)
    elif became == "crashed":
        await scene.crash(await scene.claim(pair.new), "crash")
    elif became == "gone":
        assert (await scene.lifecycle.remove(scene.call, "app", 0, pair.new.instance_guid)).deleted
    told = problem(scene.call, "why")
    recalled = await succession(scene).recall(scene.call, pair.old, pair.new.instance_guid, told)
    (row,) = await rows(scene)
    assert recalled == row
    assert (row.presence, row.state, row.instance_guid) == (ORDINARY, RUNNING, pair.old.instance_guid)
    assert (row.crash_count, row.since, row.revision) == (0, pair.old.since, 0)
    assert row.failure is not None
    assert row.failure["instance"] == "/v1/failures/why", "the row says why it is an old one"


async def test_a_restart_ends_what_served_beside_it_too(scene: Scene) -> None:
    pair = await displaced(scene)
    claimed = await scene.claim(pair.new)
    restarted = await scene.lifecycle.restart(scene.call, "app", 0)
    assert [row.instance_guid for row in restarted.ends] == [claimed.instance_guid, pair.old.instance_guid]


async def test_what_runs_is_not_recalled_from(scene: Scene) -> None:
    """Only who knows that this very attempt failed takes its row away."""
    pair = await displaced(scene)
    await scene.start(await scene.claim(pair.new))
    assert await succession(scene).recall(scene.call, pair.old) is None
    assert await succession(scene).recall(scene.call, pair.old, "another", problem(scene.call, "f")) is None
    assert [row.presence for row in await rows(scene)] == [EVACUATING, ORDINARY]
    assert await succession(scene).recall(scene.call, pair.old, pair.new.instance_guid) is not None


@pytest.mark.parametrize("why", ["changed since", "has one beside it", "not desired", "replaced again", "does not run"])
async def test_what_may_not_step_aside(scene: Scene, why: str) -> None:
    running = await scene.running()
    revision = await replaced(scene)
    match why:
        case "changed since":
            await scene.lifecycle.report(
                scene.call, report(sequence=5, instances=[reported(running, instance_guid="other")])
            )
            await scene.crash(running, "f")
        case "has one beside it":
            new = (await succession(scene).displace(scene.call, running, revision)).new
            running = await scene.start(await scene.claim(new))
        case "not desired":
            await scene.lifecycle.undesire(scene.call, "app")
        case "replaced again":
            await replaced(scene, 128)
        case _:
            running = (await scene.lifecycle.restart(scene.call, "app", 0)).after
    before = await rows(scene)
    with pytest.raises(IllegalTransition):
        await succession(scene).displace(scene.call, running, revision)
    assert await rows(scene) == before


async def test_two_at_once_displace_it_once(scene: Scene) -> None:
    running = await scene.running()
    revision = await replaced(scene)
    both = await outcomes([succession(scene).displace(scene.call, running, revision) for _ in range(2)])
    assert sorted(type(each).__name__ for each in both) == ["IllegalTransition", "Pair"]
    assert [row.presence for row in await rows(scene)] == [EVACUATING, ORDINARY]


async def test_a_cell_vanishes_and_comes_back(scene: Scene) -> None:
    running = await scene.running()
    revision = await replaced(scene)
    new = await succession(scene).suspect(scene.call, running, None, problem(scene.call, "lost"), revision)
    ordinary, old = await rows(scene)
    assert (new.revision, ordinary.revision, old.revision) == (revision, revision, running.revision)
    assert (old.presence, old.state, old.routable) == (SUSPECT, RUNNING, True)
    assert (ordinary.presence, ordinary.state, ordinary.crash_count) == (ORDINARY, UNCLAIMED, 0)
    assert ordinary.placement_error == "process exited with status 1"
    assert ordinary.next_attempt_at is not None
    assert ordinary.instance_guid == new.instance_guid
    assert [row.failure and row.failure["instance"] for row in (ordinary, old)] == ["/v1/failures/lost"] * 2
    back = await scene.lifecycle.report(scene.call, report(sequence=9, instances=[reported(running)]))
    assert (back.stop, back.started, back.vanished) == ((), (), ()), "it is still wanted"
    assert await succession(scene).recall(scene.call, old) is not None
    (row,) = await rows(scene)
    assert (row.presence, row.instance_guid, row.failure) == (ORDINARY, running.instance_guid, None)


@pytest.mark.parametrize("how", ["ended", "vanished"])
async def test_the_end_of_one_beside_is_no_crash(scene: Scene, how: str) -> None:
    """Its replacement is on its way already; its story is kept."""
    pair = await displaced(scene)
    await scene.age(60)
    over = [ended(scene, pair.old)] if how == "ended" else []
    outcome = await scene.lifecycle.report(scene.call, report(sequence=9, ended=over))
    assert (outcome.crashed, outcome.vanished) == ((), ())
    assert outcome.acknowledged == tuple(item.instance_guid for item in over)
    (row,) = await rows(scene)
    assert (row.instance_guid, row.state, row.crash_count) == (pair.new.instance_guid, UNCLAIMED, 0)


async def test_one_beside_that_is_not_ready_is_not_routable(scene: Scene) -> None:
    pair = await displaced(scene)
    both = [reported(pair.old, routable=False)]
    await scene.lifecycle.report(scene.call, report(sequence=8, instances=both))
    old, new = await rows(scene)
    assert (old.routable, old.state, old.presence, old.since) == (False, RUNNING, EVACUATING, pair.old.since)
    assert new == pair.new
    await scene.lifecycle.report(scene.call, report(sequence=9, instances=[reported(pair.old)]))
    assert (await rows(scene))[0].routable


async def test_one_that_is_closed_is_not_opened_by_a_report_nor_recalled(scene: Scene) -> None:
    """It ends: routers have to know before it does."""
    pair = await displaced(scene)
    await scene.store.run(scene.call, "close", lambda tx: tx.actual_lrps.close(pair.old))
    (closed, _) = await rows(scene)
    assert (closed.routable, closed.state, closed.presence) == (False, RUNNING, EVACUATING)
    assert closed.stop_asked_at is not None
    assert closed.modification_tag.index == pair.old.modification_tag.index + 1
    await scene.store.run(scene.call, "close", lambda tx: tx.actual_lrps.close(pair.old))
    await scene.lifecycle.report(scene.call, report(sequence=9, instances=[reported(pair.old)]))
    assert await succession(scene).recall(scene.call, pair.old, pair.new.instance_guid) is None
    assert await rows(scene) == [closed, pair.new]


async def test_why_it_was_not_replaced_stays_while_it_runs(scene: Scene) -> None:
    pair = await displaced(scene)
    await succession(scene).recall(scene.call, pair.old, pair.new.instance_guid, problem(scene.call, "why"))
    for sequence, ready in ((8, False), (9, True)):
        told = [reported(pair.old, routable=ready)]
        await scene.lifecycle.report(scene.call, report(sequence=sequence, instances=told))
        (row,) = await rows(scene)
        assert row.routable is ready
        assert row.failure is not None
        assert row.failure["instance"] == "/v1/failures/why"


async def test_both_rows_of_an_index_on_one_cell(scene: Scene) -> None:
    """A report finds each under its own name."""
    pair = await displaced(scene)
    claimed = await scene.claim(pair.new)
    both = [reported(pair.old), reported(claimed)]
    outcome = await scene.lifecycle.report(scene.call, report(sequence=9, instances=both))
    assert (outcome.stop, [row.instance_guid for row in outcome.started]) == ((), [claimed.instance_guid])
    await scene.age(60)
    over = report(sequence=10, instances=[reported(pair.old)], ended=[ended(scene, claimed)])
    (crashed,) = (await scene.lifecycle.report(scene.call, over)).crashed
    assert (crashed.instance_guid, crashed.crash_count) == (None, 1)
    old, new = await rows(scene)
    assert (old.state, new.state) == (RUNNING, CRASHED)


async def test_a_definition_that_needs_no_other_containers_keeps_the_revision(scene: Scene) -> None:
    await scene.running()
    change = succession(scene).replace
    for same in (
        {"routes": {"cf-router": []}, "annotation": "x"},
        {"update_strategy": UpdateStrategy.RECREATE},
        {"instances": 2},
    ):
        done = await change(scene.call, definition(**same))  # type: ignore[arg-type]
        assert (done.desired.revision, [row.index for row in done.current]) == (0, [0])
        assert (await change(scene.call, done.desired.definition)).desired == done.desired, "no news, no new tag"
    other = await change(scene.call, definition(memory_mb=1))
    assert (other.desired.revision, [row.index for row in other.outdated]) == (1, [0])
    assert [row.index for row in other.surplus] == [1]
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=3))
    assert {row.revision for row in await rows(scene) if row.index} == {0, 1}, "a new row has the new definition"


async def test_a_replacement_is_refused(scene: Scene) -> None:
    change = succession(scene).replace
    with pytest.raises(DesiredLRPNotFound):
        await change(scene.call, definition())
    await scene.unclaimed()
    with pytest.raises(PreconditionFailed):
        await change(scene.call, definition(memory_mb=1), if_match='"e.7"')
    with pytest.raises(ConflictError):
        await change(scene.call, evolve(definition(), domain=Domain("other")))


async def test_two_cells_of_one_id(scene: Scene) -> None:
    """The second one is told so and changes nothing, until the first one is gone; a restart is none."""

    async def told(home: str, boot: str, sequence: int) -> ReportOutcome:
        said = report(boot=boot, sequence=sequence)
        presence = evolve(said.presence, home_id=home, url=f"http://{home}:1800")
        return await scene.lifecycle.report(scene.call, evolve(said, presence=presence))

    assert (await told("one", "boot-1", 1)).accepted
    with pytest.raises(CellIdTaken, match="http://one:1800"):
        await told("two", "boot-2", 1)
    assert (await told("one", "boot-3", 1)).accepted, "restarted"
    assert not (await told("one", "boot-1", 9)).accepted, "late, and no other cell"
    await scene.tampering.shift("cells", "expires_at", -60)
    assert (await told("two", "boot-2", 2)).accepted
    with pytest.raises(CellIdTaken):
        await told("one", "boot-3", 9)
