"""Rows that are as their writer saw them last, changed in one statement that compares: nobody looks at them before.

What a row becomes is decided elsewhere, never here: what is given is written, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from attrs import frozen

from bbs.store.actual_lrps import Key
from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.workload import ModificationTag

FEW = 8
"""Up to so many rows are changed one by one, which takes no planning; of more, each costs less in one statement."""


@frozen
class Terms:
    """What must hold besides for a cell to have a row."""

    boot_id: str | None
    """The cell is live with this boot; None: with whichever."""
    desired: ModificationTag
    """Its LRP has this tag, and keeps it until the transaction ends."""


@frozen
class Change:
    """What a row becomes that has the tag before this one, and no failure that explains it; as of when it is saved."""

    row: ActualLRP
    claim: Terms | None = None
    """Where it is a cell's claim."""


@frozen
class PostgresUnchanged:
    """What its method means is said in `tables.UnchangedRows`. Its two functions are in the migrations."""

    connection: asyncpg.Connection

    SAVE = """
        SELECT process_guid, index, since FROM save_unchanged(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20
        )
    """

    SAVE_FEW = """
        SELECT process_guid, index, since FROM save_few_unchanged(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20
        )
    """

    async def save(self, changes: Sequence[Change]) -> dict[Key, datetime]:
        columns = zip(*map(_columns, changes), strict=True)
        statement = self.SAVE_FEW if len(changes) <= FEW else self.SAVE
        found = await self.connection.fetch(statement, *map(list, columns))
        return {(row["process_guid"], row["index"]): row["since"] for row in found}


def _columns(change: Change) -> tuple[object, ...]:
    """What SAVE takes of a change, in its order."""
    row, terms = change.row, change.claim
    return (
        row.process_guid,
        row.index,
        row.presence.value,
        row.state.value,
        row.instance_guid,
        row.cell_id,
        None if row.net_info is None else wire.encode(row.net_info),
        row.crash_count,
        row.crash_reason,
        row.placement_error,
        row.attempts,
        row.next_attempt_at,
        row.routable,
        row.availability_zone,
        row.modification_tag.epoch,
        row.modification_tag.index,
        row.revision,
        None if terms is None else terms.boot_id or "",
        None if terms is None else terms.desired.epoch,
        None if terms is None else terms.desired.index,
    )
