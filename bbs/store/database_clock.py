"""The database's clock: the only one that presences, leases and waits are measured by."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg

NOW: Final = "SELECT transaction_timestamp()"


async def now(connection: asyncpg.Connection) -> datetime:
    """When this transaction began."""
    moment: datetime = await connection.fetchval(NOW)
    return moment
