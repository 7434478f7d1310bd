"""The table of cells: what each said last, and until when it counts as live by the database's clock alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg
from attrs import frozen

from diego_py import wire
from diego_py.models.cell import CellPresence
from diego_py.models.identifiers import CellId
from diego_py.models.work import AvailableResources, CellReport, Heartbeat

Boot = tuple[str, str | None]
"""A cell and one of its boots; None: whichever it has."""


@frozen(kw_only=True)
class CellRecord:
    """The last word of a cell."""

    presence: CellPresence
    available: AvailableResources
    sequence: int
    seen_at: datetime | None = None
    """By the database's clock; None if the cell said it to us directly."""
    expires_at: datetime | None = None
    live: bool = True
    """Whether its presence lasts, when it was read."""

    @property
    def cell_id(self) -> CellId:
        return self.presence.cell_id


class CellMark(NamedTuple):
    """What is looked at of every cell again and again. Thousands are read at a time."""

    cell_id: CellId
    boot_id: str
    told: int
    """Sequence of its last whole report."""
    live: bool
    draining: bool
    late: bool
    """It is live, and has not reported for more than half of the time that its presence lasts."""
    expires_at: datetime


FINGERPRINT = """CASE WHEN NOT EXISTS (
        SELECT FROM abandoned_attempts AS left_over WHERE left_over.cell_id = cells.cell_id
    ) THEN (SELECT coalesce(bit_xor(hash), 0) FROM (
        SELECT hashtextextended(instance_guid, tag_index) FROM actual_lrps AS instance
        WHERE instance.cell_id = cells.cell_id
        UNION ALL
        SELECT hashtextextended(instance_guid, -1) FROM tasks
        WHERE tasks.cell_id = cells.cell_id AND state = 'RUNNING'
    ) AS had (hash)) END"""
"""Of all rows of a cell as they are; NULL, which equals nothing, while an attempt there is not accounted for."""


