"""Each method of the lifecycle, one row, one actor."""

from datetime import timedelta

import msgspec
import pytest
from attrs import evolve

from bbs.lifecycle import Lifecycle, etag
from bbs.store import desires
from bbs.store.actual_lrps import RemovedRow
from bbs.store.attempts import Claim, Start
from diego_py.call import Call
from diego_py.errors import (
    ActualLRPNotFound,
    AlreadyExists,
    ClaimRefused,
    DesiredLRPNotFound,
    IllegalTransition,
    InstanceFailed,
    NoCellFits,
    PreconditionFailed,
    StillBeingDeleted,
)
from diego_py.models.actions import EnvironmentVariable
from diego_py.models.actual_lrp import ActualLRPState, NetInfo, Presence
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.secret import Secret
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import NET_INFO, Scene, definition, instance_guid, outcomes, problem

UNCLAIMED, CLAIMED, RUNNING, CRASHED = ActualLRPState


async def test_desire_stores_the_definition_and_offers_every_instance(scene: Scene) -> None:
    wanted = definition(instances=3, environment_variables=(EnvironmentVariable(name="A", value=Secret("s3cret")),))
    desired = await scene.lifecycle.desire(scene.call, wanted)
    assert [(row.index, row.state, row.presence) for row in desired.actuals] == [
        (index, UNCLAIMED, Presence.ORDINARY) for index in range(3)
    ]
    assert len({row.instance_guid for row in desired.actuals} - {None}) == 3
    assert desired.desired.modification_tag.index == 0
    stored = await scene.store.read(scene.call, "get", lambda tx: tx.desired_lrps.get("app"))
    assert stored == desired.desired
    assert stored is not None
    assert stored.definition.environment_variables[0].value.reveal() == "s3cret"


async def test_desire_twice_is_refused_and_changes_nothing(scene: Scene) -> None:
    (before,) = await scene.unclaimed()
    with pytest.raises(AlreadyExists):
        await scene.lifecycle.desire(scene.call, definition(instances=5))
    assert await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all()) == [before]


async def test_update_scales_up_and_names_the_surplus(scene: Scene) -> None:
    await scene.unclaimed(instances=2)
    more = await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=4))
    assert [row.index for row in more.added] == [2, 3]
    assert all(row.instance_guid for row in more.added)
    assert (more.before.definition.instances, more.desired.definition.instances, more.surplus) == (2, 4, ())
    assert more.desired.modification_tag == more.before.modification_tag.next()
    less = await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=1))
    assert [row.index for row in less.surplus] == [1, 2, 3]
    assert less.added == ()
    assert len(await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())) == 4


async def test_update_looks_at_if_match(scene: Scene) -> None:
    desired = (await scene.lifecycle.desire(scene.call, definition())).desired
    change = DesiredLRPUpdate(annotation="new")
    updated = await scene.lifecycle.update(scene.call, "app", change, etag(desired))
    for stale in (etag(desired), '"other.1"', 'W/"x"'):
        with pytest.raises(PreconditionFailed):
            await scene.lifecycle.update(scene.call, "app", change, stale)
    listed = f'"a.1", {etag(updated.desired)}'
    await scene.lifecycle.update(scene.call, "app", change, listed)
    await scene.lifecycle.update(scene.call, "app", change, "*")
    with pytest.raises(DesiredLRPNotFound):
        await scene.lifecycle.update(scene.call, "other", change)


async def test_who_scales_down_asks_for_the_end_of_the_surplus_and_who_scales_up_again_takes_it_back(
    scene: Scene,
) -> None:
    await scene.cell()
    for row in await scene.unclaimed(instances=3):
        await scene.start(await scene.claim(row))
    less = await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=1))
    assert [(row.index, row.stop_asked_at is not None) for row in less.surplus] == [(1, True), (2, True)]
    lost = await scene.lifecycle.lose(scene.call, less.surplus[0], None, problem(scene.call, "lost"))
    assert lost.stop_asked_at == less.surplus[0].stop_asked_at
    more = await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=2))
    assert [(row.index, row.stop_asked_at is not None) for row in more.surplus] == [(2, True)]
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app"))
    assert [row.stop_asked_at is not None for row in rows] == [False, False, True]
    assert more.surplus[0] == less.surplus[1]


