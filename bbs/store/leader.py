"""The row that says which BBS converges. Its epoch rises with every takeover and fences off whoever led before."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import asyncpg

from diego_py.errors import NotLeader

ACQUIRE_OR_RENEW: Final = """
    UPDATE leader
    SET epoch = CASE WHEN owner = $1 AND expires_at > clock_timestamp() THEN epoch ELSE epoch + 1 END,
        owner = $1,
        expires_at = clock_timestamp() + $2::interval
    WHERE owner = $1 OR expires_at <= clock_timestamp()
    RETURNING epoch
"""


async def acquire_or_renew(connection: asyncpg.Connection, owner: str, ttl_s: float) -> int | None:
    """The epoch in which `owner` leads for the next `ttl_s` seconds; None if another one leads.

    The epoch rises when the lead changes hands or had run out. `owner` must be of one process, not of one host: a
    process that starts again under the same owner goes on in the same epoch.
    """
    epoch: int | None = await connection.fetchval(ACQUIRE_OR_RENEW, owner, timedelta(seconds=ttl_s))
    return epoch


FENCE: Final = "SELECT epoch FROM leader FOR SHARE"


async def fence(connection: asyncpg.Connection, epoch: int) -> None:
    """Let this transaction go on only if `epoch` leads, and let no takeover happen before it ends.

    Raises NotLeader. A plain SELECT would not do: the takeover could commit between it and our own commit.
    """
    present = await connection.fetchval(FENCE)
    if present != epoch:
        raise NotLeader(f"act as leader of epoch {epoch}: the epoch is {present}")


RELEASE: Final = "UPDATE leader SET owner = '', expires_at = '-infinity' WHERE owner = $1 AND epoch = $2"


async def release(connection: asyncpg.Connection, owner: str, epoch: int) -> None:
    """Give up the lead, so that another BBS need not wait for it to run out."""
    await connection.execute(RELEASE, owner, epoch)
