"""Desired LRPs together with their rows: whole changes, each one statement that calls a function of the database.

The functions are in the migrations. Of a few statements in turn, nearly all the time is the way there and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
from attrs import frozen

from bbs.store.actual_lrps import row_of
from bbs.store.desired_lrps import columns_of
from diego_py.errors import AlreadyExists, DesiredLRPNotFound, StillBeingDeleted
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.workload import ModificationTag

RETRY_AFTER_S = 5.0
"""For who desires what is still being deleted: most processes end sooner when they are asked to."""


@frozen
class PostgresLRPs:
    """LRPs in Postgres. What each method means is said in `tables.LRPTable`."""

    connection: asyncpg.Connection

    DESIRE = """
        SELECT statement_timestamp() AS stored_at, added.*
        FROM desire_lrp($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS added
    """

    async def desire(
        self,
        definition: DesiredLRPDefinition,
        tag_epoch: str,
        instance_guids: Sequence[str],
        tag_epochs: Sequence[str],
    ) -> tuple[DesiredLRP, list[ActualLRP]]:
        guid = definition.process_guid
        names = (tag_epoch, instance_guids, tag_epochs)
        try:
            found = await self.connection.fetch(self.DESIRE, guid, *columns_of(definition), *names)
        except asyncpg.ObjectInUseError as in_use:
            raise still_being_deleted(guid) from in_use
        if not found:
            raise already_exists(guid)
        tag, stored_at = ModificationTag(epoch=tag_epoch, index=0), found[0]["stored_at"]
        desired = DesiredLRP(definition=definition, modification_tag=tag, created_at=stored_at, updated_at=stored_at)
        return desired, sorted(_rows(found), key=lambda row: row.index)

    UNDESIRE = "SELECT * FROM undesire_lrp($1)"

    async def undesire(self, process_guid: str) -> list[ActualLRP]:
        found = await self.connection.fetch(self.UNDESIRE, process_guid)
        if not found:
            raise not_found(process_guid)
        return _rows(found)


def already_exists(guid: str) -> AlreadyExists:
    return AlreadyExists(f"desired LRP {guid} exists already", subject={"kind": "lrp", "guid": guid})


def still_being_deleted(guid: str) -> StillBeingDeleted:
    told = f"{guid} was deleted, and containers of it have not ended yet"
    return StillBeingDeleted(told, retry_after_s=RETRY_AFTER_S)


def not_found(guid: str) -> DesiredLRPNotFound:
    return DesiredLRPNotFound(f"no desired LRP {guid}")


def _rows(found: Sequence[asyncpg.Record]) -> list[ActualLRP]:
    """Without the empty one, which says that there was something to do."""
    return [row_of(row) for row in found if row["process_guid"] is not None]
