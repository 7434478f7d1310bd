"""The table of cells: what each said last, and until when it counts as live by the database's clock alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import asyncpg
from attrs import frozen

from diego_py import wire
from diego_py.models.cell import CellPresence
from diego_py.models.identifiers import CellId
from diego_py.models.work import AvailableResources, CellReport


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


UPSERT: Final = """
    INSERT INTO cells (cell_id, boot_id, url, zone, address, presence, available_memory_mb, available_disk_mb,
                       available_containers, sequence, seen_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), clock_timestamp() + $11::interval)
    ON CONFLICT (cell_id) DO UPDATE
    SET boot_id = excluded.boot_id,
        former_boot_id = CASE WHEN cells.boot_id = excluded.boot_id THEN cells.former_boot_id ELSE cells.boot_id END,
        url = excluded.url, zone = excluded.zone, address = excluded.address, presence = excluded.presence,
        available_memory_mb = excluded.available_memory_mb, available_disk_mb = excluded.available_disk_mb,
        available_containers = excluded.available_containers, sequence = excluded.sequence,
        seen_at = excluded.seen_at, expires_at = excluded.expires_at
    WHERE (cells.boot_id = excluded.boot_id AND cells.sequence <= excluded.sequence)
       OR (cells.boot_id <> excluded.boot_id
           AND (cells.former_boot_id IS DISTINCT FROM excluded.boot_id OR cells.expires_at <= clock_timestamp()))
    RETURNING true
"""


async def upsert(connection: asyncpg.Connection, report: CellReport, ttl_s: float) -> bool:
    """Take up a report and renew the presence, and keep the row locked. False if the report is out of date.

    Out of date is a lower sequence of the same boot, and anything of the boot that the present one replaced, for as
    long as the present one is live. A boot that is not known replaces the present one at once: the cell restarted.
    """
    presence, available = report.presence, report.available
    accepted = await connection.fetchval(
        UPSERT,
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
        timedelta(seconds=ttl_s),
    )
    return bool(accepted)


LIST_LIVE: Final = """
    SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
           true AS live
    FROM cells WHERE expires_at > clock_timestamp() ORDER BY cell_id
"""


async def list_live(connection: asyncpg.Connection) -> list[CellRecord]:
    """The cells whose presence lasts."""
    return [_record(row) for row in await connection.fetch(LIST_LIVE)]


LIST_ALL: Final = """
    SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
           expires_at > clock_timestamp() AS live
    FROM cells ORDER BY cell_id
"""


async def list_all(connection: asyncpg.Connection) -> list[CellRecord]:
    """Every cell that was seen and not deleted since."""
    return [_record(row) for row in await connection.fetch(LIST_ALL)]


GET: Final = """
    SELECT presence, available_memory_mb, available_disk_mb, available_containers, sequence, seen_at, expires_at,
           expires_at > clock_timestamp() AS live
    FROM cells WHERE cell_id = $1
"""


async def get(connection: asyncpg.Connection, cell_id: str) -> CellRecord | None:
    row = await connection.fetchrow(GET, cell_id)
    return None if row is None else _record(row)


IS_LIVE: Final = """
    SELECT true FROM cells WHERE cell_id = $1 AND boot_id = $2 AND expires_at > clock_timestamp()
"""


async def is_live(connection: asyncpg.Connection, cell_id: str, boot_id: str) -> bool:
    """Whether this boot of the cell is the present one and its presence lasts."""
    return bool(await connection.fetchval(IS_LIVE, cell_id, boot_id))


EXPIRE: Final = "UPDATE cells SET expires_at = clock_timestamp() WHERE cell_id = $1 RETURNING true"


async def expire(connection: asyncpg.Connection, cell_id: str) -> bool:
    """End the presence now: the cell says goodbye, or an operator knows that it is gone. False if it is not known."""
    return bool(await connection.fetchval(EXPIRE, cell_id))


DELETE: Final = "DELETE FROM cells WHERE cell_id = $1 RETURNING true"


async def delete(connection: asyncpg.Connection, cell_id: str) -> bool:
    """Forget a cell. False if it is not known."""
    return bool(await connection.fetchval(DELETE, cell_id))


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
