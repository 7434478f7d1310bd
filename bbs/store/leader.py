"""The row that says which BBS converges. Its epoch rises with every takeover to fence off whoever led before."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
from attrs import frozen


@frozen
class PostgresLeader:
    """The leader's row in Postgres. What each method means is said in `tables.LeaderTable`."""

    connection: asyncpg.Connection

    ACQUIRE_OR_RENEW = """
        UPDATE leader
        SET epoch = CASE WHEN owner = $1 AND expires_at > clock_timestamp() THEN epoch ELSE epoch + 1 END,
            owner = $1,
            expires_at = clock_timestamp() + $2::interval
        WHERE owner = $1 OR expires_at <= clock_timestamp()
        RETURNING epoch
    """

    async def acquire_or_renew(self, owner: str, ttl_s: float) -> int | None:
        epoch: int | None = await self.connection.fetchval(self.ACQUIRE_OR_RENEW, owner, timedelta(seconds=ttl_s))
        return epoch

    HOLD_EPOCH = "SELECT epoch FROM leader FOR SHARE"

    async def hold_epoch(self) -> int:
        epoch: int = await self.connection.fetchval(self.HOLD_EPOCH)
        return epoch

    RELEASE = "UPDATE leader SET owner = '', expires_at = '-infinity' WHERE owner = $1 AND epoch = $2"

    async def release(self, owner: str, epoch: int) -> None:
        await self.connection.execute(self.RELEASE, owner, epoch)
