"""The table of desired LRPs: what a client sent, as bytes, and the columns that decisions are made by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from attrs import frozen

from bbs.labels import labels_of
from bbs.store import labels
from diego_py import telling, wire
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, SchedulingInfo, UpdateStrategy
from diego_py.models.egress import SecurityGroupRule
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.work import EgressChange
from diego_py.models.workload import ModificationTag


@frozen
class StoredLRP:
    """A desired LRP for who reads very many: its definition is still the JSON that is stored, with its secrets."""

    process_guid: ProcessGuid
    definition: bytes
    modification_tag: ModificationTag


@frozen
class Reach:
    """What the instances of an LRP may reach: all that who claims one is told of it."""

    process_guid: str
    revision: int
    egress: EgressChange


@frozen(kw_only=True)
class Filter:
    """Which desired LRPs are wanted; what is None does not matter."""

    domain: str | None = None
    process_guids: Sequence[str] | None = None
    prefixes: Sequence[str] | None = None
    """Their process_guid begins with one of these."""


@frozen
class PostgresDesiredLRPs:
    """Desired LRPs in Postgres. What each method means is said in `tables.DesiredLRPTable`."""

    connection: asyncpg.Connection

    GET = """
        SELECT definition, tag_epoch, tag_index, revision, created_at, updated_at
        FROM desired_lrps WHERE process_guid = $1
    """

    GET_FOR_UPDATE = """
        SELECT definition, tag_epoch, tag_index, revision, created_at, updated_at
        FROM desired_lrps WHERE process_guid = $1 FOR UPDATE
    """

    async def get(self, process_guid: str, *, for_update: bool = False) -> DesiredLRP | None:
        row = await self.connection.fetchrow(self.GET_FOR_UPDATE if for_update else self.GET, process_guid)
        return None if row is None else _decoded(row)

    SHARE_MANY = """
        SELECT process_guid, definition, tag_index, revision FROM desired_lrps
        WHERE process_guid = ANY($1) ORDER BY process_guid FOR SHARE
    """

    async def share_many(self, process_guids: Sequence[str]) -> list[Reach]:
        return [_reach(row) for row in await self.connection.fetch(self.SHARE_MANY, list(process_guids))]

    LIST_STORED = """
        SELECT process_guid, definition, tag_epoch, tag_index FROM desired_lrps
        WHERE process_guid > $1 AND ($2::text IS NULL OR domain = $2)
          AND ($3::text[] IS NULL OR process_guid = ANY($3))
          AND ($4::text[] IS NULL
               OR EXISTS (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(process_guid, prefix)))
        ORDER BY process_guid LIMIT $5
    """

    async def list_stored(self, wanted: Filter, after: str | None = None, limit: int = 500) -> list[StoredLRP]:
        filters = (wanted.domain, wanted.process_guids, wanted.prefixes)
        return [
            StoredLRP(row[0], row[1], ModificationTag(epoch=row[2], index=row[3]))
            for row in await self.connection.fetch(self.LIST_STORED, after or "", *filters, limit)
        ]

    LIST_SCHEDULING_INFOS = """
        SELECT process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags, tag_epoch, tag_index,
               revision, update_strategy
        FROM desired_lrps WHERE process_guid = ANY($1::text[]) ORDER BY process_guid
    """

    async def list_scheduling_infos(self, process_guids: Sequence[str]) -> list[SchedulingInfo]:
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
                revision=row["revision"],
                update_strategy=UpdateStrategy(row["update_strategy"]),
            )
            for row in await self.connection.fetch(self.LIST_SCHEDULING_INFOS, process_guids)
        ]

    UPDATE = """
        UPDATE desired_lrps
        SET domain = $2, instances = $3, memory_mb = $4, disk_mb = $5, rootfs = $6, placement_tags = $7,
            definition = $8, update_strategy = $9, labels = $10, tag_index = tag_index + 1, revision = $11,
            updated_at = clock_timestamp()
        WHERE process_guid = $1
        RETURNING tag_epoch, tag_index, revision, created_at, updated_at
    """

    async def update(self, definition: DesiredLRPDefinition, revision: int) -> DesiredLRP | None:
        row = await self.connection.fetchrow(self.UPDATE, definition.process_guid, *columns_of(definition), revision)
        return None if row is None else _desired(definition, row)


def columns_of(definition: DesiredLRPDefinition) -> tuple[str, int, int, int, str, Sequence[str], bytes, str, bytes]:
    """Domain, instances, memory_mb, disk_mb, rootfs, placement_tags, definition, update_strategy, labels."""
    return (
        definition.domain,
        definition.instances,
        definition.memory_mb,
        definition.disk_mb,
        definition.rootfs,
        definition.placement_tags,
        wire.encode_revealed(definition),
        str(definition.update_strategy),
        labels.encoded(labels_of(definition)),
    )


@frozen
class _Rules:
    """Of a stored definition what is read for each claim: all of it would cost ten times as much."""

    egress_rules: tuple[SecurityGroupRule, ...] = ()


def _reach(row: asyncpg.Record) -> Reach:
    rules = telling.decode(_Rules, row["definition"]).egress_rules
    egress = EgressChange(egress_rules=rules, version=row["tag_index"])
    return Reach(row["process_guid"], row["revision"], egress)


def _decoded(row: asyncpg.Record) -> DesiredLRP:
    return _desired(wire.decode(DesiredLRPDefinition, row["definition"]), row)


def _desired(definition: DesiredLRPDefinition, row: asyncpg.Record) -> DesiredLRP:
    created_at: datetime = row["created_at"]
    return DesiredLRP(
        definition=definition,
        revision=row["revision"],
        modification_tag=ModificationTag(epoch=row["tag_epoch"], index=row["tag_index"]),
        created_at=created_at,
        updated_at=row["updated_at"],
    )
