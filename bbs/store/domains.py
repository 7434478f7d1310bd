"""The table of domains: until when a client vouches for its part of the desired state."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import asyncpg
from attrs import frozen

from diego_py.models.identifiers import Domain


@frozen
class DomainFreshness:
    """A fresh domain."""

    domain: Domain
    expires_at: datetime | None
    """By the database's clock; None is never."""


UPSERT: Final = """
    INSERT INTO domains (domain, expires_at) VALUES ($1, clock_timestamp() + $2::interval)
    ON CONFLICT (domain) DO UPDATE SET expires_at = excluded.expires_at
"""


async def upsert(connection: asyncpg.Connection, domain: str, ttl_s: float | None) -> None:
    """Make a domain fresh for so many seconds from now; None is for ever."""
    await connection.execute(UPSERT, domain, None if ttl_s is None else timedelta(seconds=ttl_s))


LIST_FRESH: Final = """
    SELECT domain, expires_at FROM domains WHERE expires_at IS NULL OR expires_at > now() ORDER BY domain
"""


async def list_fresh(connection: asyncpg.Connection) -> list[DomainFreshness]:
    """The domains that are fresh now."""
    return [DomainFreshness(row["domain"], row["expires_at"]) for row in await connection.fetch(LIST_FRESH)]


PRUNE: Final = "DELETE FROM domains WHERE expires_at < now() - interval '1 day'"


async def prune(connection: asyncpg.Connection) -> None:
    """Forget domains that nobody made fresh for a day."""
    await connection.execute(PRUNE)
