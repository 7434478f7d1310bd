"""Claims and starts that are made together: each has its own outcome, on Postgres and in memory."""

from __future__ import annotations

import asyncio

from attrs import define, evolve, field

from bbs.store import together
from bbs.store.report import ReportOutcome
from bbs.store.together import Together
from bbs.store.transaction import Transaction
from diego_py.errors import BudgetSpent, CellIdTaken, ClaimRefused, ConflictError, DiegoError
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from tests.contract.store.conftest import Scene, instance_guid, outcomes, report, reported


async def test_claims_in_one_transaction_are_granted_or_refused_each_for_itself(scene: Scene) -> None:
    await scene.cell("cell-1")
    await scene.cell("cell-2", "boot-2")
    rows = await scene.unclaimed(instances=6)
    boots = (("cell-1", "boot-1"), ("cell-2", "boot-2"))
    asked = [(row, *boots[row.index % 2]) for row in rows[:4]]
    asked += [(rows[4], "cell-2", "boot-of-old"), (rows[5], "cell-3", "boot-1")]
    asked += [(rows[0], "cell-2", "boot-2"), (rows[1], "cell-2", "boot-2")]
    told = await scene.claim_all(asked)
    granted = [row for row in told[:4] if isinstance(row, ActualLRP)]
    assert [row.cell_id for row in granted] == ["cell-1", "cell-2", "cell-1", "cell-2"]
    assert all(isinstance(refused, ClaimRefused) for refused in told[4:7])
    assert isinstance(told[7], ActualLRP)  # the same cell again
    stored = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    assert [row.state for row in stored] == [ActualLRPState.CLAIMED] * 4 + [ActualLRPState.UNCLAIMED] * 2
    assert stored[:4] == granted


async def test_starts_side_by_side_are_stored_as_they_are_told(scene: Scene) -> None:
    await scene.cell()
    claimed = [await scene.claim(row) for row in await scene.unclaimed(instances=5)]
    told = await outcomes([scene.start(row) for row in claimed] + [scene.start(claimed[0], "cell-2")])
    assert isinstance(told[-1], ClaimRefused)
    stored = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    assert stored == told[:-1]
    assert {row.state for row in stored} == {ActualLRPState.RUNNING}


async def test_two_claims_of_one_row_in_one_transaction_leave_it_with_the_first(scene: Scene) -> None:
    await scene.cell("cell-1")
    await scene.cell("cell-2", "boot-1")
    (row,) = await scene.unclaimed()
    told = await scene.claim_all([(row, cell, "boot-1") for cell in ("cell-1", "cell-2", "cell-1", "cell-2") * 5])
    winners = {one.cell_id for one in told if isinstance(one, ActualLRP)}
    assert winners == {"cell-1"}
    assert sum(isinstance(one, ClaimRefused) for one in told) == 10


@define
class Counted:
    """A change that says how many were made at once, and fails as its item says."""

    batches: list[list[str]] = field(factory=list)
    gate: asyncio.Event = field(factory=asyncio.Event)
    begun: asyncio.Event = field(factory=asyncio.Event)

    async def work(self, tx: Transaction, items: object) -> list[str | DiegoError]:
        assert isinstance(items, list)
        await tx.now()
        self.begun.set()
        await self.gate.wait()
        self.batches.append(list(items))
        if "poison" in items:
            raise ConflictError("undoes all")
        return [ClaimRefused(item) if item == "refused" else item for item in items]


async def test_who_comes_while_others_are_made_shares_the_next_transaction(scene: Scene) -> None:
    counted = Counted()
    changes: Together[str, str] = Together(scene.store, "count", counted.work)
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(changes.ask(scene.call, f"first-{n}")) for n in range(together.LANES)]
        await counted.begun.wait()
        others = [group.create_task(changes.ask(scene.call, f"other-{n}")) for n in range(10)]
        await asyncio.sleep(0)
        counted.gate.set()
    assert [task.result() for task in (*first, *others)] == [f"first-{n}" for n in range(together.LANES)] + [
        f"other-{n}" for n in range(10)
    ]
    assert max(map(len, counted.batches)) == 10
    assert len(counted.batches) == together.LANES + 1


