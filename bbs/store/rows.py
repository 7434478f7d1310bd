"""The one way in which a row changes: locked, moved by the table, saved with its failure document. One transaction."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from bbs.store.actual_lrps import Locked
from bbs.store.failures import Document
from bbs.store.transaction import Transaction
from diego_py.errors import ActualLRPNotFound
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState


async def lock(tx: Transaction, process_guid: str, index: int) -> Locked:
    """The row, ours until the transaction ends. Raises ActualLRPNotFound."""
    locked = await tx.actual_lrps.lock(process_guid, index)
    if locked is None:
        raise ActualLRPNotFound(f"no instance {process_guid}/{index}")
    return locked


async def save(tx: Transaction, locked: Locked, after: ActualLRP, *, gone: bool = False) -> ActualLRP:
    """Write what the locked row became, without a new failure; nothing if it became nothing else.

    `gone`: the cell said that nothing is left of the instance that the row named. Else it is remembered.
    """
    if after is not locked.row:
        if after.instance_guid != locked.row.instance_guid and not gone:
            await abandon(tx, locked.row)
        await tx.actual_lrps.save(after, _kept_failure(locked, after))
    return after


async def save_many(tx: Transaction, changes: Sequence[tuple[Locked, ActualLRP]]) -> None:
    """The same for many rows in one statement; each still names the instance that it named before."""
    changed = [(after, _kept_failure(locked, after)) for locked, after in changes if after is not locked.row]
    if changed:
        await tx.actual_lrps.save_many(changed)


async def save_failed(
    tx: Transaction, locked: Locked, after: ActualLRP, document: Document, phase: str, *, gone: bool = False
) -> ActualLRP:
    """Write what the locked row became, and the document that says why; both or neither. `gone` as for `save`."""
    if after.instance_guid != locked.row.instance_guid and not gone:
        await abandon(tx, locked.row)
    await tx.failures.insert(document, phase, locked.row)
    await tx.actual_lrps.save(after, document.id)
    return evolve(after, failure=document.members)


async def abandon(tx: Transaction, *rows: ActualLRP) -> None:
    """Remember what cells have claimed, and may have yet when these rows name it no more."""
    if claimed := [row for row in rows if row.cell_id is not None and row.instance_guid is not None]:
        await tx.abandoned.insert_many(claimed)


def _kept_failure(locked: Locked, after: ActualLRP) -> str | None:
    """The document that still explains the row: one behind a placement_error goes with it; why a running one was not
    replaced stays for as long as it runs."""
    if locked.row.state is after.state is ActualLRPState.RUNNING:
        return locked.failure_id
    settled = locked.row.placement_error is not None and after.placement_error is None
    explains = after.placement_error is not None or after.crash_reason is not None
    return locked.failure_id if explains and not settled else None
