"""What is not as desired, found by Postgres: what is as desired never leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from attrs import frozen

from bbs.store.actual_lrps import Key


@frozen
class PostgresDeviations:
    """Deviations in Postgres. What each method means is said in `tables.Deviations`."""

    connection: asyncpg.Connection

    UNEVEN = """
        SELECT process_guid FROM (
            SELECT process_guid, count(*) FILTER (WHERE presence = 'ORDINARY') AS ordinary, max(index) AS last
            FROM actual_lrps GROUP BY process_guid
        ) AS there FULL JOIN desired_lrps USING (process_guid)
        WHERE instances IS NULL OR coalesce(ordinary, 0) <> instances OR last >= instances
    """

    async def uneven(self) -> list[str]:
        return [row[0] for row in await self.connection.fetch(self.UNEVEN)]

    EMPTIED = """
        SELECT DISTINCT process_guid FROM actual_lrps JOIN desired_lrps USING (process_guid)
        WHERE cell_id = ANY(ARRAY(SELECT cell_id FROM cells WHERE draining)) AND update_strategy = 'RECREATE'
    """

    async def emptied(self) -> list[str]:
        return [row[0] for row in await self.connection.fetch(self.EMPTIED)]

    KEYS = """
        SELECT process_guid, index FROM actual_lrps WHERE process_guid = ANY($1::text[])
        UNION SELECT process_guid, index FROM actual_lrps
            WHERE cell_id IS NULL AND (state = 'CRASHED' OR next_attempt_at IS NOT NULL OR since <= $2)
        UNION SELECT process_guid, index FROM actual_lrps WHERE stop_asked_at IS NOT NULL
        UNION SELECT process_guid, index FROM actual_lrps WHERE presence <> 'ORDINARY'
        UNION SELECT process_guid, index FROM actual_lrps WHERE cell_id IN (
            SELECT cell_id FROM actual_lrps WHERE cell_id IS NOT NULL GROUP BY cell_id
            EXCEPT SELECT cell_id FROM cells WHERE expires_at > now() AND NOT draining
        )
        ORDER BY process_guid, index
    """

    async def keys(self, process_guids: Sequence[str], stale: datetime) -> list[Key]:
        return [(row[0], row[1]) for row in await self.connection.fetch(self.KEYS, process_guids, stale)]

    OFFERED_SINCE = """
        SELECT min(since) FROM actual_lrps
        WHERE cell_id IS NULL AND state = 'UNCLAIMED' AND next_attempt_at IS NULL AND since > $1
    """

    async def offered_since(self, stale: datetime) -> datetime | None:
        first: datetime | None = await self.connection.fetchval(self.OFFERED_SINCE, stale)
        return first
