"""Rows whose cells cannot be asked any more, removed many at once."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from bbs.store import fence, rows
from bbs.store.transaction import Transaction
from diego_py.errors import DiegoError
from diego_py.models.actual_lrp import ActualLRP


@frozen
class Gone:
    """A row whose cell cannot be asked, and may have its instance yet."""

    row: ActualLRP
    epoch: int | None = None
    """Only as the convergence leader of this epoch."""


async def abandon(tx: Transaction, gone: Sequence[Gone]) -> list[bool | DiegoError]:
    """Delete these rows, and remember that their cells may have them. False if there is no such row; or NotLeader."""
    not_leading = await fence.refusals(tx, [one.epoch for one in gone])
    wanted = [one.row for one, refusal in zip(gone, not_leading, strict=True) if refusal is None]
    deleted = await tx.actual_lrps.delete_many(wanted) if wanted else set()
    await rows.abandon(tx, *wanted)
    return [
        (one.row.process_guid, one.row.index, one.row.presence) in deleted if refusal is None else refusal
        for one, refusal in zip(gone, not_leading, strict=True)
    ]
