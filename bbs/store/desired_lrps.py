"""The table of desired LRPs: what a client sent, as bytes, and the columns that decisions are made by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
from attrs import frozen

from diego_py import wire
from diego_py.errors import AlreadyExists
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.workload import ModificationTag


@frozen(kw_only=True)
class SchedulingInfo:
    """What decisions need of a desired LRP; read without decoding its definition. Diego: DesiredLRPSchedulingInfo."""

    process_guid: ProcessGuid
    domain: Domain
    instances: int
    memory_mb: int
    disk_mb: int
    rootfs: str
    placement_tags: tuple[str, ...]
    modification_tag: ModificationTag


INSERT: Final = """
    INSERT INTO desired_lrps (process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags, definition,
                              tag_epoch, tag_index, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, clock_timestamp(), clock_timestamp())
    ON CONFLICT (process_guid) DO NOTHING
    RETURNING tag_epoch, tag_index, created_at, updated_at
"""


async def insert(connection: asyncpg.Connection, definition: DesiredLRPDefinition, tag_epoch: str) -> DesiredLRP:
    """Store a new one. Raises AlreadyExists."""
    row = await connection.fetchrow(INSERT, definition.process_guid, *_columns(definition), tag_epoch)
    if row is None:
        guid = definition.process_guid
        raise AlreadyExists(f"desired LRP {guid} exists already", subject={"kind": "lrp", "guid": guid})
    return _desired(definition, row)


GET: Final = """
    SELECT definition, tag_epoch, tag_index, created_at, updated_at FROM desired_lrps WHERE process_guid = $1
"""

GET_FOR_UPDATE: Final = """
    SELECT definition, tag_epoch, tag_index, created_at, updated_at FROM desired_lrps WHERE process_guid = $1 FOR UPDATE
"""


async def get(connection: asyncpg.Connection, process_guid: str, *, for_update: bool = False) -> DesiredLRP | None:
    """One, locked until the transaction ends if asked for."""
    row = await connection.fetchrow(GET_FOR_UPDATE if for_update else GET, process_guid)
    return None if row is None else _decoded(row)


LIST_PAGE: Final = """
    SELECT definition, tag_epoch, tag_index, created_at, updated_at FROM desired_lrps
    WHERE process_guid > $1 AND ($2::text IS NULL OR domain = $2)
    ORDER BY process_guid LIMIT $3
"""


async def list_page(
    connection: asyncpg.Connection, domain: str | None = None, after: str | None = None, limit: int = 500
) -> list[DesiredLRP]:
    """At most `limit`, in order of process_guid, from the one behind `after` on."""
    return [_decoded(row) for row in await connection.fetch(LIST_PAGE, after or "", domain, limit)]


LIST_ALL: Final = """
    SELECT definition, tag_epoch, tag_index, created_at, updated_at FROM desired_lrps ORDER BY process_guid
"""


async def list_all(connection: asyncpg.Connection) -> list[DesiredLRP]:
    """Every one with its definition; where that is not needed, `list_scheduling_infos` is many times faster."""
    return [_decoded(row) for row in await connection.fetch(LIST_ALL)]


LIST_SCHEDULING_INFOS: Final = """
    SELECT process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags, tag_epoch, tag_index
    FROM desired_lrps ORDER BY process_guid
"""


async def list_scheduling_infos(connection: asyncpg.Connection) -> list[SchedulingInfo]:
    """Every one, without its definition."""
    return [
        SchedulingInfo(
            process_guid=row["process_guid"],
            domain=row["domain"],
            instances=row["instances"],
            memory_mb=row["memory_mb"],
            disk_mb=row["disk_mb"],
            rootfs=row["rootfs"],
            placement_tags=tuple(row["placement_tags"]),
            modification_tag=ModificationTag(epoch=row["tag_epoch"], index=row["tag_index"]),
        )
        for row in await connection.fetch(LIST_SCHEDULING_INFOS)
    ]


UPDATE: Final = """
    UPDATE desired_lrps
    SET domain = $2, instances = $3, memory_mb = $4, disk_mb = $5, rootfs = $6, placement_tags = $7, definition = $8,
        tag_index = tag_index + 1, updated_at = clock_timestamp()
    WHERE process_guid = $1
    RETURNING tag_epoch, tag_index, created_at, updated_at
"""


async def update(connection: asyncpg.Connection, definition: DesiredLRPDefinition) -> DesiredLRP | None:
    """Replace the definition and raise the tag; None if there is no such row. Lock and compare the row before."""
    row = await connection.fetchrow(UPDATE, definition.process_guid, *_columns(definition))
    return None if row is None else _desired(definition, row)


DELETE: Final = """
    DELETE FROM desired_lrps WHERE process_guid = $1
    RETURNING definition, tag_epoch, tag_index, created_at, updated_at
"""


async def delete(connection: asyncpg.Connection, process_guid: str) -> DesiredLRP | None:
    """Remove one and return it as it was; None if it is not there."""
    row = await connection.fetchrow(DELETE, process_guid)
    return None if row is None else _decoded(row)


def _columns(definition: DesiredLRPDefinition) -> tuple[str, int, int, int, str, Sequence[str], bytes]:
    return (
        definition.domain,
        definition.instances,
        definition.memory_mb,
        definition.disk_mb,
        definition.rootfs,
        definition.placement_tags,
        wire.encode_revealed(definition),
    )


def _decoded(row: asyncpg.Record) -> DesiredLRP:
    return _desired(wire.decode(DesiredLRPDefinition, row["definition"]), row)


def _desired(definition: DesiredLRPDefinition, row: asyncpg.Record) -> DesiredLRP:
    created_at: datetime = row["created_at"]
    return DesiredLRP(
        definition=definition,
        modification_tag=ModificationTag(epoch=row["tag_epoch"], index=row["tag_index"]),
        created_at=created_at,
        updated_at=row["updated_at"],
    )
