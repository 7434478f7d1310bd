"""Lists over HTTP: pages, whole lists, what the caller has already, and a reader who holds a snapshot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bbs.api import listed as listed_module
from bbs.api.listed import listed
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.listing import ACTUAL_LRPS
from bbs.store.lists import Lists
from diego_py.call import Call
from diego_py.errors import RequestFailed
from diego_py.http import line_stream
from diego_py.http.line_stream import NDJSON
from diego_py.http.server import Route
from diego_py.service.clock import SystemClock
from tests.store.test_lists import lrp_columns, put, snapshots, sql, unclaimed
from tests.unit.diego_py.http.serving import Answered, Served, serving

pytestmark = pytest.mark.store


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    database = Database(database_dsn, SystemClock(), DatabaseSettings(connections_max=4))
    yield database
    await database.stop()


@pytest.fixture
async def served(database: Database) -> AsyncIterator[Served]:
    lists = Lists(database)

    async def handle(request: web.Request, call: Call) -> web.StreamResponse:
        return await listed(request, call, lists, ACTUAL_LRPS, (str, int, str))

    async with serving([Route("GET", "/rows", "list", handle, RequestFailed)]) as served:
        yield served


async def fill(database: Database, rows: int) -> None:
    """So many rows of about 2 KB each."""
    for index in range(min(rows, 3)):
        await put(database, "actual_lrps", lrp_columns(unclaimed("a", index)))
    await sql(
        database,
        """INSERT INTO actual_lrps (process_guid, index, presence, domain, state, since, crash_count, attempts,
                                    crash_reason, routable, availability_zone, tag_epoch, tag_index)
           SELECT 'b', number, 'ORDINARY', 'd', 'UNCLAIMED', now(), 0, 0, repeat('x', 2000), false, '', 'e', 0
           FROM generate_series(3, $1::integer - 1) AS number""",
        rows,
    )


async def lines(served: Served, path: str, **headers: str) -> tuple[Answered, list[dict[str, object]]]:
    told = await served.send("GET", path, Accept=NDJSON, **headers)
    return told, [json.loads(line) for line in told.body.splitlines()]


async def test_without_a_limit_lines_are_the_whole_list_and_with_one_a_page(served: Served, database: Database) -> None:
    await fill(database, 1_000)
    whole, rows = await lines(served, "/rows")
    assert [row["index"] for row in rows] == list(range(1_000))
    assert "Link" not in whole.headers
    page, rows = await lines(served, "/rows?limit=3")
    assert [row["index"] for row in rows] == [0, 1, 2]
    following = page.headers["Link"].partition("<")[2].partition(">")[0]
    assert [row["index"] for row in (await lines(served, following))[1]] == [3, 4, 5]
    rest, rows = await lines(served, following.replace("limit=3&", ""))
    assert [row["index"] for row in rows] == list(range(3, 1_000))
    assert len({told.headers["ETag"] for told in (whole, page, rest)}) == 3
    plain = json.loads((await served.send("GET", "/rows")).body)
    assert (len(plain["items"]), plain["next_cursor"] is not None) == (500, True)
    assert plain["items"] == rows[:0] + (await lines(served, "/rows?limit=500"))[1]


@pytest.mark.parametrize(("path", "accept"), [("/rows", NDJSON), ("/rows?limit=2", NDJSON), ("/rows?limit=2", "*/*")])
async def test_what_the_caller_has_is_not_sent_again(
    served: Served, database: Database, path: str, accept: str
) -> None:
    await fill(database, 3)
    first = await served.send("GET", path, Accept=accept)
    tag = first.headers["ETag"]
    again = await served.send("GET", path, Accept=accept, If_None_Match=f'"x", W/{tag}')
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    await sql(database, "UPDATE actual_lrps SET routable = routable, crash_count = 1 WHERE index = 1")
    changed = await served.send("GET", path, Accept=accept, If_None_Match=tag)
    assert (changed.status, changed.headers["ETag"] != tag) == (200, True)
    other = await served.send("GET", path, Accept="*/*" if accept == NDJSON else NDJSON, If_None_Match=tag)
    assert other.status == 200, "the other form is another answer"


async def test_who_does_not_read_holds_no_snapshot(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_stream, "STALL_S", 0.2)
    await fill(database, 20_000)
    async with served.session.get(served.url + "/rows", headers={"Accept": NDJSON}) as response:
        response.content._protocol.pause_reading()
        first = await snapshots(database)
        while await snapshots(database):
            pass  # each look is a statement
        response.content._protocol.resume_reading()
        body = await response.read()
    *_, before, last = body.splitlines()
    document = json.loads(last)
    assert (len(first), document["code"]) == (1, "slow_reader")
    assert document["evidence"]["rows"] == len(body.splitlines()) - 1
    _, rest = await lines(served, f"/rows?cursor={document['evidence']['cursor']}")
    assert (json.loads(before)["index"], rest[0]["index"], rest[-1]["index"]) == (
        document["evidence"]["rows"] - 1,
        document["evidence"]["rows"],
        19_999,
    )


async def test_who_reads_for_too_long_is_told_where_to_go_on(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_module, "WHOLE_LIST_S", 0.0)
    await fill(database, 20_000)
    _, rows = await lines(served, "/rows", X_Budget_Ms="9000")
    assert rows[-1]["code"] == "slow_reader"
    assert await snapshots(database) == []


async def test_a_budget_that_is_spent_is_the_last_line(served: Served, database: Database) -> None:
    await fill(database, 20_000)
    _, rows = await lines(served, "/rows", X_Budget_Ms="80")
    assert rows[-1]["code"] == "budget_spent"
