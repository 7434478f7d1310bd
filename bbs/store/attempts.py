"""Claims and starts of instances, many at once: all rows are locked in one statement, and all changes saved in one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from bbs.store import moves, rows
from bbs.store.actual_lrps import Key, Locked
from bbs.store.desired_lrps import Reach
from bbs.store.transaction import Transaction
from diego_py.errors import ClaimRefused, DiegoError
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo
from diego_py.models.identifiers import CellId

Outcome = ActualLRP | DiegoError


@frozen
class Claim:
    """A cell asks for the row that it was sent."""

    process_guid: str
    index: int
    instance_guid: str
    cell_id: str
    boot_id: str | None
    """None: whichever is live. Reps of Diego do not say which they are."""


@frozen
class Start:
    """An instance runs on its cell."""

    process_guid: str
    index: int
    instance_guid: str
    cell_id: str
    net_info: NetInfo
    zone: str = ""
    routable: bool = True


@frozen
class Claimed:
    """A row that a cell has, and what it might reach then: whoever changes that later finds the cell in the row."""

    row: ActualLRP
    reach: Reach | None


async def claim(tx: Transaction, claims: Sequence[Claim]) -> list[Claimed | DiegoError]:
    """Give each row to the cell that it was offered to; again, if it has it already. Each may be ClaimRefused."""
    reaches = await tx.desired_lrps.share_many(sorted({item.process_guid for item in claims}))
    locked = await _locked(tx, claims)
    live = await tx.cells.live_of(list({(item.cell_id, item.boot_id) for item in claims}))
    outcomes: list[Outcome] = []
    for item in claims:
        row = _offered(locked, item)
        if isinstance(row, ActualLRP):
            now = locked[item.process_guid, item.index].locked.now
            row = claimed(row, item, (item.cell_id, item.boot_id) in live, now)
        outcomes.append(_changed(locked, row))
    await _save(tx, locked)
    reach_of = {reach.process_guid: reach for reach in reaches}
    return [Claimed(row, reach_of.get(row.process_guid)) if isinstance(row, ActualLRP) else row for row in outcomes]


async def start(tx: Transaction, starts: Sequence[Start]) -> list[Outcome]:
    """Each instance runs on its cell. ClaimRefused if the row belongs to another one, or is gone.

    Whether one is routable that is RUNNING by now is what its cell reported since.
    """
    locked = await _locked(tx, starts)
    outcomes: list[Outcome] = []
    for item in starts:
        row = _offered(locked, item)
        if isinstance(row, ActualLRP):
            row = started(row, item, locked[item.process_guid, item.index].locked.now)
        outcomes.append(_changed(locked, row))
    await _save(tx, locked)
    return outcomes


@frozen
class _Changing:
    """A locked row, and what it is to become."""

    locked: Locked
    row: ActualLRP


_Rows = dict[Key, _Changing]


async def _locked(tx: Transaction, items: Sequence[Claim] | Sequence[Start]) -> _Rows:
    keys = sorted({(item.process_guid, item.index) for item in items})
    found = await tx.actual_lrps.lock_many(keys)
    return {(one.row.process_guid, one.row.index): _Changing(one, one.row) for one in found}


def _offered(known: _Rows, item: Claim | Start) -> Outcome:
    """The row if it is of this instance."""
    changing = known.get((item.process_guid, item.index))
    if changing is None:
        return ClaimRefused(f"{item.process_guid}/{item.index} has no row any more")
    row = changing.row
    if row.instance_guid == item.instance_guid:
        return row
    other = row.instance_guid or f"no instance ({row.state})"
    return ClaimRefused(f"{item.process_guid}/{item.index} waits for {other}, not for {item.instance_guid}")


def claimed(row: ActualLRP, item: Claim, live: bool, now: datetime) -> Outcome:
    """What a row of this instance becomes by its claim; the same row if the cell has it already."""
    if row.cell_id is not None and row.cell_id != item.cell_id:
        return ClaimRefused(f"instance {item.instance_guid} belongs to cell {row.cell_id}")
    if row.state is ActualLRPState.CLAIMED:
        return row
    if not live:
        boot = "" if item.boot_id is None else f" with boot {item.boot_id}"
        return ClaimRefused(f"cell {item.cell_id} has no live presence{boot}")
    if row.state is not ActualLRPState.UNCLAIMED:
        return ClaimRefused(f"instance {item.instance_guid} is {row.state}")
    return moves.claimed(row, CellId(item.cell_id), now)


def started(row: ActualLRP, item: Start, now: datetime) -> Outcome:
    """What a row of this instance becomes once it runs; the same row if that is known."""
    if row.cell_id not in (None, item.cell_id):
        return ClaimRefused(f"instance {item.instance_guid} belongs to cell {row.cell_id}")
    ready = row.routable if row.state is ActualLRPState.RUNNING else item.routable
    try:
        return moves.started(row, item.cell_id, item.net_info, item.zone, now, ready)
    except DiegoError as refused:
        return refused


def _changed(known: _Rows, row: Outcome) -> Outcome:
    if isinstance(row, ActualLRP):
        key = (row.process_guid, row.index)
        known[key] = _Changing(known[key].locked, row)
    return row


async def _save(tx: Transaction, known: _Rows) -> None:
    await rows.save_many(tx, [(changing.locked, changing.row) for changing in known.values()])
