"""Postgres itself refuses what no state allows, whoever writes it."""

import pytest

from bbs.store.database import Database
from diego_py.call import Call
from diego_py.service.clock import SystemClock

pytestmark = pytest.mark.store


async def sql(database: Database, statement: str) -> None:
    await database.run(Call.begin(SystemClock(), 10_000), "sql", lambda tx: tx.connection.execute(statement))


async def two_rows(database: Database) -> None:
    call = Call.begin(SystemClock(), 10_000)
    values = ("app", "tests", [0, 1], ["guid-0", "guid-1"], ["epoch", "epoch"], 0)
    await database.run(call, "insert", lambda tx: tx.actual_lrps.insert_unclaimed(*values))


@pytest.mark.parametrize(
    "change",
    [
        "state = 'OTHER'",
        "state = 'CLAIMED'",
        "state = 'RUNNING', cell_id = 'c'",
        "state = 'CRASHED', instance_guid = 'g'",
        "routable = true",
        "net_info = ''",
        "cell_id = 'c'",
        "presence = 'EVACUATING'",
        "index = -1",
    ],
)
async def test_postgres_itself_refuses_rows_that_no_state_allows(database: Database, change: str) -> None:
    await two_rows(database)
    with pytest.raises(Exception, match="CheckViolation"):
        await sql(database, f"UPDATE actual_lrps SET {change}")


async def test_an_instance_guid_is_of_one_row_only(database: Database) -> None:
    await two_rows(database)
    with pytest.raises(Exception, match="UniqueViolation"):
        await sql(database, "UPDATE actual_lrps SET instance_guid = 'same'")
