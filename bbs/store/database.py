"""The one border to Postgres: transactions, and the driver's errors as ours with a frame of hop `postgres`.

Inside a transaction other modules only see a connection. What they raise themselves leaves without a frame of this
hop: that the row is not there is no failure of Postgres.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import Final, TypeVar

import asyncpg
from attrs import define, field

from bbs.store.connections import ConnectionPool, DatabaseSettings
from bbs.store.migrate import migrate
from bbs.store.postgres_errors import DRIVER_ERRORS, Collision, is_lost, refused_value, translate
from bbs.store.postgres_transaction import PostgresTransaction
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import BudgetSpent, DatabaseConflict, DatabaseUnavailable, DiegoError, InternalError, Outcome
from diego_py.service.clock import Clock

T = TypeVar("T")

TRIES_MAX: Final = 3
"""Of a transaction that Postgres undid in favour of another one."""
PAUSE_MAX_S: Final = 0.02
"""Before the second try; twice as long before the third. Jittered."""

_NONE: Final = ""
_SINGLE: Final = None
"""Neither: one statement, which writes, and is sent together with its COMMIT."""
_READ_COMMITTED: Final = "BEGIN"
_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@define
class Database:
    """Transactions for everybody. Starts without Postgres too: each use connects again, so it recovers by itself."""

    dsn: str = field(repr=False)
    clock: Clock
    settings: DatabaseSettings = field(factory=DatabaseSettings)
    random: Callable[[], float] = random.random
    """In [0, 1), for jitter."""
    _pool: ConnectionPool = field(init=False)
    _reserved: ConnectionPool = field(init=False)
    _schema_known: bool = field(default=False, init=False)
    _migrating: asyncio.Lock = field(factory=asyncio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = ConnectionPool(self.dsn, self.settings.connections_max, self.settings)
        self._reserved = ConnectionPool(self.dsn, self.settings.reserved_connections_max, self.settings)

    async def start(self) -> None:
        """Migrate the schema if Postgres is there and free to; if not, the first use that reaches it does."""
        try:
            await self._ensure_schema()
        except (DatabaseUnavailable, DatabaseConflict):
            return  # every request says so, with the reason, until it is there

    async def stop(self) -> None:
        """Close the connections; a server that does not answer is not waited for."""
        await self._pool.close()
        await self._reserved.close()

    def crowded(self) -> str | None:
        """Why nothing new should be begun now, or None: what is under way needs all connections for itself."""
        return self._pool.crowded()

    async def run(
        self,
        call: Call,
        op: str,
        work: Callable[[PostgresTransaction], Awaitable[T]],
        *,
        reserved: bool = False,
        single: bool = False,
    ) -> T:
        """`work` in one transaction, done again up to twice when Postgres undid it: it must be repeatable.

        `single`: it is one statement, which Postgres commits by itself.
        Raises what `work` raises, after undoing it; DatabaseUnavailable, DatabaseConflict, Saturated, BudgetSpent.
        """
        begin = _SINGLE if single else _READ_COMMITTED
        for number in range(1, TRIES_MAX):
            try:
                async with self._transaction(call, op, begin, reserved=reserved) as tx:
                    return await work(tx)
            except Collision:
                await self.clock.sleep(self.random() * PAUSE_MAX_S * number)
        async with self._transaction(call, op, begin, reserved=reserved) as tx:
            return await work(tx)

    async def read(
        self, call: Call, op: str, work: Callable[[PostgresTransaction], Awaitable[T]], *, reserved: bool = False
    ) -> T:
        """`work`, which only reads; each of its statements may see a newer state than the one before."""
        async with self._transaction(call, op, _NONE, reserved=reserved) as tx:
            return await work(tx)

    async def snapshot(self, call: Call, op: str, work: Callable[[PostgresTransaction], Awaitable[T]]) -> T:
        """`work`, which only reads, all of it from one and the same state of the database."""
        async with self._transaction(call, op, _SNAPSHOT, reserved=False) as tx:
            return await work(tx)

    def lasting_snapshot(
        self, call: Call, op: str, limit_s: float
    ) -> AbstractAsyncContextManager[PostgresTransaction]:
        """One and the same state of the database to read from in the block, which may take so many seconds."""
        return self._transaction(call, op, _SNAPSHOT, reserved=False, limit_s=limit_s)

    def transaction(
        self, call: Call | None, op: str = "transaction", *, reserved: bool = False
    ) -> AbstractAsyncContextManager[PostgresTransaction]:
        """One transaction, committed when the block ends and undone when it raises. `run` also tries again."""
        return self._transaction(call, op, _READ_COMMITTED, reserved=reserved)

    @asynccontextmanager
    async def _transaction(
        self,
        call: Call | None,
        op: str,
        begin: str | None,
        *,
        reserved: bool,
        limit_s: float | None = None,
    ) -> AsyncIterator[PostgresTransaction]:
        refusal: DiegoError | None = None
        commit = _Commit()
        with _hop(call, op):
            async with self._border(call, op, commit, limit_s), self._connection(reserved) as connection:
                if begin:
                    await connection.execute(begin)
                commit.sent = begin is _SINGLE
                try:
                    yield PostgresTransaction(connection)
                except DiegoError as error:
                    refusal = error
                except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    refusal = refused_value(error)
                    if refusal is None:
                        raise
                if begin and refusal is not None:
                    await connection.execute("ROLLBACK")
                elif begin:
                    commit.sent = True
                    if await connection.execute("COMMIT") != "COMMIT":
                        raise InternalError(f"{op}: an error of Postgres was swallowed inside the transaction")
        if refusal is not None:
            raise refusal

    @asynccontextmanager
    async def _border(
        self, call: Call | None, op: str, commit: _Commit, limit_s: float | None
    ) -> AsyncIterator[None]:
        """Time limits, and the driver's errors as ours. What is lost once COMMIT was sent has an unknown outcome."""
        try:
            async with _limit(call, op, limit_s or self.settings.transaction_timeout_s):
                await self._ensure_schema()
                yield
        except BudgetSpent as spent:
            spent.outcome = Outcome.UNKNOWN if commit.sent else None
            raise
        except DRIVER_ERRORS as error:
            ours = translate(error, op)
            if ours is None:
                raise
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                self._pool.forget()
                self._reserved.forget()
            if commit.sent and is_lost(error):
                ours.outcome = Outcome.UNKNOWN
            raise ours from error

    def _connection(self, reserved: bool) -> AbstractAsyncContextManager[asyncpg.Connection]:
        return (self._reserved if reserved else self._pool).connection()

    async def _ensure_schema(self) -> None:
        if self._schema_known:
            return
        async with self._migrating:
            if not self._schema_known:
                await migrate(self.dsn)
                self._schema_known = True


@define
class _Commit:
    """Whether COMMIT is on its way: from then on only its answer says what became of the transaction."""

    sent: bool = False


def _hop(call: Call | None, op: str) -> AbstractContextManager[object]:
    return nullcontext() if call is None else call.hop("postgres", "postgres", op, DatabaseUnavailable)


def _limit(call: Call | None, op: str, seconds: float) -> AbstractAsyncContextManager[object]:
    """The lesser of what the call has left and this: one timer for both."""
    if call is None or call.remaining_ms() - ANSWER_MARGIN_MS > seconds * 1000:
        return asyncio.timeout(seconds)
    return call.within_budget(op)
