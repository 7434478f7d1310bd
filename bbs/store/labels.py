"""What is told of instances besides their state: a column of desired LRPs, and one of instances that reps told of."""

from __future__ import annotations

import asyncpg
import msgspec
from attrs import frozen

from bbs.labels import Labels
from diego_py import wire


@frozen
class PostgresLabels:
    """Labels in Postgres. What each method means is said in `tables.LabelTable`."""

    connection: asyncpg.Connection

    TELL = """
        UPDATE actual_lrps SET labels = $2, tag_index = tag_index + 1
        WHERE instance_guid = $1 AND labels IS DISTINCT FROM $2
    """

    async def tell(self, instance_guid: str, labels: Labels) -> None:
        await self.connection.execute(self.TELL, instance_guid, encoded(labels))

    CHANGED = """
        WITH changing AS MATERIALIZED (
            SELECT index, presence FROM actual_lrps WHERE process_guid = $1 AND state = 'RUNNING'
            ORDER BY index, presence FOR UPDATE
        )
        UPDATE actual_lrps SET tag_index = tag_index + 1
        FROM changing
        WHERE process_guid = $1 AND (actual_lrps.index, actual_lrps.presence) = (changing.index, changing.presence)
    """

    async def changed(self, process_guid: str) -> None:
        await self.connection.execute(self.CHANGED, process_guid)


def encoded(labels: Labels) -> bytes:
    """As they are stored."""
    return wire.encode(labels)


def decoded(stored: bytes) -> Labels:
    """Stored ones."""
    # A list has thousands of them, and we wrote them: read at once, without the wire's care for what others send.
    return msgspec.json.decode(stored, type=Labels)
