"""Claims and starts of rows that are as they were stored, and of those that are not: told and stored alike, in both
stores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from attrs import evolve

from bbs.lifecycle import Lifecycle
from bbs.store import moves, unchanged
from bbs.store.attempts import Claim, Claimed
from bbs.store.unchanged import Change, Terms
from diego_py.errors import ClaimRefused, DiegoError
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.egress import EgressProtocol, SecurityGroupRule
from diego_py.models.identifiers import CellId
from diego_py.models.workload import ModificationTag
from tests.contract.store.conftest import NET_INFO, Scene, definition, report, reported

OTHER = SecurityGroupRule(protocol=EgressProtocol.ALL, destinations=("10.9.9.9",))


@pytest.fixture(autouse=True, params=[0, unchanged.FEW], ids=["many", "few"])
def _few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows and many are changed by another function each; both are to do the same."""
    monkeypatch.setattr(unchanged, "FEW", request.param)


def claim_of(row: ActualLRP, cell: str = "cell-1", boot: str | None = "boot-1") -> Claim:
    assert row.instance_guid is not None
    return Claim(row.process_guid, row.index, row.instance_guid, cell, boot)


async def asked(scene: Scene, *claims: Claim) -> list[Claimed | DiegoError]:
    return list(await scene.lifecycle.claim_all(scene.call, claims))


async def stored(scene: Scene) -> list[ActualLRP]:
    return await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())


async def saved(scene: Scene, *changes: Change) -> list[ActualLRP]:
    """Which of them were written, as they are stored."""
    made = await scene.store.run(scene.call, "save", lambda tx: tx.unchanged.save(changes), single=True)
    rows = [row for row in await stored(scene) if (row.process_guid, row.index) in made]
    assert [row.since for row in rows] == [made[row.process_guid, row.index] for row in rows]
    return rows


async def made(scene: Scene, instances: int = 1) -> tuple[ModificationTag, list[ActualLRP]]:
    await scene.cell()
    told = await scene.lifecycle.desire(scene.call, definition(instances=instances))
    return told.desired.modification_tag, list(told.actuals)


def change(row: ActualLRP, desired: ModificationTag, boot: str | None = "boot-1", cell: str = "cell-1") -> Change:
    return Change(moves.claimed(row, CellId(cell), row.since), Terms(boot, desired))


async def test_a_row_as_it_was_seen_becomes_what_is_given(scene: Scene) -> None:
    tag, rows = await made(scene, 3)
    written = await saved(
        scene, *(change(row, tag, boot) for row, boot in zip(rows, ("boot-1", None, "boot-1"), strict=True))
    )
    assert [evolve(row, since=before.since) for row, before in zip(written, rows, strict=True)] == [
        moves.claimed(row, CellId("cell-1"), row.since) for row in rows
    ]
    assert all(row.since > before.since for row, before in zip(written, rows, strict=True))
    running = [moves.started(row, "cell-1", NET_INFO, "z1", row.since) for row in written]
    assert [row.state for row in await saved(scene, *map(Change, running))] == [ActualLRPState.RUNNING] * 3
    assert await saved(scene, *map(Change, running)) == []  # they are newer now


async def test_of_several_only_what_holds_is_written(scene: Scene) -> None:
    tag, rows = await made(scene, 6)
    await scene.claim(rows[1])
    other = ModificationTag(epoch="another", index=rows[5].modification_tag.index)
    changes = [
        change(rows[0], tag),
        change(rows[1], tag),  # moved on
        change(rows[2], tag, "boot-of-old"),
        change(rows[3], tag, cell="cell-unknown"),
        change(rows[4], tag.next()),  # of an LRP as it is not
        change(evolve(rows[5], modification_tag=other), tag),  # a row that went and came again
    ]
    assert [row.index for row in await saved(scene, *changes)] == [0]
    claimed = [row.index for row in await stored(scene) if row.state is ActualLRPState.CLAIMED]
    assert claimed == [0, 1]


async def test_nothing_is_claimed_for_a_cell_whose_presence_ran_out(scene: Scene) -> None:
    tag, rows = await made(scene)
    await scene.tampering.shift("cells", "expires_at", -20, "cell-1")
    assert await saved(scene, change(rows[0], tag)) == []
    (refused,) = await asked(scene, claim_of(rows[0]))
    assert isinstance(refused, ClaimRefused)


