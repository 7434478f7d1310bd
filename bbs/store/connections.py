"""A bounded pool of connections to Postgres, made when needed. Knows nothing of transactions or tables.

Not asyncpg's own pool: that one resets a connection by a statement at each return, and waits for a server that does
not answer when a connection is given back. Here a connection whose state is in doubt is dropped.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from attrs import define, field, frozen

from diego_py.errors import Outcome, Saturated

CLOSE_TIMEOUT_S = 1.0
CROWD = 4
"""So many times as many as there are connections may wait for one before nothing new is begun."""


@frozen(kw_only=True)
class DatabaseSettings:
    """Limits of what this process asks of Postgres."""

    connections_max: int = 20
    """For requests and convergence."""
    reserved_connections_max: int = 2
    """For presence and leadership, which must survive when requests hold all the others."""
    waiting_max: int = 512
    """Transactions that may wait for a connection; more are refused at once."""
    acquire_timeout_s: float = 3.0
    """How long one may wait for a connection to become free. What new requests are refused by comes long before."""
    connect_timeout_s: float = 2.0
    transaction_timeout_s: float = 6.0
    """How long a transaction may take as we see it, for a server that does not answer at all."""
    statement_timeout_s: float = 5.0
    lock_timeout_s: float = 2.0
    idle_in_transaction_timeout_s: float = 5.0
    """Less than the leader's TTL: a frozen leader inside a transaction would keep the next one from taking over."""
    silence_timeout_s: float = 3.0
    """How long sent bytes may stay unacknowledged by the other host, in both directions."""

    def server_settings(self) -> dict[str, str]:
        """What Postgres enforces on our sessions."""
        return {
            "application_name": "diego-bbs",
            "statement_timeout": _milliseconds(self.statement_timeout_s),
            "lock_timeout": _milliseconds(self.lock_timeout_s),
            "idle_in_transaction_session_timeout": _milliseconds(self.idle_in_transaction_timeout_s),
            "tcp_user_timeout": _milliseconds(self.silence_timeout_s),
            "client_connection_check_interval": _milliseconds(1.0),
            "timezone": "UTC",
            "jit": "off",
            # Plans are kept until the table is analyzed, also one that was made while it had a handful of rows.
            "enable_seqscan": "off",
        }


@define
class ConnectionPool:
    """At most `size` connections; the one used last is taken first, so that spare ones stay idle."""

    dsn: str = field(repr=False)
    size: int
    settings: DatabaseSettings
    _idle: list[asyncpg.Connection] = field(factory=list, init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _waiting: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.size)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for the time of the block, kept for the next one if the block ends without an error.

        After an error it is kept only if it is outside of any transaction, nothing was interrupted, and the driver
        still knows where in the protocol it is. Raises Saturated when none becomes free in time, and what connecting
        raises.
        """
        await self._take_slot()
        try:
            connection = self._take_idle() or await self._connect()
            keep = False
            try:
                yield connection
                keep = True
            except asyncpg.InternalClientError:
                raise
            except Exception:
                keep = True
                raise
            finally:
                self._put_back(connection, keep)
        finally:
            self._slots.release()

    def crowded(self) -> str | None:
        """In words, always the same ones, that too many wait for a connection; None while fewer do."""
        if self._waiting < self.size * CROWD:
            return None
        return f"{CROWD} times as many transactions wait for a connection to Postgres as there are: {self.size}"

    def forget(self) -> None:
        """Drop all idle connections: the server behind them is no longer the right one."""
        while self._idle:
            self._idle.pop().terminate()

    async def close(self) -> None:
        """Close what is idle, politely for a second; what is in use is dropped when it comes back."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._idle:
                    await self._idle[-1].close()
                    self._idle.pop()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.forget()

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()  # at once
            return
        if self._waiting >= self.settings.waiting_max:
            told = f"{self._waiting} transactions wait for a connection to Postgres already"
            raise Saturated(told, outcome=Outcome.NOT_STARTED, retry_after_s=1.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.settings.acquire_timeout_s) as scope:
                await self._slots.acquire()
        except TimeoutError as timeout:
            if not scope.expired():
                raise
            told = f"all {self.size} connections to Postgres are in use for {self.settings.acquire_timeout_s:g} s"
            raise Saturated(told, outcome=Outcome.NOT_STARTED, retry_after_s=1.0) from timeout
        finally:
            self._waiting -= 1

    def _take_idle(self) -> asyncpg.Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _put_back(self, connection: asyncpg.Connection, keep: bool) -> None:
        if connection.is_closed():
            return
        if keep and not self._closed and not connection.is_in_transaction():
            self._idle.append(connection)
        else:
            connection.terminate()

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self.dsn, timeout=self.settings.connect_timeout_s, server_settings=self.settings.server_settings()
        )
        _bound_silence(connection, self.settings.silence_timeout_s)
        return connection


def _bound_silence(connection: asyncpg.Connection, seconds: float) -> None:
    """Have our kernel give up on a server that is cut off, as `tcp_user_timeout` has the server's give up on us."""
    endpoint = connection._transport.get_extra_info("socket")
    if endpoint is not None and endpoint.family in (socket.AF_INET, socket.AF_INET6):
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
