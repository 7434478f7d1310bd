"""What is waited for until it is on the disk, and what need not be."""

import pytest

from bbs.store.database import Database
from bbs.store.postgres_transaction import PostgresTransaction
from diego_py.call import Call
from diego_py.service.clock import SystemClock
from tests.store.test_constraints import two_rows

pytestmark = pytest.mark.store


@pytest.mark.parametrize(("asked", "waits"), [(False, "on"), (True, "off")])
async def test_only_the_removal_of_a_row_whose_end_was_asked_for_is_not_waited_for(
    database: Database, asked: bool, waits: str
) -> None:
    """Its mark is on the disk, and has it removed again after a crash of Postgres; without one it would run again."""
    await two_rows(database)
    call = Call.begin(SystemClock(), 10_000)
    if asked:
        await database.run(call, "ask_stop", lambda tx: tx.actual_lrps.ask_stop("app", 0))

    async def work(tx: PostgresTransaction) -> tuple[bool, str]:
        await tx.connection.execute("SET LOCAL synchronous_commit = on")
        removed = await tx.actual_lrps.remove("app", 1, "guid-1")
        return removed.deleted, await tx.connection.fetchval("SHOW synchronous_commit")

    assert await database.run(call, "remove", work) == (True, waits)
    assert not (await database.run(call, "remove", lambda tx: tx.actual_lrps.remove("app", 1, "guid-1"))).deleted
