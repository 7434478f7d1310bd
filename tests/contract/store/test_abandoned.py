"""What a cell claimed and no row names any more is remembered until that cell says that it is gone."""

from collections.abc import Awaitable, Callable

import pytest

from bbs.store.reconcile import SETTLED_S
from bbs.succession import Succession
from diego_py.errors import IllegalTransition
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRPUpdate
from tests.contract.store.conftest import Scene, problem, report, reported

Taking = Callable[[Scene, ActualLRP], Awaitable[object]]

TAKEN_BY: dict[str, Taking] = {
    "offer": lambda scene, row: scene.lifecycle.offer(scene.call, row),
    "fail": lambda scene, row: scene.lifecycle.fail(scene.call, row, problem(scene.call, "f")),
    "crash": lambda scene, row: scene.lifecycle.crash(
        scene.call, "app", 0, row.instance_guid or "", "cell-1", problem(scene.call, "f")
    ),
    "lose": lambda scene, row: scene.lifecycle.lose(scene.call, row, None, problem(scene.call, "f")),
    "restart": lambda scene, row: scene.lifecycle.restart(scene.call, "app", 0),
    "abandon": lambda scene, row: scene.lifecycle.abandon(scene.call, row),
}


@pytest.mark.parametrize("taking", TAKEN_BY)
async def test_whatever_takes_a_claimed_instance_off_its_row_remembers_it(scene: Scene, taking: str) -> None:
    claimed = await scene.claimed()
    await TAKEN_BY[taking](scene, claimed)
    assert await scene.abandoned() == [claimed.instance_guid]
    (row,) = await scene.lifecycle.undesire(scene.call, "app")
    assert (row.instance_guid, row.cell_id, row.index) == (claimed.instance_guid, "cell-1", 0)


async def test_what_its_cell_said_is_gone_is_not_remembered(scene: Scene) -> None:
    row = await scene.claimed()
    row = await scene.lifecycle.offer(scene.call, row, gone=True)
    failed = await scene.lifecycle.fail(scene.call, await scene.claim(row), problem(scene.call, "f"), gone=True)
    assert failed is not None
    await scene.crash(await scene.start(await scene.claim(await scene.lifecycle.offer(scene.call, failed))), "c")
    assert await scene.abandoned() == []


async def test_what_was_never_claimed_is_not_remembered(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    await scene.lifecycle.restart(scene.call, "app", 0)
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.offer(scene.call, row)
    assert await scene.abandoned() == []


async def test_a_replacement_that_gave_way_is_remembered(scene: Scene) -> None:
    succession = Succession(scene.store, scene.lifecycle)
    pair = await succession.displace(scene.call, await scene.running(), 0)
    new = await scene.claim(pair.new)
    assert await succession.recall(scene.call, pair.old, new.instance_guid) is not None
    assert await scene.abandoned() == [new.instance_guid]


async def test_it_is_forgotten_when_it_is_gone_or_its_cell_says_so_for_long_enough(scene: Scene) -> None:
    first, second = await scene.unclaimed(instances=2)
    await scene.cell()
    given_up = [await scene.claim(first), await scene.claim(second)]
    for row in given_up:
        await scene.lifecycle.offer(scene.call, row)
    assert await scene.abandoned(first=1) == [second.instance_guid]
    await scene.lifecycle.remove(scene.call, "app", 0, first.instance_guid)
    assert await scene.abandoned() == [second.instance_guid]
    await scene.lifecycle.report(scene.call, report(sequence=1))
    assert await scene.abandoned() == [second.instance_guid], "the report may be older than the claim"
    await scene.tampering.shift("abandoned_attempts", "since", -SETTLED_S)
    told = await scene.lifecycle.report(scene.call, report(sequence=2, instances=[reported(given_up[1])]))
    assert (await scene.abandoned(), told.stop) == ([second.instance_guid], (second.instance_guid,))
    await scene.lifecycle.report(scene.call, report("cell-2", sequence=1))
    assert await scene.abandoned() == [second.instance_guid], "another cell"
    await scene.lifecycle.report(scene.call, report(sequence=3))
    assert await scene.abandoned() == []


async def test_it_is_not_asked_for_while_its_cell_has_no_presence(scene: Scene) -> None:
    row = await scene.claimed()
    await scene.lifecycle.offer(scene.call, row)
    await scene.tampering.shift("cells", "expires_at", -20)
    await scene.store.run(scene.call, "prune", lambda tx: tx.abandoned.prune())
    assert await scene.abandoned() == []
    await scene.lifecycle.report(scene.call, report(sequence=1, instances=[reported(row)]))
    assert await scene.abandoned() == [row.instance_guid], "it is back, and has it yet"
    await scene.tampering.shift("cells", "expires_at", -20)
    await scene.tampering.shift("abandoned_attempts", "since", -2 * 86_400)
    await scene.store.run(scene.call, "prune", lambda tx: tx.abandoned.prune())
    assert await scene.tampering.column("abandoned_attempts", "instance_guid") == []


async def test_who_scales_down_or_restarts_is_given_what_may_be_there_yet(scene: Scene) -> None:
    rows = await scene.unclaimed(instances=2)
    await scene.cell()
    for row in rows:
        await scene.lifecycle.offer(scene.call, await scene.claim(row))
    updated = await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=1))
    assert rows[1].instance_guid in [row.instance_guid for row in updated.surplus]
    assert rows[0].instance_guid not in [row.instance_guid for row in updated.surplus]
    restarted = await scene.lifecycle.restart(scene.call, "app", 0)
    assert [row.instance_guid for row in restarted.ends] == [rows[0].instance_guid], "no cell has the one before"
    claimed = await scene.claim(restarted.after)
    again = await scene.lifecycle.restart(scene.call, "app", 0)
    assert {row.instance_guid for row in again.ends} == {claimed.instance_guid, rows[0].instance_guid}