@frozen
class PostgresCells:
    """Cells in Postgres. What each method means is said in `tables.CellTable`."""

    connection: asyncpg.Connection

    UPSERT = f"""
        INSERT INTO cells (cell_id, boot_id, url, zone, address, presence, available_memory_mb, available_disk_mb,
                           available_containers, sequence, told, seen_at, expires_at, home_id, draining, digest)
        SELECT cell_id, boot_id, url, zone, address, presence, memory_mb, disk_mb, containers, sequence, sequence,
               clock_timestamp(), clock_timestamp() + $14::interval, home_id, draining, digest
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::integer[],
                    $8::integer[], $9::integer[], $10::bigint[], $11::text[], $12::boolean[], $13::text[])
             AS new (cell_id, boot_id, url, zone, address, presence, memory_mb, disk_mb, containers, sequence, home_id,
                     draining, digest)
        ORDER BY cell_id COLLATE "C"
        ON CONFLICT (cell_id) DO UPDATE
        SET boot_id = excluded.boot_id,
            former_boot_id =
                CASE WHEN cells.boot_id = excluded.boot_id THEN cells.former_boot_id ELSE cells.boot_id END,
            url = excluded.url, zone = excluded.zone, address = excluded.address, presence = excluded.presence,
            available_memory_mb = excluded.available_memory_mb, available_disk_mb = excluded.available_disk_mb,
            available_containers = excluded.available_containers, sequence = excluded.sequence,
            seen_at = excluded.seen_at, expires_at = excluded.expires_at, home_id = excluded.home_id,
            told = excluded.told, draining = excluded.draining, digest = excluded.digest, settled = NULL
        WHERE (cells.home_id = excluded.home_id OR cells.expires_at <= clock_timestamp())
          AND ((cells.boot_id = excluded.boot_id AND cells.sequence <= excluded.sequence)
               OR (cells.boot_id <> excluded.boot_id
                   AND (cells.former_boot_id IS DISTINCT FROM excluded.boot_id
                        OR cells.expires_at <= clock_timestamp())))
        RETURNING cell_id,
            {FINGERPRINT} AS fingerprint
    """

    async def upsert(self, reports: Sequence[CellReport], ttl_s: float) -> dict[CellId, int | None]:
        columns = zip(*(_columns(report) for report in reports), strict=True)
        taken = await self.connection.fetch(self.UPSERT, *map(list, columns), timedelta(seconds=ttl_s))
        return {row["cell_id"]: row["fingerprint"] for row in taken}

    SETTLE = """
        UPDATE cells SET settled = new.settled FROM unnest($1::text[], $2::bigint[]) AS new (cell_id, settled)
        WHERE cells.cell_id = new.cell_id
    """

    async def settle(self, fingerprints: Mapping[CellId, int]) -> None:
        await self.connection.execute(self.SETTLE, list(fingerprints), list(fingerprints.values()))

    RENEW = f"""
        WITH same AS (
            SELECT cells.cell_id, told.sequence
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS told (cell_id, boot_id, sequence, digest)
            JOIN cells USING (cell_id, boot_id, digest)
            WHERE cells.sequence <= told.sequence
              AND settled = {FINGERPRINT}
            ORDER BY cells.cell_id FOR UPDATE OF cells
        )
        UPDATE cells SET sequence = same.sequence, seen_at = clock_timestamp(),
                         expires_at = clock_timestamp() + $5::interval
        FROM same WHERE cells.cell_id = same.cell_id
        RETURNING cells.cell_id
    """

    async def renew(self, beats: Sequence[tuple[CellId, Heartbeat]], ttl_s: float) -> set[CellId]:
        told = ((cell_id, beat.boot_id, beat.sequence, beat.digest) for cell_id, beat in beats)
        columns = zip(*told, strict=True)
        taken = await self.connection.fetch(self.RENEW, *map(list, columns), timedelta(seconds=ttl_s))
        return {row["cell_id"] for row in taken}

    LIST_MARKS = """
        SELECT cell_id, boot_id, told, expires_at > now(), draining,
               expires_at > now() AND now() - seen_at > (expires_at - seen_at) / 2, expires_at
        FROM cells ORDER BY cell_id
    """

    async def list_marks(self) -> list[CellMark]:
        return [CellMark._make(row) for row in await self.connection.fetch(self.LIST_MARKS)]

    LIST_MANY = """
        SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
               true AS live
        FROM cells WHERE cell_id = ANY($1::text[]) AND expires_at > clock_timestamp() ORDER BY cell_id
    """

    async def list_many(self, cell_ids: Sequence[str]) -> list[CellRecord]:
        return [_record(row) for row in await self.connection.fetch(self.LIST_MANY, cell_ids)]

    LIST_LIVE = """
        SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
               true AS live
        FROM cells WHERE expires_at > clock_timestamp() ORDER BY cell_id
    """

    async def list_live(self) -> list[CellRecord]:
        return [_record(row) for row in await self.connection.fetch(self.LIST_LIVE)]

    LIST_ALL = """
        SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
               expires_at > clock_timestamp() AS live
        FROM cells ORDER BY cell_id
    """

    async def list_all(self) -> list[CellRecord]:
        return [_record(row) for row in await self.connection.fetch(self.LIST_ALL)]

    GET = """
        SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
               expires_at > clock_timestamp() AS live
        FROM cells WHERE cell_id = $1
    """

    async def get(self, cell_id: str) -> CellRecord | None:
        row = await self.connection.fetchrow(self.GET, cell_id)
        return None if row is None else _record(row)

    IS_LIVE = """
        SELECT true FROM cells WHERE cell_id = $1 AND boot_id = $2 AND expires_at > clock_timestamp()
    """

    async def is_live(self, cell_id: str, boot_id: str) -> bool:
        return bool(await self.connection.fetchval(self.IS_LIVE, cell_id, boot_id))

    LIVE_OF = """
        SELECT wanted.cell_id, wanted.boot_id
        FROM cells JOIN unnest($1::text[], $2::text[]) AS wanted (cell_id, boot_id) USING (cell_id)
        WHERE cells.boot_id = coalesce(wanted.boot_id, cells.boot_id) AND expires_at > clock_timestamp()
    """

    async def live_of(self, boots: Sequence[Boot]) -> set[Boot]:
        cells, of_boot = [cell_id for cell_id, _ in boots], [boot_id for _, boot_id in boots]
        found = await self.connection.fetch(self.LIVE_OF, cells, of_boot)
        return {(row["cell_id"], row["boot_id"]) for row in found}

    EXPIRE = "UPDATE cells SET expires_at = clock_timestamp() WHERE cell_id = $1 RETURNING true"

    async def expire(self, cell_id: str) -> bool:
        return bool(await self.connection.fetchval(self.EXPIRE, cell_id))

    DELETE = "DELETE FROM cells WHERE cell_id = $1 RETURNING true"

    async def delete(self, cell_id: str) -> bool:
        return bool(await self.connection.fetchval(self.DELETE, cell_id))


def _columns(report: CellReport) -> tuple[object, ...]:
    """What UPSERT takes of a report, in its order."""
    presence, available = report.presence, report.available
    return (
        presence.cell_id,
        presence.boot_id,
        presence.url,
        presence.zone,
        presence.address,
        wire.encode(presence),
        available.memory_mb,
        available.disk_mb,
        available.containers,
        report.sequence,
        presence.home_id,
        presence.draining,
        report.digest,
    )


def _record(row: asyncpg.Record) -> CellRecord:
    return CellRecord(
        presence=wire.decode(CellPresence, row["presence"]),
        available=AvailableResources(
            memory_mb=row["available_memory_mb"],
            disk_mb=row["available_disk_mb"],
            containers=row["available_containers"],
        ),
        sequence=row["sequence"],
        seen_at=row["seen_at"],
        expires_at=row["expires_at"],
        live=row["live"],
    )