async def test_one_that_undoes_all_fails_alone(scene: Scene) -> None:
    counted = Counted()
    counted.gate.set()
    changes: Together[str, str] = Together(scene.store, "count", counted.work)
    names = ["a", "b", "c", "d", "refused", "poison", "e"]
    told = await outcomes([changes.ask(scene.call, name) for name in names])
    assert [one for one in told if isinstance(one, str)] == ["a", "b", "c", "d", "e"]
    assert (type(told[4]), type(told[5])) == (ClaimRefused, ConflictError)


async def test_who_stops_waiting_leaves_the_lead_to_the_next(scene: Scene) -> None:
    counted = Counted()
    changes: Together[str, str] = Together(scene.store, "count", counted.work)
    async with asyncio.TaskGroup() as group:
        for n in range(together.LANES):
            group.create_task(changes.ask(scene.call, f"first-{n}"))
        await counted.begun.wait()
        impatient = group.create_task(outcomes([changes.ask(scene.call.with_budget(80), "impatient")]))
        patient = group.create_task(changes.ask(scene.call, "patient"))
        (spent,) = await impatient
        counted.gate.set()
    assert isinstance(spent, DiegoError)
    assert isinstance(spent.root, BudgetSpent)
    assert patient.result() == "patient"
    assert not any("impatient" in batch for batch in counted.batches)


async def test_reports_side_by_side_are_taken_up_each_for_its_cell(scene: Scene) -> None:
    """One is new, one stops what is not its own, one tells a start, one is late, one is of a namesake."""
    for cell in ("cell-1", "cell-2", "cell-3", "cell-4"):
        await scene.lifecycle.report(scene.call, report(cell, sequence=5))
    rows = await scene.unclaimed(instances=2)
    claimed = await scene.claim(rows[0], "cell-1")
    foreign = evolve(reported(rows[1]), instance_guid=instance_guid("nobodys"))
    namesake = report("cell-4", boot="boot-9", sequence=1)
    namesake = evolve(namesake, presence=evolve(namesake.presence, home_id="elsewhere"))
    told = [
        report("cell-0"),
        report("cell-1", sequence=6, instances=[reported(claimed)]),
        report("cell-2", sequence=6, instances=[foreign]),
        report("cell-3", sequence=4),
        namesake,
        report("cell-1", sequence=7, instances=[reported(claimed)]),
    ]
    # The first keeps the only lane, so that all the others are one transaction.
    taken = await outcomes([scene.lifecycle.report(scene.call, one) for one in [report("cell-5"), *told]])
    assert isinstance(taken[5], CellIdTaken)
    answers = [one for one in taken if isinstance(one, ReportOutcome)]
    assert [answer.accepted for answer in answers] == [True, True, True, True, False, True]
    assert [answer.stop for answer in answers] == [(), (), (), ("nobodys",), (), ()]
    assert [len(answer.started) for answer in answers] == [0, 0, 1, 0, 0, 0]
    row = await scene.row()
    assert row is not None
    assert (row.state, row.cell_id) == (ActualLRPState.RUNNING, "cell-1")
    live = await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_live())
    assert {record.cell_id: record.sequence for record in live} == {
        "cell-0": 1,
        "cell-1": 7,
        "cell-2": 6,
        "cell-3": 5,
        "cell-4": 5,
        "cell-5": 1,
    }


async def test_reports_and_starts_of_the_same_rows_never_undo_each_other(scene: Scene) -> None:
    await scene.cell("cell-1")
    await scene.cell("cell-2", "boot-2")
    cells = (("cell-1", "boot-1"), ("cell-2", "boot-2"))
    rows = await scene.unclaimed(instances=12)
    claimed = [await scene.claim(row, *cells[row.index % 2]) for row in rows]
    works: list[object] = [scene.start(row, cells[row.index % 2][0]) for row in reversed(claimed)]
    for cell, boot in cells:
        ours = [reported(row) for row in claimed if row.cell_id == cell]
        works += [scene.lifecycle.report(scene.call, report(cell, boot, number, ours)) for number in range(2, 8)]
    told = await outcomes(works)  # type: ignore[arg-type]
    assert [one for one in told if isinstance(one, DiegoError)] == []
    stored = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    assert {row.state for row in stored} == {ActualLRPState.RUNNING}