async def test_undesire_leaves_what_a_cell_has_and_deletes_the_rest(scene: Scene) -> None:
    await scene.cell()
    rows = await scene.unclaimed(instances=4)
    claimed = await scene.claim(rows[1])
    running = await scene.start(await scene.claim(rows[2]))
    await scene.crash(await scene.start(await scene.claim(rows[3])), "f")
    removed = await scene.lifecycle.undesire(scene.call, "app")
    assert [(row.instance_guid, row.state) for row in removed] == [
        (claimed.instance_guid, CLAIMED),
        (running.instance_guid, RUNNING),
    ]
    assert all(row.stop_asked_at is not None for row in removed)
    with pytest.raises(StillBeingDeleted):
        await scene.lifecycle.desire(scene.call, definition())
    with pytest.raises(ClaimRefused):
        await scene.claim(rows[0])
    with pytest.raises(DesiredLRPNotFound):
        await scene.lifecycle.undesire(scene.call, "app")


async def test_undesire_of_one_revision_leaves_every_other(scene: Scene) -> None:
    """Who undoes his own wish must not undo what somebody else has asked for since."""
    before = (await scene.lifecycle.desire(scene.call, definition())).desired
    after = (await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=2))).desired
    with pytest.raises(PreconditionFailed):
        await scene.lifecycle.undesire(scene.call, "app", only=before.modification_tag)
    assert len(await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app"))) == 2
    await scene.lifecycle.undesire(scene.call, "app", only=after.modification_tag)
    with pytest.raises(DesiredLRPNotFound):
        await scene.lifecycle.undesire(scene.call, "app", only=after.modification_tag)


async def test_add_missing_fills_only_the_holes(scene: Scene) -> None:
    rows = await scene.unclaimed(instances=3)
    await scene.lifecycle.remove(scene.call, "app", 1, None)
    added = await scene.lifecycle.add_missing(scene.call, "app", None)
    assert [(row.index, row.instance_guid) for row in added] == [(1, None)]
    assert added[0].modification_tag.epoch != rows[1].modification_tag.epoch
    assert await scene.lifecycle.add_missing(scene.call, "app", None) == ()
    assert await scene.lifecycle.add_missing(scene.call, "other", None) == ()


async def test_a_claim_and_its_repetition(scene: Scene) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    claimed = await scene.claim(row)
    assert (claimed.state, claimed.cell_id, claimed.instance_guid) == (CLAIMED, "cell-1", row.instance_guid)
    assert claimed.modification_tag == row.modification_tag.next()
    assert await scene.claim(row) == claimed
    assert await scene.row() == claimed


@pytest.mark.parametrize(
    ("guid", "cell", "boot", "why"),
    [
        ("other", "cell-1", "boot-1", "waits for"),
        (None, "cell-9", "boot-1", "no live presence"),
        (None, "cell-1", "boot-0", "no live presence"),
    ],
)
async def test_claims_that_are_refused(scene: Scene, guid: str | None, cell: str, boot: str, why: str) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    with pytest.raises(ClaimRefused, match=why):
        await scene.claim(row if guid is None else evolve(row, instance_guid=instance_guid(guid)), cell, boot)
    assert await scene.row() == row


async def test_a_claim_after_the_presence_ran_out_is_refused(scene: Scene) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    await scene.tampering.put("cells", "expires_at", SystemClock().now())
    with pytest.raises(ClaimRefused, match="no live presence"):
        await scene.claim(row)


async def test_a_claim_of_no_row_is_refused(scene: Scene) -> None:
    with pytest.raises(ClaimRefused, match="no row"):
        await scene.lifecycle.claim(scene.call, Claim("none", 0, instance_guid("g"), "cell-1", "boot-1"))


async def test_a_claim_of_another_cells_instance_is_refused(scene: Scene) -> None:
    row = await scene.claimed()
    await scene.cell("cell-2")
    with pytest.raises(ClaimRefused, match="belongs to cell cell-1"):
        await scene.claim(row, "cell-2")
    with pytest.raises(ClaimRefused, match="is RUNNING"):
        await scene.claim(await scene.start(row))


async def test_start_says_where_it_runs(scene: Scene) -> None:
    claimed = await scene.claimed()
    running = await scene.start(claimed)
    assert (running.state, running.net_info, running.routable) == (RUNNING, NET_INFO, True)
    assert (running.availability_zone, running.attempts) == ("z1", 0)
    assert await scene.row() == running


async def test_start_again_writes_nothing_unless_the_address_changed(scene: Scene) -> None:
    running = await scene.running()
    assert await scene.start(running) == running
    assert running.instance_guid is not None
    moved = NetInfo(address="10.0.0.2")
    after = await scene.lifecycle.start(scene.call, Start("app", 0, running.instance_guid, "cell-1", moved, "z1"))
    assert (after.net_info, after.since) == (moved, running.since)
    assert after.modification_tag == running.modification_tag.next()


async def test_start_of_another_instance_or_cell_is_refused(scene: Scene) -> None:
    claimed = await scene.claimed()
    with pytest.raises(ClaimRefused):
        await scene.start(evolve(claimed, instance_guid=instance_guid("other")))
    with pytest.raises(ClaimRefused):
        await scene.start(claimed, "cell-2")
    assert await scene.row() == claimed


async def test_offer_gives_up_the_offer_before(scene: Scene) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    again = await scene.lifecycle.offer(scene.call, row)
    assert again.instance_guid != row.instance_guid
    assert (again.state, again.attempts) == (UNCLAIMED, 1)
    with pytest.raises(ClaimRefused):
        await scene.claim(row)
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.offer(scene.call, row)
    claimed = await scene.claim(again)
    third = await scene.lifecycle.offer(scene.call, again)
    assert (third.state, third.cell_id, third.attempts) == (UNCLAIMED, None, 2)
    with pytest.raises(ClaimRefused):
        await scene.start(claimed)


async def test_offer_of_a_running_row_is_illegal(scene: Scene) -> None:
    running = await scene.running()
    with pytest.raises(IllegalTransition) as illegal:
        await scene.lifecycle.offer(scene.call, running)
    assert illegal.value.evidence == {"from": "RUNNING", "event": "OFFER", "instance_guid": running.instance_guid}


async def test_fail_stores_the_reason_with_its_document(scene: Scene) -> None:
    claimed = await scene.claimed()
    at = SystemClock().now() + timedelta(seconds=30)
    document = problem(scene.call, "f1", NoCellFits("no cell has 9 GB"))
    failed = await scene.lifecycle.fail(scene.call, claimed, document, at)
    assert failed is not None
    assert (failed.state, failed.instance_guid, failed.cell_id) == (UNCLAIMED, None, None)
    assert (failed.placement_error, failed.attempts) == ("no cell has 9 GB", 1)
    assert failed.next_attempt_at is not None
    assert abs((failed.next_attempt_at - at).total_seconds()) < 1
    assert await scene.row() == failed
    assert failed.failure == msgspec.json.decode(document.encode())
    stored = await scene.store.read(scene.call, "get", lambda tx: tx.failures.get_document("f1"))
    assert stored == document.encode()
    record = await scene.store.read(scene.call, "get", lambda tx: tx.failures.get("f1"))
    assert record is not None
    assert (record.cell_id, record.instance_guid, record.phase) == ("cell-1", claimed.instance_guid, "place")


async def test_fail_of_what_moved_on_keeps_only_the_document(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    again = await scene.lifecycle.offer(scene.call, row)
    assert await scene.lifecycle.fail(scene.call, row, problem(scene.call, "late")) == again
    running = await scene.running("other")
    assert await scene.lifecycle.fail(scene.call, running, problem(scene.call, "late-2")) == running
    await scene.lifecycle.remove(scene.call, "app", 0, None)
    assert await scene.lifecycle.fail(scene.call, row, problem(scene.call, "late-3")) is None
    assert set(await scene.tampering.column("failures", "id")) == {"late", "late-2", "late-3"}


async def test_the_failure_leaves_the_row_when_it_is_claimed(scene: Scene) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    failed = await scene.lifecycle.fail(scene.call, row, problem(scene.call, "f1"))
    assert failed is not None
    offered = await scene.lifecycle.offer(scene.call, failed)
    assert (offered.placement_error, offered.attempts) == (failed.placement_error, 1)
    await scene.claim(offered)
    now = await scene.row()
    assert now is not None
    assert (now.failure, now.placement_error) == (None, None)


async def test_crash_counts_and_waits_as_diego_does(scene: Scene) -> None:
    row = await scene.running()
    for count, wait_s in [(1, 0.0), (2, 0.0), (3, 30.0), (4, 60.0)]:
        crashed = await scene.crash(row, f"f{count}")
        assert crashed is not None
        assert (crashed.state, crashed.crash_count) == (CRASHED, count)
        assert crashed.next_attempt_at == crashed.since + timedelta(seconds=wait_s)
        assert (crashed.instance_guid, crashed.cell_id, crashed.net_info) == (None, None, None)
        assert crashed.crash_reason == "process exited with status 1"
        retried = await scene.lifecycle.retry(scene.call, crashed, None)
        assert (retried.state, retried.crash_count) == (UNCLAIMED, count)
        row = await scene.start(await scene.claim(await scene.lifecycle.offer(scene.call, retried)))
    now = await scene.row()
    assert now is not None
    assert now.crash_reason is not None
    assert now.failure is not None
    assert now.failure["instance"] == "/v1/failures/f4"


async def test_the_count_begins_anew_after_five_minutes(scene: Scene) -> None:
    row = await scene.running()
    await scene.tampering.put("actual_lrps", "crash_count", 7)
    await scene.age(299)
    soon = await scene.crash(row, "soon")
    assert soon is not None
    assert soon.crash_count == 8
    offered = await scene.lifecycle.offer(scene.call, await scene.lifecycle.retry(scene.call, soon, None))
    row = await scene.start(await scene.claim(offered))
    await scene.age(301)
    late = await scene.crash(row, "late")
    assert late is not None
    assert late.crash_count == 1


async def test_two_hundred_crashes_are_given_up(scene: Scene) -> None:
    row = await scene.running()
    await scene.tampering.put("actual_lrps", "crash_count", 199)
    crashed = await scene.crash(row, "f")
    assert crashed is not None
    assert (crashed.crash_count, crashed.next_attempt_at) == (200, None)


async def test_the_same_crash_told_twice_counts_once(scene: Scene) -> None:
    running = await scene.running()
    first = await scene.crash(running, "f1")
    second = await scene.crash(running, "f2")
    assert first is not None
    assert second == evolve(first, failure=None)
    assert await scene.crash(running, "f3", cell="cell-2") == second


async def test_a_failure_without_a_row(scene: Scene) -> None:
    await scene.lifecycle.record_failure(scene.call, problem(scene.call, "f1"), "stop")
    await scene.lifecycle.record_failure(scene.call, problem(scene.call, "f1"), "stop")
    assert await scene.tampering.column("failures", "id") == ["f1"]
    record = await scene.store.read(scene.call, "get", lambda tx: tx.failures.get("f1"))
    assert record is not None
    assert (record.process_guid, record.phase) == (None, "stop")
    with pytest.raises(ValueError, match="gets its instance"):
        await scene.lifecycle.record_failure(scene.call, evolve(problem(scene.call, "x"), instance=None), "stop")


async def test_lose_and_retry_decide_on_one_revision_only(scene: Scene) -> None:
    running = await scene.running()
    stale = evolve(running, modification_tag=evolve(running.modification_tag, index=0))
    with pytest.raises(IllegalTransition, match="by now"):
        await scene.lifecycle.lose(scene.call, stale, None, problem(scene.call, "f0"))
    assert await scene.tampering.column("failures", "id") == []
    document = problem(scene.call, "f1", InstanceFailed("cell-1 vanished"))
    lost = await scene.lifecycle.lose(scene.call, running, None, document)
    assert (lost.state, lost.cell_id, lost.placement_error) == (UNCLAIMED, None, "cell-1 vanished")
    assert lost.next_attempt_at == lost.since
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.retry(scene.call, lost, None)


async def test_restart_forgets_what_failed(scene: Scene) -> None:
    crashed = await scene.crashed()
    restarted = await scene.lifecycle.restart(scene.call, "app", 0)
    assert restarted.before == evolve(crashed, failure=None)
    after = restarted.after
    assert (after.state, after.crash_count, after.crash_reason) == (UNCLAIMED, 0, None)
    assert after.instance_guid is not None
    assert await scene.row() == after
    with pytest.raises(ActualLRPNotFound):
        await scene.lifecycle.restart(scene.call, "app", 1)


async def test_remove_looks_at_the_instance(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    assert await scene.lifecycle.remove(scene.call, "app", 0, "other") == RemovedRow(deleted=False, last=False)
    assert await scene.lifecycle.remove(scene.call, "app", 0, row.instance_guid) == RemovedRow(deleted=True, last=True)
    assert await scene.lifecycle.remove(scene.call, "app", 0, None) == RemovedRow(deleted=False, last=True)


async def test_remove_says_whether_anything_of_the_lrp_is_left(scene: Scene) -> None:
    """Rows of other indices count, and attempts on cells that are there; those of other LRPs do not."""
    await scene.cell()
    await scene.unclaimed("web")
    rows = await scene.unclaimed(instances=3)
    lost = await scene.claim(rows[1])
    lost = await scene.lifecycle.offer(scene.call, lost)  # what it was claimed by is abandoned now
    removed = [await scene.lifecycle.remove(scene.call, "app", row.index, None) for row in (rows[2], lost, rows[0])]
    assert removed == [RemovedRow(deleted=True, last=False)] * 3
    assert await scene.abandoned() == [rows[1].instance_guid]
    gone = await scene.lifecycle.remove(scene.call, "app", 1, rows[1].instance_guid)
    assert gone == RemovedRow(deleted=False, last=True)
    assert await scene.abandoned() == []


async def test_of_rows_removed_side_by_side_the_last_one_is_seen_to_be(scene: Scene) -> None:
    rows = await scene.unclaimed(instances=4)
    keys = [(row.process_guid, row.index, row.instance_guid) for row in rows]
    removed = await outcomes([scene.lifecycle.remove(scene.call, *key) for key in keys])
    left = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app"))
    assert left == []
    assert sum(isinstance(each, RemovedRow) and each.last for each in removed) <= 1
    assert await scene.lifecycle.remove(scene.call, *keys[0]) == RemovedRow(deleted=False, last=True)


async def test_undesire_removes_what_no_cell_has_and_names_the_rest(scene: Scene) -> None:
    await scene.cell()
    await scene.unclaimed("web")
    rows = await scene.unclaimed(instances=4)
    claimed, moved, running = await scene.claim(rows[1]), await scene.claim(rows[2]), await scene.claim(rows[3])
    running = await scene.start(running)
    await scene.lifecycle.offer(scene.call, moved)
    removed = await scene.lifecycle.undesire(scene.call, "app")
    named = [row.instance_guid for row in removed]
    assert named == [claimed.instance_guid, running.instance_guid, moved.instance_guid]
    assert [row.stop_asked_at is not None for row in removed] == [True, True, False]
    left = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app"))
    assert left == list(removed[:2])
    assert await scene.row("web") is not None


async def test_a_reason_with_a_nul_can_be_stored(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    failed = await scene.lifecycle.fail(scene.call, row, problem(scene.call, "f", NoCellFits("a\0b")))
    assert failed is not None
    assert failed.placement_error == "a\N{REPLACEMENT CHARACTER}b"


def test_the_lifecycle_is_given_its_names(scene: Scene) -> None:
    assert isinstance(scene.lifecycle, Lifecycle)
    assert isinstance(scene.call, Call)


async def test_who_takes_a_request_up_keeps_the_first_one_from_rolling_it_back(scene: Scene) -> None:
    first = await scene.lifecycle.desire(scene.call, definition(instances=2))
    taken = await scene.store.run(scene.call, "take_up", lambda tx: desires.take_up(tx, "app"))
    assert taken.actuals == first.actuals
    assert taken.desired.definition == first.desired.definition
    assert taken.desired.revision == first.desired.revision, "the same instances"
    with pytest.raises(PreconditionFailed):
        await scene.lifecycle.undesire(scene.call, "app", only=first.desired.modification_tag)
    await scene.lifecycle.undesire(scene.call, "app", only=taken.desired.modification_tag)
    with pytest.raises(DesiredLRPNotFound):
        await scene.store.run(scene.call, "take_up", lambda tx: desires.take_up(tx, "app"))