async def updated(scene: Scene) -> None:
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(egress_rules=(OTHER,)))


async def scaled_to_none(scene: Scene) -> None:
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=0))


async def undesired(scene: Scene) -> None:
    await scene.lifecycle.undesire(scene.call, "app")


async def undesired_and_desired_again(scene: Scene) -> None:
    await undesired(scene)
    await Lifecycle(scene.store, scene.lifecycle.clock, lambda: "again").desire(scene.call, definition())


async def offered_anew(scene: Scene) -> None:
    (row,) = await stored(scene)
    await scene.lifecycle.offer(scene.call, row)


async def claimed_elsewhere(scene: Scene) -> None:
    await scene.cell("cell-2", "boot-2")
    (row,) = await stored(scene)
    other = Lifecycle(scene.store, scene.lifecycle.clock, scene.lifecycle.new_guid)
    await other.claim(scene.call, claim_of(row, "cell-2", "boot-2"))


async def claimed_at_another_bbs(scene: Scene) -> None:
    (row,) = await stored(scene)
    await Lifecycle(scene.store, scene.lifecycle.clock, scene.lifecycle.new_guid).claim(scene.call, claim_of(row))


async def nothing(scene: Scene) -> None:
    """As it was seen."""


@pytest.mark.parametrize(
    "meanwhile",
    [
        nothing,
        updated,
        scaled_to_none,
        undesired,
        undesired_and_desired_again,
        offered_anew,
        claimed_elsewhere,
        claimed_at_another_bbs,
    ],
)
async def test_a_claim_after_what_happened_meanwhile_is_as_of_who_never_saw_the_row(
    scene: Scene, meanwhile: Callable[[Scene], Awaitable[None]]
) -> None:
    _, (row,) = await made(scene)
    await meanwhile(scene)
    (told,) = await asked(scene, claim_of(row))
    stranger = Lifecycle(scene.store, scene.lifecycle.clock, scene.lifecycle.new_guid)
    (again,) = await stranger.claim_all(scene.call, [claim_of(row)])
    if isinstance(told, DiegoError):
        assert (type(told), str(told)) == (type(again), str(again))
    else:
        assert told == again
        assert told.row in await stored(scene)
        rules = (OTHER,) if meanwhile is updated else ()
        assert told.reach is not None
        assert told.reach.egress.egress_rules == rules


async def test_who_changes_an_lrp_while_it_is_claimed_finds_the_cell_or_is_found(scene: Scene) -> None:
    """Either the cell is told of the new rules, or who changed them sees that this cell has it."""
    for number in range(20):
        guid = f"app-{number}"
        await scene.cell()
        (row,) = await scene.unclaimed(guid)
        change = DesiredLRPUpdate(egress_rules=(OTHER,))
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(asked(scene, claim_of(row)))
            updating = group.create_task(scene.lifecycle.update(scene.call, guid, change))
        (told,) = claiming.result()
        assert isinstance(told, Claimed)
        assert told.reach is not None
        cells = [row.cell_id for row in updating.result().staying]
        assert told.reach.egress.egress_rules == (OTHER,) or cells == ["cell-1"]


async def test_a_start_after_a_report_told_it_is_as_the_report_says(scene: Scene) -> None:
    _, (row,) = await made(scene)
    claimed = await scene.claim(row)
    told = await scene.lifecycle.report(scene.call, report(instances=[reported(claimed, routable=False)]))
    assert told.accepted
    started = await scene.start(claimed)
    assert (started.state, started.routable) == (ActualLRPState.RUNNING, False)
    assert [started] == await stored(scene)


@pytest.mark.parametrize("late_first", [True, False])
async def test_an_attempt_of_what_went_gets_nothing_of_what_came_again_under_its_name(
    scene: Scene, late_first: bool
) -> None:
    """Both claims come in the same moment, and both rows were seen."""
    _, (gone,) = await made(scene)
    await undesired(scene)
    _, (row,) = await made(scene)
    await scene.cell("cell-2", "boot-2")
    claims = [claim_of(gone, "cell-2", "boot-2"), claim_of(row)]
    told = await asked(scene, *(claims if late_first else claims[::-1]))
    late, timely = told if late_first else told[::-1]
    assert isinstance(late, ClaimRefused)
    assert isinstance(timely, Claimed)
    assert await stored(scene) == [timely.row]
    assert (timely.row.instance_guid, timely.row.cell_id) == (row.instance_guid, "cell-1")
