"""Many actors at once: one wins, nobody hangs, and no state comes about that the table does not have."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from bbs.store import desires
from bbs.store.attempts import Claim
from bbs.store.fence import fence
from bbs.store.transaction import Transaction
from bbs.succession import Succession
from diego_py.errors import AlreadyExists, ClaimRefused, DiegoError, IllegalTransition, NotLeader, StillBeingDeleted
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.egress import EgressProtocol, SecurityGroupRule
from tests.contract.store.conftest import Scene, definition, outcomes, problem, report, reported

T = TypeVar("T")


async def test_of_twenty_claims_one_wins(scene: Scene) -> None:
    cells = [f"cell-{number}" for number in range(20)]
    for cell in cells:
        await scene.cell(cell)
    (row,) = await scene.unclaimed()
    results = await outcomes([scene.claim(row, cell) for cell in cells])
    (winner,) = [result for result in results if isinstance(result, ActualLRP)]
    assert sum(isinstance(result, ClaimRefused) for result in results) == 19
    assert await scene.row() == winner


async def test_the_same_claim_twenty_times_is_one_claim(scene: Scene) -> None:
    await scene.cell()
    (row,) = await scene.unclaimed()
    results = await outcomes([scene.claim(row) for _ in range(20)])
    assert all(result == results[0] for result in results)
    assert isinstance(results[0], ActualLRP)
    assert results[0].modification_tag == row.modification_tag.next()


@pytest.mark.parametrize("number", range(20))
async def test_new_rules_are_told_with_the_claim_or_to_the_cell_that_claimed(scene: Scene, number: int) -> None:
    """Whichever comes first, nobody is left with rules that hold no more."""
    await scene.cell()
    (row,) = await scene.unclaimed()
    rules = (SecurityGroupRule(protocol=EgressProtocol.ALL, destinations=("10.0.0.0/8",)),)
    change = scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(egress_rules=rules))
    assert row.instance_guid is not None
    claim = scene.lifecycle.claim(scene.call, Claim("app", 0, row.instance_guid, "cell-1", "boot-1"))
    pauses = (number % 4 * 0.001, number // 4 * 0.001)

    async def after(pause_s: float, work: Coroutine[Any, Any, T]) -> T:
        await asyncio.sleep(pause_s)
        return await work

    async with asyncio.TaskGroup() as group:
        changing = group.create_task(after(pauses[0], change))
        claiming = group.create_task(after(pauses[1], claim))
    claimed, updated = claiming.result(), changing.result()
    assert claimed.reach is not None
    told = claimed.reach.egress.egress_rules == rules
    assert told or [each.cell_id for each in updated.staying] == ["cell-1"]


async def test_of_twenty_desires_one_wins(scene: Scene) -> None:
    results = await outcomes([scene.lifecycle.desire(scene.call, definition(instances=3)) for _ in range(20)])
    assert sum(isinstance(result, AlreadyExists) for result in results) == 19
    assert len(await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())) == 3


async def test_of_twenty_offers_one_wins(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    results = await outcomes([scene.lifecycle.offer(scene.call, row) for _ in range(20)])
    assert sum(isinstance(result, IllegalTransition) for result in results) == 19


@pytest.mark.parametrize("number", range(5))
async def test_start_against_fail(scene: Scene, number: int) -> None:
    claimed = await scene.claimed()
    document = problem(scene.call, "f")
    started, failed = await outcomes([scene.start(claimed), scene.lifecycle.fail(scene.call, claimed, document)])
    now = await scene.row()
    assert now is not None
    if isinstance(started, ClaimRefused):
        assert now.state is ActualLRPState.UNCLAIMED
        assert isinstance(failed, ActualLRP)
        assert failed.state is ActualLRPState.UNCLAIMED
    else:
        assert now.state is ActualLRPState.RUNNING


async def test_crash_against_its_report_counts_once(scene: Scene) -> None:
    running = await scene.running()
    await outcomes([scene.crash(running, f"f{number}") for number in range(10)])
    now = await scene.row()
    assert now is not None
    assert now.crash_count == 1


async def test_orders_that_invite_deadlocks(scene: Scene) -> None:
    await scene.cell()
    rows = await scene.unclaimed(instances=8)
    running = [await scene.start(await scene.claim(row)) for row in rows]
    instances = [reported(row) for row in running]

    async def scale(instances: int) -> object:
        return await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=instances))

    works = []
    for number in range(6):
        order = instances if number % 2 else list(reversed(instances))
        works.append(scene.lifecycle.report(scene.call, report(sequence=10 + number, instances=order)))
        works.append(scale(8 + number))
        works.append(scene.lifecycle.add_missing(scene.call, "app", None))
        works.append(scene.lifecycle.restart(scene.call, "app", number))
        works.append(scene.lifecycle.remove(scene.call, "app", 7 - number, None))
    works.append(scene.lifecycle.undesire(scene.call, "app"))
    results = await outcomes(works)
    errors = {type(result).__name__ for result in results if isinstance(result, DiegoError)}
    assert errors <= {"ActualLRPNotFound", "DesiredLRPNotFound"}


async def test_a_deletion_ends_the_rows_that_somebody_was_just_adding(scene: Scene) -> None:
    """It waits for the LRP, and what it sees then is newer than its own beginning."""
    await scene.claimed()
    added, seen = asyncio.Event(), asyncio.Event()

    async def add(tx: Transaction) -> None:
        await desires.update(tx, "app", DesiredLRPUpdate(instances=3), None, scene.lifecycle.new_guid)
        added.set()
        await seen.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(scene.store.run(scene.call, "add", add))
        await added.wait()
        deleting = group.create_task(scene.lifecycle.undesire(scene.call, "app"))
        await scene.tampering.somebody_waits()
        seen.set()
    assert [row.index for row in deleting.result()] == [0]
    assert await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app")) == [*deleting.result()]


async def test_a_desire_waits_for_the_deletion_and_sees_what_is_still_to_be_stopped(scene: Scene) -> None:
    await scene.claimed()
    deleted, seen = asyncio.Event(), asyncio.Event()

    async def delete(tx: Transaction) -> None:
        await desires.undesire(tx, "app")
        deleted.set()
        await seen.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(scene.store.run(scene.call, "delete", delete))
        await deleted.wait()
        desiring = group.create_task(outcomes([scene.lifecycle.desire(scene.call, definition(instances=2))]))
        await scene.tampering.somebody_waits()
        seen.set()
    (refused,) = desiring.result()
    assert isinstance(refused, StillBeingDeleted)
    assert await scene.store.read(scene.call, "get", lambda tx: tx.desired_lrps.get("app")) is None


async def test_an_old_leader_that_wakes_up_changes_nothing(scene: Scene) -> None:
    """R6: it acquired the lead, decided, slept; another took over; what it wanted to write has no effect."""
    running = await scene.running()
    old = await lead(scene, "old", 0)
    new = await lead(scene, "new", 15)
    assert old is not None
    assert new == old + 1
    works = [
        scene.lifecycle.lose(scene.call, running, old, problem(scene.call, "f")),
        scene.lifecycle.add_missing(scene.call, "app", old),
        scene.lifecycle.offer(scene.call, running, old),
        scene.lifecycle.retry(scene.call, running, old),
        scene.lifecycle.abandon(scene.call, running, old),
        Succession(scene.store, scene.lifecycle).suspect(scene.call, running, old, problem(scene.call, "f"), 1),
    ]
    results = await outcomes(works)  # type: ignore[arg-type]
    assert all(isinstance(result, NotLeader) for result in results)
    assert await scene.row() == running
    assert await scene.tampering.column("failures", "id") == []
    await scene.lifecycle.lose(scene.call, running, new, problem(scene.call, "f"))


async def test_a_takeover_waits_for_a_fenced_transaction(scene: Scene) -> None:
    """R6: the old leader is inside a transaction; the new one gets its epoch only after that is over."""
    old = await lead(scene, "old", 0)
    assert old is not None
    async with asyncio.TaskGroup() as group, scene.store.transaction(scene.call, "fenced") as tx:
        await fence(tx, old)
        takeover = group.create_task(lead(scene, "new", 15))
        await scene.tampering.somebody_waits()
        assert not takeover.done()
        await tx.domains.upsert("before-takeover", None)
    assert takeover.result() == old + 1


async def test_the_lead_is_renewed_released_and_taken(scene: Scene) -> None:
    first = await lead(scene, "a", 15)
    assert first == 1
    assert await lead(scene, "a", 15) == first
    assert await lead(scene, "b", 15) is None
    await scene.store.run(scene.call, "release", lambda tx: tx.leader.release("b", first))
    assert await lead(scene, "b", 15) is None
    await scene.store.run(scene.call, "release", lambda tx: tx.leader.release("a", first))
    assert await lead(scene, "b", 15) == first + 1


async def test_of_many_that_want_to_lead_one_does(scene: Scene) -> None:
    epochs = await outcomes([lead(scene, f"bbs-{number}", 15) for number in range(10)])
    assert sorted(epochs, key=str) == [1, *[None] * 9]


async def lead(scene: Scene, owner: str, ttl_s: float) -> int | None:
    return await scene.store.run(
        scene.call, "lead", lambda tx: tx.leader.acquire_or_renew(owner, ttl_s), reserved=True
    )
