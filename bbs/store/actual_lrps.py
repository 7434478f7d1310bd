"""The table of actual LRPs: one row an instance. Which row may become which is decided elsewhere, never here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from attrs import frozen

from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, Presence
from diego_py.models.workload import ModificationTag

Cursor = tuple[str, int, str]
"""process_guid, index and presence of a row: the order of lists."""


Key = tuple[str, int]
"""process_guid and index: of an ordinary row."""
RowKey = tuple[str, int, str]
"""process_guid, index and presence: of any row."""


@frozen
class Locked:
    """A row that nobody else can change before our transaction ends."""

    row: ActualLRP
    failure_id: str | None
    now: datetime
    """By the database's clock: the only one that its times may be compared with."""


@frozen
class RemovedRow:
    """What became of the row of an instance that is gone."""

    deleted: bool
    """It was there, and of that instance."""
    last: bool
    """No other row of its LRP was there then, nor an attempt that a cell whose presence lasts may have."""


@frozen
class PostgresActualLRPs:
    """Instances in Postgres. What each method means is said in `tables.ActualLRPTable`."""

    connection: asyncpg.Connection

    INSERT_UNCLAIMED = """
        INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, since, crash_count,
                                 attempts, routable, availability_zone, tag_epoch, tag_index, revision)
        SELECT $1, new.index, 'ORDINARY', $2, 'UNCLAIMED', new.instance_guid, clock_timestamp(), 0, 0, false, '',
               new.tag_epoch, 0, $6
        FROM unnest($3::integer[], $4::text[], $5::text[]) AS new (index, instance_guid, tag_epoch)
        ON CONFLICT (process_guid, index, presence) DO NOTHING
        RETURNING *
    """

    async def insert_unclaimed(
        self,
        process_guid: str,
        domain: str,
        indices: Sequence[int],
        instance_guids: Sequence[str | None],
        tag_epochs: Sequence[str],
        revision: int,
    ) -> list[ActualLRP]:
        rows = await self.connection.fetch(
            self.INSERT_UNCLAIMED, process_guid, domain, indices, instance_guids, tag_epochs, revision
        )
        return sorted((row_of(row) for row in rows), key=lambda row: row.index)

    GET = """
        SELECT actual_lrps.*, failures.document FROM actual_lrps LEFT JOIN failures ON failures.id = failure_id
        WHERE actual_lrps.process_guid = $1 AND actual_lrps.index = $2 AND presence = $3
    """

    async def get(self, process_guid: str, index: int, presence: str = "ORDINARY") -> ActualLRP | None:
        row = await self.connection.fetchrow(self.GET, process_guid, index, presence)
        return None if row is None else row_of(row, with_failure=True)

    LOCK = """
        SELECT *, clock_timestamp() AS now FROM actual_lrps
        WHERE process_guid = $1 AND index = $2 AND presence = $3 FOR UPDATE
    """

    async def lock(self, process_guid: str, index: int, presence: str = "ORDINARY") -> Locked | None:
        row = await self.connection.fetchrow(self.LOCK, process_guid, index, presence)
        return None if row is None else Locked(row_of(row), row["failure_id"], row["now"])

    LOCK_MANY = """
        SELECT actual_lrps.*, clock_timestamp() AS now FROM actual_lrps
        JOIN unnest($1::text[], $2::integer[]) AS wanted (process_guid, index) USING (process_guid, index)
        WHERE presence = 'ORDINARY' ORDER BY process_guid, index FOR UPDATE OF actual_lrps
    """

    async def lock_many(self, keys: Sequence[Key]) -> list[Locked]:
        found = await self.connection.fetch(self.LOCK_MANY, [guid for guid, _ in keys], [index for _, index in keys])
        return [Locked(row_of(row), row["failure_id"], row["now"]) for row in found]

    LIST_OF = "SELECT * FROM actual_lrps WHERE process_guid = $1 ORDER BY index, presence"

    async def list_of(self, process_guid: str) -> list[ActualLRP]:
        return [row_of(row) for row in await self.connection.fetch(self.LIST_OF, process_guid)]

    LIST_OF_CELL = "SELECT * FROM actual_lrps WHERE cell_id = $1 ORDER BY process_guid, index, presence"

    async def list_of_cell(self, cell_id: str) -> list[ActualLRP]:
        return [row_of(row) for row in await self.connection.fetch(self.LIST_OF_CELL, cell_id)]

    LIST_CONCERNING = """
        SELECT * FROM actual_lrps WHERE cell_id = ANY($1::text[]) OR instance_guid = ANY($2::text[])
        ORDER BY process_guid, index, presence
    """

    async def list_concerning(self, cell_ids: Sequence[str], instance_guids: Sequence[str]) -> list[ActualLRP]:
        return [row_of(row) for row in await self.connection.fetch(self.LIST_CONCERNING, cell_ids, instance_guids)]

    LIST_ALL = "SELECT * FROM actual_lrps ORDER BY process_guid, index, presence"

    async def list_all(self) -> list[ActualLRP]:
        return [row_of(row) for row in await self.connection.fetch(self.LIST_ALL)]

    LIST_OF_KEYS = """
        SELECT actual_lrps.* FROM actual_lrps
        JOIN unnest($1::text[], $2::integer[]) AS wanted (process_guid, index) USING (process_guid, index)
        ORDER BY process_guid, index, presence
    """

    async def list_of_keys(self, keys: Sequence[Key]) -> list[ActualLRP]:
        columns = [guid for guid, _ in keys], [index for _, index in keys]
        return [row_of(row) for row in await self.connection.fetch(self.LIST_OF_KEYS, *columns)]

    SAVE = """
        UPDATE actual_lrps
        SET state = $4, instance_guid = $5, cell_id = $6, net_info = $7, since = $8, crash_count = $9,
            crash_reason = $10, placement_error = $11, failure_id = $12, attempts = $13, next_attempt_at = $14,
            routable = $15, availability_zone = $16, tag_index = $17, revision = $18,
            labels = CASE WHEN instance_guid = $5 THEN labels END
        WHERE process_guid = $1 AND index = $2 AND presence = $3
    """

    async def save(self, row: ActualLRP, failure_id: str | None) -> None:
        await self.connection.execute(self.SAVE, *_columns(row, failure_id))

    SAVE_MANY = """
        UPDATE actual_lrps
        SET state = new.state, instance_guid = new.instance_guid, cell_id = new.cell_id, net_info = new.net_info,
            since = new.since, crash_count = new.crash_count, crash_reason = new.crash_reason,
            placement_error = new.placement_error, failure_id = new.failure_id, attempts = new.attempts,
            next_attempt_at = new.next_attempt_at, routable = new.routable,
            availability_zone = new.availability_zone, tag_index = new.tag_index, revision = new.revision,
            labels = CASE WHEN actual_lrps.instance_guid = new.instance_guid THEN labels END
        FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                    $8::timestamptz[], $9::integer[], $10::text[], $11::text[], $12::text[], $13::integer[],
                    $14::timestamptz[], $15::boolean[], $16::text[], $17::bigint[], $18::bigint[])
             AS new (process_guid, index, presence, state, instance_guid, cell_id, net_info, since, crash_count,
                     crash_reason, placement_error, failure_id, attempts, next_attempt_at, routable,
                     availability_zone, tag_index, revision)
        WHERE (actual_lrps.process_guid, actual_lrps.index, actual_lrps.presence)
              = (new.process_guid, new.index, new.presence)
    """

    async def save_many(self, changes: Sequence[tuple[ActualLRP, str | None]]) -> None:
        columns = zip(*(_columns(row, failure_id) for row, failure_id in changes), strict=True)
        await self.connection.execute(self.SAVE_MANY, *map(list, columns))

    MOVE = """
        UPDATE actual_lrps SET presence = $4, failure_id = $5, tag_index = tag_index + 1
        WHERE process_guid = $1 AND index = $2 AND presence = $3
    """

    async def move_many(self, changes: Sequence[tuple[ActualLRP, Presence, str | None]]) -> None:
        keys = [(row.process_guid, row.index, row.presence.value, to.value, id) for row, to, id in changes]
        await self.connection.executemany(self.MOVE, keys)

    INSERT = """
        INSERT INTO actual_lrps (process_guid, index, presence, state, instance_guid, cell_id, net_info, since,
                                 crash_count, crash_reason, placement_error, failure_id, attempts, next_attempt_at,
                                 routable, availability_zone, tag_index, revision, domain, tag_epoch)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
    """

    async def insert_many(self, rows: Sequence[tuple[ActualLRP, str | None]]) -> None:
        columns = [(*_columns(row, id), row.domain, row.modification_tag.epoch) for row, id in rows]
        await self.connection.executemany(self.INSERT, columns)

    ASK_STOP = """
        WITH changing AS MATERIALIZED (
            SELECT index, presence FROM actual_lrps
            WHERE process_guid = $1 AND (stop_asked_at IS NULL) = (index >= $2)
            ORDER BY index, presence FOR UPDATE
        )
        UPDATE actual_lrps
        SET stop_asked_at = CASE WHEN actual_lrps.index >= $2 THEN clock_timestamp() END, tag_index = tag_index + 1
        FROM changing
        WHERE process_guid = $1 AND (actual_lrps.index, actual_lrps.presence) = (changing.index, changing.presence)
    """

    async def ask_stop(self, process_guid: str, first: int) -> None:
        await self.connection.execute(self.ASK_STOP, process_guid, first)

    CLOSE = """
        UPDATE actual_lrps SET stop_asked_at = clock_timestamp(), routable = false, tag_index = tag_index + 1
        WHERE process_guid = $1 AND index = $2 AND presence = $3 AND instance_guid = $4 AND stop_asked_at IS NULL
    """

    async def close(self, row: ActualLRP) -> None:
        key = (row.process_guid, row.index, row.presence.value)
        await self.connection.execute(self.CLOSE, *key, row.instance_guid)

    DELETE = """
        DELETE FROM actual_lrps
        WHERE process_guid = $1 AND index = $2 AND presence = $4 AND ($3::text IS NULL OR instance_guid = $3)
        RETURNING true
    """

    async def delete(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> bool:
        return bool(await self.connection.fetchval(self.DELETE, process_guid, index, instance_guid, presence))

    DELETE_MANY = """
        WITH gone AS MATERIALIZED (
            SELECT process_guid, index, presence FROM actual_lrps
            JOIN unnest($1::text[], $2::integer[], $3::text[], $4::text[])
                AS wanted (process_guid, index, presence, guid) USING (process_guid, index, presence)
            WHERE wanted.guid IS NULL OR instance_guid = wanted.guid
            ORDER BY process_guid, index, presence FOR UPDATE OF actual_lrps
        )
        DELETE FROM actual_lrps USING gone
        WHERE (actual_lrps.process_guid, actual_lrps.index, actual_lrps.presence)
              = (gone.process_guid, gone.index, gone.presence)
        RETURNING gone.*
    """

    async def delete_many(self, rows: Sequence[ActualLRP]) -> set[RowKey]:
        keys = [(row.process_guid, row.index, row.presence.value, row.instance_guid) for row in rows]
        found = await self.connection.fetch(self.DELETE_MANY, *map(list, zip(*keys, strict=True)))
        return {(row[0], row[1], row[2]) for row in found}

    REMOVE = """
        WITH deleted AS (
            DELETE FROM actual_lrps
            WHERE process_guid = $1 AND index = $2 AND presence = $4 AND ($3::text IS NULL OR instance_guid = $3)
            RETURNING stop_asked_at
        ), forgotten AS (
            DELETE FROM abandoned_attempts WHERE instance_guid = $3
        )
        SELECT EXISTS (SELECT FROM deleted) AS deleted,
            EXISTS (
                SELECT FROM actual_lrps AS other WHERE process_guid = $1
                    AND ((index, presence) <> ($2, $4) OR NOT EXISTS (SELECT FROM deleted))
            ) OR EXISTS (
                SELECT FROM abandoned_attempts JOIN cells USING (cell_id)
                WHERE process_guid = $1 AND instance_guid IS DISTINCT FROM $3 AND expires_at > clock_timestamp()
            ) AS others,
            -- That its end was asked for is on the disk. Should a crash of Postgres bring the row back, convergence
            -- ends it: the disk need not be waited for once more.
            (SELECT set_config('synchronous_commit', 'off', true) FROM deleted WHERE stop_asked_at IS NOT NULL)
    """

    async def remove(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> RemovedRow:
        # One look at all as they are when it begins: a row that moves on while we wait for it is one of the others.
        row = await self.connection.fetchrow(self.REMOVE, process_guid, index, instance_guid, presence)
        return RemovedRow(row["deleted"], not row["others"])


def _columns(row: ActualLRP, failure_id: str | None) -> tuple[object, ...]:
    """What SAVE and SAVE_MANY take of a row, in their order."""
    return (
        row.process_guid,
        row.index,
        row.presence.value,
        row.state.value,
        row.instance_guid,
        row.cell_id,
        None if row.net_info is None else wire.encode(row.net_info),
        row.since,
        row.crash_count,
        row.crash_reason,
        row.placement_error,
        failure_id,
        row.attempts,
        row.next_attempt_at,
        row.routable,
        row.availability_zone,
        row.modification_tag.index,
        row.revision,
    )


def row_of(row: asyncpg.Record, *, with_failure: bool = False) -> ActualLRP:
    """All columns of a row as a model."""
    net_info = row["net_info"]
    return ActualLRP(
        process_guid=row["process_guid"],
        index=row["index"],
        domain=row["domain"],
        state=ActualLRPState(row["state"]),
        presence=Presence(row["presence"]),
        instance_guid=row["instance_guid"],
        cell_id=row["cell_id"],
        # A list has thousands of them, and we wrote them: read at once, without the wire's care for what others send.
        net_info=None if net_info is None else msgspec.json.decode(net_info, type=NetInfo),
        since=row["since"],
        crash_count=row["crash_count"],
        crash_reason=row["crash_reason"],
        placement_error=row["placement_error"],
        failure=_document(row["document"]) if with_failure else None,
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        stop_asked_at=row["stop_asked_at"],
        routable=row["routable"],
        availability_zone=row["availability_zone"],
        revision=row["revision"],
        modification_tag=ModificationTag(epoch=row["tag_epoch"], index=row["tag_index"]),
    )


def _document(document: bytes | None) -> Mapping[str, Any] | None:
    return None if document is None else msgspec.json.decode(document, type=dict[str, Any])
