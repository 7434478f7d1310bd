"""What the convergence leader decided in its last round, where every BBS can read it."""

from __future__ import annotations

from datetime import datetime

import asyncpg
from attrs import frozen


@frozen
class LastRound:
    """A round of convergence, as its leader told it."""

    epoch: int
    owner: str
    decided_at: datetime
    document: bytes
    """`convergence.decisions.Decisions` as JSON."""


@frozen
class PostgresDecisions:
    """Decisions in Postgres. What each method means is said in `tables.DecisionTable`."""

    connection: asyncpg.Connection

    TELL = """
        UPDATE decisions SET epoch = $1, owner = $2, decided_at = now(), document = COALESCE($3, document)
        WHERE epoch <= $1
    """

    async def tell(self, epoch: int, owner: str, document: bytes | None) -> None:
        await self.connection.execute(self.TELL, epoch, owner, document)

    LAST = "SELECT epoch, owner, decided_at, document FROM decisions WHERE decided_at IS NOT NULL"

    async def last(self) -> LastRound | None:
        row = await self.connection.fetchrow(self.LAST)
        return None if row is None else LastRound(**row)
