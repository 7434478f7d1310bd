"""How tests reach behind the Protocol of a store: let time pass for rows, put them into states, watch who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

from attrs import define, evolve, field, frozen

from bbs.store.database import Database
from diego_py.call import Call
from diego_py.service.clock import SystemClock
from tests.simulation.memory_store.actual_lrps import Row
from tests.simulation.memory_store.engine import Change, MemoryDatabase, MemoryTransactionCore
from tests.simulation.memory_store.small_tables import FailureRow

KEYS: Final = {
    "abandoned_attempts": "instance_guid",
    "actual_lrps": "process_guid",
    "cells": "cell_id",
    "domains": "domain",
    "failures": "id",
    "idempotency_keys": "key",
}

TURNS_MAX: Final = 1_000


@frozen
class Audited:
    """One change of an instance's row."""

    old_state: str
    new_state: str
    old_tag: int
    new_tag: int
    instance_guid: str | None
    cell_id: str | None


class Tampering(Protocol):
    """What a test does to the tables themselves."""

    async def shift(self, table: str, column: str, seconds: float, key: str | None = None) -> None:
        """Move a time of the rows of `key`, or of all rows."""

    async def put(self, table: str, column: str, value: Any, key: str | None = None) -> None:
        """Set a column of the rows of `key`, or of all rows."""

    async def column(self, table: str, column: str) -> list[Any]:
        """What all rows have there."""

    async def audit(self) -> None:
        """From now on write down every change of an instance's row."""

    async def audited(self) -> Sequence[Audited]:
        """What was written down."""

    async def somebody_waits(self) -> None:
        """Return when a transaction waits for another one's lock."""


@define
class PostgresTampering:
    """By SQL of its own."""

    database: Database

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        call = Call.begin(SystemClock(), 10_000)
        rows: list[Any] = await self.database.run(call, "sql", lambda tx: tx.connection.fetch(statement, *arguments))
        return rows

    async def shift(self, table: str, column: str, seconds: float, key: str | None = None) -> None:
        where = f"WHERE $2::text IS NULL OR {KEYS[table]} = $2"
        span = timedelta(seconds=seconds)
        await self.sql(f"UPDATE {table} SET {column} = {column} + $1::interval {where}", span, key)

    async def put(self, table: str, column: str, value: Any, key: str | None = None) -> None:
        await self.sql(f"UPDATE {table} SET {column} = $1 WHERE $2::text IS NULL OR {KEYS[table]} = $2", value, key)

    async def column(self, table: str, column: str) -> list[Any]:
        return [row[column] for row in await self.sql(f"SELECT {column} FROM {table} ORDER BY {KEYS[table]}")]

    async def audit(self) -> None:
        for statement in AUDIT:
            await self.sql(statement)

    async def audited(self) -> Sequence[Audited]:
        return [Audited(*row) for row in await self.sql("SELECT * FROM audit")]

    async def somebody_waits(self) -> None:
        while not await self.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await self.sql("SELECT pg_sleep(0.01)")


@define
class MemoryTampering:
    """By hand."""

    database: MemoryDatabase
    _audit: list[Audited] = field(factory=list)

    async def shift(self, table: str, column: str, seconds: float, key: str | None = None) -> None:
        span = timedelta(seconds=seconds)
        self._change(table, column, lambda value: value if value is None else value + span, key)

    async def put(self, table: str, column: str, value: Any, key: str | None = None) -> None:
        self._change(table, column, lambda _: value, key)

    async def column(self, table: str, column: str) -> list[Any]:
        if column == KEYS[table]:
            return sorted(self.database.tables[table])
        return [getattr(row, column) for _, row in sorted(self.database.tables[table].items())]

    async def audit(self) -> None:
        self._audit = []
        self.database.witness = self._write_down

    async def audited(self) -> Sequence[Audited]:
        return self._audit

    async def somebody_waits(self) -> None:
        for _ in range(TURNS_MAX):
            if self.database.locks.waiters:
                return
            await asyncio.sleep(0)
        raise AssertionError("nobody waits")

    def _write_down(self, transaction: MemoryTransactionCore, changes: list[Change]) -> None:
        for table, _, before, after in changes:
            if table != "actual_lrps" or before is None or after is None:
                continue
            old, new = before.lrp, after.lrp
            if old.modification_tag.index == new.modification_tag.index:
                continue
            tags = old.modification_tag.index, new.modification_tag.index
            states = old.state.value, new.state.value
            self._audit.append(Audited(*states, *tags, new.instance_guid, new.cell_id))

    def _change(self, table: str, column: str, change: Callable[[Any], Any], key: str | None) -> None:
        rows = self.database.tables[table]
        for name, row in rows.items():
            if key is not None and key != (name[0] if isinstance(name, tuple) else name):
                continue
            match row:
                case Row():
                    rows[name] = evolve(row, lrp=_changed(row.lrp, column, change))
                case FailureRow():
                    rows[name] = evolve(row, record=_changed(row.record, column, change))
                case _:
                    rows[name] = _changed(row, column, change)


def _changed(value: Any, column: str, change: Callable[[Any], Any]) -> Any:
    return evolve(value, **{column: change(getattr(value, column))})


AUDIT = (
    """
    CREATE TABLE audit (
        old_state text, new_state text, old_tag bigint, new_tag bigint, instance_guid text, cell_id text
    )
    """,
    """
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit
        VALUES (old.state, new.state, old.tag_index, new.tag_index, new.instance_guid, new.cell_id);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER audit AFTER UPDATE ON actual_lrps FOR EACH ROW
    WHEN (old.tag_index <> new.tag_index) EXECUTE FUNCTION audit()
    """,
)
