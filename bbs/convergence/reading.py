"""What a round of convergence is planned from: everything that is not as desired, all of it of one and the same moment.

What is as desired is not read, however much it is; Postgres finds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from bbs.convergence.plan import ROWS_AT_ONCE, Snapshot, stale_at
from bbs.convergence.task_plan import TaskSnapshot
from bbs.store.cells import CellMark
from bbs.store.transaction import Transaction
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import ProcessGuid


@frozen
class Reading:
    """Instances, tasks, and the cells that both are judged by."""

    snapshot: Snapshot
    tasks: TaskSnapshot
    marks: Sequence[CellMark]


async def read(tx: Transaction, *, counted: bool, may_lose_cells: bool, mass_lost: bool) -> Reading:
    """In a transaction that sees one state only. `counted`: with a look at every LRP, whether it has all its rows."""
    marks = await tx.cells.list_marks()
    now = await tx.now()
    live = frozenset(mark.cell_id for mark in marks if mark.live)
    known = frozenset(mark.cell_id for mark in marks)
    late = frozenset(mark.cell_id for mark in marks if mark.late)
    tasks = tuple(await tx.tasks.list_statuses())
    whole = await tx.deviations.uneven() if counted else []
    whole += await tx.deviations.emptied()
    stale = stale_at(now)
    actuals = await _deviating(tx, whole, stale)
    guids = {row.process_guid for row in actuals}.union(map(ProcessGuid, whole))
    snapshot = Snapshot(
        now=now,
        desired={lrp.process_guid: lrp for lrp in await tx.desired_lrps.list_scheduling_infos(sorted(guids))},
        actuals=tuple(actuals),
        live_cells=live,
        known_cells=known,
        fresh_domains=frozenset(fresh.domain for fresh in await tx.domains.list_fresh()),
        draining_cells=frozenset(mark.cell_id for mark in marks if mark.draining),
        late_cells=late,
        whole=frozenset(map(ProcessGuid, whole)),
        offered_since=await tx.deviations.offered_since(stale),
        presence_ends_at=min((mark.expires_at for mark in marks if mark.live), default=None),
        may_lose_cells=may_lose_cells,
        mass_lost=mass_lost,
    )
    of_tasks = TaskSnapshot(now, tasks, live, known, late, may_lose_cells=may_lose_cells, mass_lost=mass_lost)
    return Reading(snapshot, of_tasks, marks)


async def _deviating(tx: Transaction, whole: Sequence[str], stale: datetime) -> list[ActualLRP]:
    """All rows of every index at which something may be to do, and of these LRPs all. A piece at a time."""
    keys = await tx.deviations.keys(whole, stale)
    rows: list[ActualLRP] = []
    for first in range(0, len(keys), ROWS_AT_ONCE):
        rows += await tx.actual_lrps.list_of_keys(keys[first : first + ROWS_AT_ONCE])
    return rows
