"""The table of abandoned attempts: what a cell claimed and no row names any more, until that cell says that it is gone.

Written in the transaction that takes an instance off its row without its cell's word. Who stops an LRP asks these cells
too before the answer says that nothing of it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import asyncpg
from attrs import frozen

from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.workload import ModificationTag


@frozen
class PostgresAbandoned:
    """Abandoned attempts in Postgres. What each method means is said in `tables.AbandonedTable`."""

    connection: asyncpg.Connection

    INSERT = """
        INSERT INTO abandoned_attempts (instance_guid, process_guid, index, domain, cell_id, revision, since)
        VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
        ON CONFLICT (instance_guid) DO NOTHING
    """

    async def insert_many(self, rows: Sequence[ActualLRP]) -> None:
        ordered = sorted(rows, key=lambda row: row.instance_guid or "")
        await self.connection.executemany(self.INSERT, list(map(_columns, ordered)))

    LIST_OF = """
        SELECT abandoned_attempts.* FROM abandoned_attempts JOIN cells USING (cell_id)
        WHERE process_guid = $1 AND index >= $2 AND expires_at > clock_timestamp()
        ORDER BY index, instance_guid
    """

    async def list_of(self, process_guid: str, first: int = 0) -> list[ActualLRP]:
        return [_row(row) for row in await self.connection.fetch(self.LIST_OF, process_guid, first)]

    SETTLE = """
        DELETE FROM abandoned_attempts WHERE instance_guid = ANY(ARRAY(
            SELECT instance_guid FROM abandoned_attempts
            WHERE cell_id = ANY($1::text[]) AND instance_guid NOT IN (SELECT unnest($2::text[]))
              AND since <= clock_timestamp() - $3::interval
            ORDER BY instance_guid FOR UPDATE
        ))
    """
    # A plan made while the table was empty is kept. By any plan an array is made once; what IN looks into is found, and
    # locked, again for each row by some. And a subquery is hashed, where an array is looked through.

    async def settle(self, cell_ids: Sequence[str], reported: Sequence[str], older_than_s: float) -> None:
        await self.connection.execute(self.SETTLE, cell_ids, reported, timedelta(seconds=older_than_s))

    PRUNE = """
        DELETE FROM abandoned_attempts
        WHERE since < now() - interval '1 day'
          AND NOT EXISTS (SELECT FROM cells WHERE cells.cell_id = abandoned_attempts.cell_id AND expires_at > now())
    """

    async def prune(self) -> None:
        await self.connection.execute(self.PRUNE)


def _columns(row: ActualLRP) -> tuple[object, ...]:
    return (row.instance_guid, row.process_guid, row.index, row.domain, row.cell_id, row.revision)


def _row(row: asyncpg.Record) -> ActualLRP:
    return ActualLRP(
        process_guid=row["process_guid"],
        index=row["index"],
        domain=row["domain"],
        state=ActualLRPState.CLAIMED,
        instance_guid=row["instance_guid"],
        cell_id=row["cell_id"],
        since=row["since"],
        revision=row["revision"],
        modification_tag=ModificationTag(epoch=row["instance_guid"], index=0),
    )
