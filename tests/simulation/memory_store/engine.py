"""A database in memory with the semantics of Postgres that matter here: read committed, row locks, snapshots, rollback.

Rows are frozen values, so that handing one out is as good as a copy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from attrs import define, field

from bbs.store.postgres_errors import RETRY_AFTER_S
from diego_py.errors import CallerError, DatabaseUnavailable
from diego_py.service.clock import Clock
from tests.simulation.memory_store.locks import Holder, Locks

Rows = dict[Any, Any]
"""One table, by primary key. In the changes of a transaction None is a deleted row."""
Change = tuple[str, Any, Any, Any]
"""Table, primary key, row before and row after."""

TABLES: Final = (
    "abandoned_attempts",
    "actual_lrps",
    "cells",
    "decisions",
    "desired_lrps",
    "domains",
    "failures",
    "idempotency_keys",
    "labels",
    "leader",
    "tasks",
)


class ConstraintViolated(Exception):
    """No state allows such a row: a defect of whoever wrote it, as Postgres's CHECK and UNIQUE see it."""


@define
class MemoryDatabase:
    """What all BBSes share. `witness` sees every commit, with the transaction and its changes."""

    clock: Clock
    tables: dict[str, Rows] = field(factory=lambda: {name: {} for name in TABLES})
    locks: Locks = field(factory=Locks)
    witness: Callable[[MemoryTransactionCore, list[Change]], None] = lambda transaction, changes: None


@define(eq=False)
class MemoryTransactionCore:
    """One transaction: what it changed, and what it sees."""

    database: MemoryDatabase
    op: str
    pause: Callable[[], Awaitable[None]]
    """Awaited before each statement: others get their turn, and faults theirs."""
    frozen: Mapping[str, Rows] | None = None
    """The state that a snapshot reads."""
    holds_locks: bool = True
    """A statement outside of any transaction keeps no lock beyond its own end."""
    statements_max: int | None = None
    """Where nothing tells the database that more follow."""
    statements: int = field(default=0, init=False)
    epoch: int | None = field(default=None, init=False)
    """As leader of which epoch it acts; only a witness looks at it."""
    decided: Any = field(default=None, init=False)
    """The row that it was decided by, for a witness."""
    trace_id: str = field(default="", init=False)
    """Of the request that it belongs to, for a witness."""
    began_at: datetime = field(init=False)
    changes: dict[str, Rows] = field(factory=dict, init=False)
    failed: bool = field(default=False, init=False)
    over: bool = field(default=False, init=False)
    holder: Holder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.began_at = self.database.clock.now()
        self.holder = Holder(self.op)

    def now(self) -> datetime:
        return self.database.clock.now()

    async def statement(self, *texts: str | None) -> None:
        """Begin a statement. Raises CallerError for text that no column can hold."""
        self.statements += 1
        assert self.statements_max is None or self.statements <= self.statements_max, f"{self.op}: more than it said"
        await self.pause()
        self._require_open()
        for text in texts:
            if text is not None and not _storable(text):
                raise CallerError("a value in the request cannot be stored or looked for")

    def _require_open(self) -> None:
        """Raises DatabaseUnavailable when the server ended it meanwhile: its process had been frozen for too long."""
        if self.over:
            self.database.locks.release(self.holder)
            raise DatabaseUnavailable(f"{self.op}: the connection to Postgres was lost", retry_after_s=RETRY_AFTER_S)

    def get(self, table: str, key: Any) -> Any:
        """The row as this transaction sees it now, or None."""
        changed = self.changes.get(table)
        if changed is not None and key in changed:
            return changed[key]
        return (self.frozen or self.database.tables)[table].get(key)

    def rows(self, table: str) -> Iterator[Any]:
        """All rows that it sees now, in key order."""
        seen = (self.frozen or self.database.tables)[table]
        changed = self.changes.get(table)
        if changed:
            seen = {**seen, **changed}
        for key in sorted(seen):
            row = seen[key]
            if row is not None:
                yield row

    async def lock(self, table: str, key: Any, shared: bool = False) -> Any:
        """The row, nobody else's until the end, as it is once we have it; None if there is none (then)."""
        if self.get(table, key) is None:
            return None
        await self.take(table, key, shared)
        return self.get(table, key)

    async def take(self, table: str, key: Any, shared: bool = False) -> None:
        """Wait until nobody else has a row of this key or is about to have one."""
        if not self.holds_locks:
            return
        try:
            await self.database.locks.take(self.holder, (table, key), shared)
        except Exception:
            self.failed = True
            raise
        self._require_open()

    async def update(
        self, table: str, key: Any, where: Callable[[Any], bool], change: Callable[[Any], Any]
    ) -> tuple[Any, Any] | None:
        """Change a row that is as asked, before and after the wait for it. The row before and after, or None."""
        row = self.get(table, key)
        if row is None or not where(row):
            return None
        row = await self.lock(table, key)
        if row is None or not where(row):
            return None
        after = change(row)
        self.write(table, key, after)
        return row, after

    def write(self, table: str, key: Any, row: Any) -> None:
        """Put a row that is locked, or remove it (None)."""
        self.changes.setdefault(table, {})[key] = row

    def commit(self) -> None:
        """Make the changes everybody's, at once."""
        self.over = True
        tables = self.database.tables
        told: list[Change] = []
        for table, changed in self.changes.items():
            rows = tables[table]
            for key, row in changed.items():
                told.append((table, key, rows.get(key), row))
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        if told:
            self.database.witness(self, told)
        self.database.locks.release(self.holder)

    def roll_back(self) -> None:
        """Forget the changes. Nothing if it is over already."""
        if not self.over:
            self.over = True
            self.database.locks.release(self.holder)


def _storable(text: str) -> bool:
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))
