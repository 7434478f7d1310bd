"""The border: whose error it is, whose frame it gets, and what happens to a server that goes away."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from bbs.store import migrate
from bbs.store.connections import CROWD, DatabaseSettings
from bbs.store.database import Database
from bbs.store.postgres_transaction import PostgresTransaction
from diego_py import chain
from diego_py.call import Call
from diego_py.embedded.postgres import EmbeddedPostgres
from diego_py.errors import (
    BudgetSpent,
    DatabaseConflict,
    DatabaseUnavailable,
    DesiredLRPNotFound,
    DesireFailed,
    InternalError,
    Outcome,
    Saturated,
)
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import outcomes

pytestmark = pytest.mark.store
PATIENCE_S = 12.0
"""For some limits of less than a second, one after the other, on a busy machine. A frozen server is so for ever."""


def a_call(budget_ms: float = 10_000) -> Call:
    return Call.begin(SystemClock(), budget_ms)


async def one(tx: PostgresTransaction) -> int:
    value: int = await tx.connection.fetchval("SELECT 1")
    return value


async def domains(tx: PostgresTransaction) -> int:
    count: int = await tx.connection.fetchval("SELECT count(*) FROM domains")
    return count


async def test_work_is_committed(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> str:
        await tx.connection.execute("INSERT INTO domains VALUES ('d', NULL)")
        return "done"

    assert await database.run(a_call(), "work", work) == "done"
    assert await database.read(a_call(), "count", domains) == 1


async def test_what_work_refuses_is_undone_and_has_no_frame_of_postgres(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute("INSERT INTO domains VALUES ('d', NULL)")
        raise DesiredLRPNotFound("no desired LRP x")

    with pytest.raises(DesiredLRPNotFound) as refused, a_call().hop("bbs", "bbs-1", "op", DesireFailed) as call:
        await database.run(call, "work", work)
    assert [frame.hop for frame in chain.problem(refused.value, a_call()).chain] == ["bbs"]
    assert chain.problem(refused.value, a_call()).status == 404
    assert await database.read(a_call(), "count", domains) == 0


async def test_a_defect_is_internal_and_does_not_show_the_row(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute(
            "INSERT INTO leader (singleton, epoch, owner, expires_at) VALUES (false, 1, 'CANARY', now())"
        )

    with pytest.raises(InternalError) as defect:
        await database.run(a_call(), "work", work)
    assert defect.value.frame is not None
    assert defect.value.frame.hop == "postgres"
    assert "CANARY" not in str(defect.value.__cause__)


async def test_a_swallowed_error_does_not_pass_for_a_commit(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute("INSERT INTO domains VALUES ('d', NULL)")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await tx.connection.execute("SELECT 1 / 0")

    with pytest.raises(InternalError):
        await database.run(a_call(), "work", work)


@pytest.mark.parametrize("tries", [1, 2, 3])
async def test_collisions_are_tried_three_times(database: Database, tries: int) -> None:
    count = 0

    async def work(tx: PostgresTransaction) -> int:
        nonlocal count
        count += 1
        if count < tries:
            await tx.connection.execute("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")
        return count

    assert await database.run(a_call(), "work", work) == tries


async def test_after_three_collisions_it_is_a_conflict(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(DatabaseConflict) as conflict:
        await database.run(a_call(), "work", work)
    assert conflict.value.frame is not None
    assert (conflict.value.status, conflict.value.frame.hop) == (503, "postgres")


async def test_a_real_deadlock_resolves_itself(database: Database) -> None:
    rows = "INSERT INTO domains VALUES ('a', NULL), ('b', NULL)"
    await database.run(a_call(), "rows", lambda tx: tx.connection.execute(rows))
    both_hold_one = asyncio.Barrier(2)

    def work(first: str, second: str, barrier: list[asyncio.Barrier]) -> object:
        async def lock(tx: PostgresTransaction) -> None:
            await tx.connection.execute("SELECT 1 FROM domains WHERE domain = $1 FOR UPDATE", first)
            if barrier:
                await barrier.pop().wait()
            await tx.connection.execute("SELECT 1 FROM domains WHERE domain = $1 FOR UPDATE", second)

        return lock

    results = await outcomes(
        [
            database.run(a_call(), "ab", work("a", "b", [both_hold_one])),  # type: ignore[arg-type]
            database.run(a_call(), "ba", work("b", "a", [both_hold_one])),  # type: ignore[arg-type]
        ]
    )
    assert results == [None, None]


async def test_a_lock_held_too_long_is_a_conflict(database_dsn: str) -> None:
    database = Database(database_dsn, SystemClock(), DatabaseSettings(lock_timeout_s=0.1))
    async with database.transaction(a_call(), "holder") as holder:
        await holder.connection.execute("SELECT * FROM leader FOR UPDATE")
        with pytest.raises(DatabaseConflict, match="keeps a row locked"):
            await database.run(a_call(), "waiter", lambda tx: tx.connection.execute("SELECT * FROM leader FOR UPDATE"))
    await database.stop()


async def test_a_spent_budget_is_504_and_the_connection_is_not_reused(database: Database) -> None:
    with pytest.raises(BudgetSpent) as spent:
        await database.run(a_call(200), "sleep", lambda tx: tx.connection.execute("SELECT pg_sleep(5)"))
    assert spent.value.outcome is None
    assert await database.read(a_call(), "one", one) == 1


async def test_a_statement_limit_of_the_server_is_503(database_dsn: str) -> None:
    database = Database(database_dsn, SystemClock(), DatabaseSettings(statement_timeout_s=0.1))
    with pytest.raises(DatabaseUnavailable, match="took longer than its limit"):
        await database.read(a_call(), "sleep", lambda tx: tx.connection.execute("SELECT pg_sleep(5)"))
    await database.stop()


async def test_an_exhausted_pool_is_503_and_presence_goes_on(database_dsn: str) -> None:
    settings = DatabaseSettings(connections_max=1, acquire_timeout_s=0.05)
    database = Database(database_dsn, SystemClock(), settings)
    async with database.transaction(a_call(), "holder"):
        with pytest.raises(Saturated) as saturated:
            await database.read(a_call(), "one", one)
        assert await database.read(a_call(), "presence", one, reserved=True) == 1
    assert saturated.value.frame is not None
    assert (saturated.value.status, saturated.value.frame.hop) == (503, "postgres")
    assert await database.read(a_call(), "one", one) == 1
    await database.stop()


async def test_too_many_waiters_are_refused_at_once(database_dsn: str) -> None:
    settings = DatabaseSettings(connections_max=1, waiting_max=0)
    database = Database(database_dsn, SystemClock(), settings)
    async with database.transaction(a_call(), "holder"):
        with pytest.raises(Saturated, match="wait for a connection"):
            await database.read(a_call(), "one", one)
    assert await database.read(a_call(), "one", one) == 1
    await database.stop()


async def test_it_is_crowded_while_some_times_as_many_wait_as_there_are_connections(database_dsn: str) -> None:
    database = Database(database_dsn, SystemClock(), DatabaseSettings(connections_max=1))
    async with asyncio.TaskGroup() as group, database.transaction(a_call(), "holder"):
        waiting = [group.create_task(database.read(a_call(), "one", one)) for _ in range(CROWD)]
        assert database.crowded() is None
        while database.crowded() is None:  # noqa: ASYNC110 - a pool has no event for it
            await asyncio.sleep(0)
    assert [await each for each in waiting] == [1] * CROWD
    assert database.crowded() is None
    await database.stop()


async def test_a_snapshot_sees_one_state(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> tuple[int, int]:
        before = await domains(tx)
        await database.run(a_call(), "insert", lambda other: other.domains.upsert("d", None))
        return before, await domains(tx)

    assert await database.snapshot(a_call(), "snapshot", work) == (0, 0)


async def test_a_backend_killed_before_commit_undoes_its_work(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute("INSERT INTO domains VALUES ('d', NULL)")
        await tx.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseUnavailable) as lost:
        await database.run(a_call(), "work", work)
    assert lost.value.outcome is None
    assert await database.read(a_call(), "count", domains) == 0


async def test_a_connection_lost_during_commit_has_an_unknown_outcome(database: Database) -> None:
    async def work(tx: PostgresTransaction) -> None:
        await tx.connection.execute("""
            CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$
        """)
        await tx.connection.execute("""
            CREATE CONSTRAINT TRIGGER die AFTER INSERT ON domains DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION die()
        """)
        await tx.connection.execute("INSERT INTO domains VALUES ('d', NULL)")

    with pytest.raises(DatabaseUnavailable) as lost:
        await database.run(a_call(), "work", work)
    assert lost.value.outcome is Outcome.UNKNOWN


async def test_it_starts_without_postgres_says_so_and_recovers(open_directory: Path) -> None:
    """F37, F45: up before Postgres, 503 with a chain while it is away, right again when it is back."""
    server = EmbeddedPostgres(open_directory, durable=False)
    await server.start()
    dsn = server.dsn
    await server.stop()
    database = Database(dsn, SystemClock(), DatabaseSettings())
    await database.start()
    for _ in range(2):
        with pytest.raises(DesireFailed) as away, a_call().hop("bbs", "b", "op", DesireFailed) as call:
            await database.run(call, "work", one)
        problem = chain.problem(away.value, a_call())
        assert [frame.hop for frame in problem.chain] == ["bbs", "postgres"]
        assert (problem.status, problem.origin, problem.retryable) == (503, "postgres", True)
        assert problem.retry_after_s is not None
        await server.start()
        assert await database.run(a_call(), "work", one) == 1
        assert await database.read(a_call(), "count", domains) == 0
        await server.stop()
    await database.stop()


@pytest.mark.parametrize("how", ["migrates", "silent"])
async def test_it_starts_beside_one_that_does_not_end_its_migration(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It serves when the other one is done; until then every request says why not."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr(migrate, "READ_TIMEOUT_S", 0.2)
    dsn = await postgres.create_database(f"beside_{how}")
    other = await asyncpg.connect(dsn)
    if how == "migrates":
        await other.execute(migrate.TAKE_LOCK, migrate.LOCK)
    else:
        await other.execute(migrate.CREATE_SCHEMA_MIGRATIONS)
        await other.execute("BEGIN; LOCK TABLE schema_migrations")
    database = Database(dsn, SystemClock(), DatabaseSettings())
    await database.start()
    with pytest.raises((DatabaseUnavailable, DatabaseConflict)):
        await database.read(a_call(), "one", one)
    await other.close()
    assert await database.read(a_call(), "one", one) == 1
    await database.stop()
    await postgres.drop_database(f"beside_{how}")


async def test_a_frozen_postgres_costs_no_more_than_our_patience(open_directory: Path) -> None:
    """F37: every process of the server stopped by SIGSTOP."""
    async with EmbeddedPostgres(open_directory, durable=False) as server:
        settings = DatabaseSettings(connections_max=2, transaction_timeout_s=0.8, connect_timeout_s=0.8)
        database = Database(server.dsn, SystemClock(), settings)
        await database.start()
        assert await database.read(a_call(), "one", one) == 1
        frozen = [server.pid, *_children(server.pid)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        try:
            results = await outcomes([database.run(a_call(), "one", one) for _ in range(4)])
            with pytest.raises(BudgetSpent):
                await database.run(a_call(200), "one", one)
            await database.stop()
            assert asyncio.get_running_loop().time() - began < PATIENCE_S
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):  # One that was just ending when it was listed.
                    os.kill(pid, signal.SIGCONT)
        assert all(isinstance(result, DatabaseUnavailable) for result in results)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_text_that_cannot_be_stored_is_the_callers_fault(database: Database) -> None:
    for text in ("a\0b", "a\udcff"):
        with pytest.raises(Exception, match="cannot be stored") as refused:
            await database.read(a_call(), "get", lambda tx, text=text: tx.desired_lrps.get(text))
        assert getattr(refused.value, "status", None) == 400
    with pytest.raises(Exception, match="cannot be stored"):
        await database.read(a_call(), "get", lambda tx: tx.connection.fetchval("SELECT $1::integer", 2**40))


LAST_WORDS = b"SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


async def test_last_words_of_a_server_on_an_idle_connection_make_it_one_that_is_lost(
    postgres: EmbeddedPostgres, database_dsn: str
) -> None:
    """The words are there before the connection is closed, which takes its time over a network."""
    address, name = postgres.home / "socket" / ".s.PGSQL.5432", database_dsn.rpartition("/")[2].partition("?")[0]
    clients: list[asyncio.StreamWriter] = []

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while heard := await source.read(65536):
            target.write(heard)
        target.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        from_server, to_server = await asyncio.open_unix_connection(address)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on(reader, to_server))
            group.create_task(pass_on(from_server, writer))
        await asyncio.gather(to_server.wait_closed(), writer.wait_closed())

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dsn = f"postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"
    async with server:
        database = Database(dsn, SystemClock(), DatabaseSettings(connections_max=1))
        await database.start()
        assert await database.read(a_call(), "one", one) == 1
        clients[-1].write(b"E" + (len(LAST_WORDS) + 4).to_bytes(4, "big") + LAST_WORDS)
        await clients[-1].drain()
        for _ in range(20):  # rounds of the loop: what has been written to this machine's own socket is read
            await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await database.run(a_call(), "one", one)
        assert await database.run(a_call(), "one", one) == 1
        await database.stop()
        server.close()
