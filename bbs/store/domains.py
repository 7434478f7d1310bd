"""The table of domains: until when a client vouches for its part of the desired state."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg
from attrs import frozen

from diego_py.models.identifiers import Domain


@frozen
class DomainFreshness:
    """A fresh domain."""

    domain: Domain
    expires_at: datetime | None
    """By the database's clock; None is never."""


@frozen
class PostgresDomains:
    """Domains in Postgres. What each method means is said in `tables.DomainTable`."""

    connection: asyncpg.Connection

    UPSERT = """
        INSERT INTO domains (domain, expires_at) VALUES ($1, clock_timestamp() + $2::interval)
        ON CONFLICT (domain) DO UPDATE SET expires_at = excluded.expires_at
    """

    async def upsert(self, domain: str, ttl_s: float | None) -> None:
        await self.connection.execute(self.UPSERT, domain, None if ttl_s is None else timedelta(seconds=ttl_s))

    LIST_FRESH = """
        SELECT domain, expires_at FROM domains WHERE expires_at IS NULL OR expires_at > now() ORDER BY domain
    """

    async def list_fresh(self) -> list[DomainFreshness]:
        return [
            DomainFreshness(row["domain"], row["expires_at"]) for row in await self.connection.fetch(self.LIST_FRESH)
        ]

    PRUNE = "DELETE FROM domains WHERE expires_at < now() - interval '1 day'"

    async def prune(self) -> None:
        await self.connection.execute(self.PRUNE)
