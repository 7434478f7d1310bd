"""Lists out of Postgres: the same bytes as from models, one moment, and a tag that never lies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbs.labels import labels_of
from bbs.store import labels
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.failures import Filter as FailureFilter
from bbs.store.listing import ACTUAL_LRPS, DESIRED_LRPS, FAILURES, TASKS, Listing, page_statement
from bbs.store.lists import WHOLE_LISTS_MAX, Lists, Selection
from bbs.store.tasks import Filter as TaskFilter
from diego_py import wire
from diego_py.call import Call
from diego_py.errors import DatabaseUnavailable, Saturated
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.task import Task, TaskState
from diego_py.models.workload import ModificationTag
from diego_py.service.clock import SystemClock
from tests import strategies
from tests.contract.store.conftest import all_desired

pytestmark = pytest.mark.store

ALL: Final = (ACTUAL_LRPS, DESIRED_LRPS, TASKS, FAILURES)
SOME: Final = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


def a_call() -> Call:
    return Call.begin(SystemClock(), 10_000)


def on(dsn: str, work: Callable[[Database], Awaitable[None]]) -> None:
    """Do it with a database; for tests whose examples each begin anew."""

    async def begun() -> None:
        database = Database(dsn, SystemClock(), DatabaseSettings(connections_max=2))
        try:
            await work(database)
        finally:
            await database.stop()

    asyncio.run(begun())


async def sql(database: Database, statement: str, *arguments: object) -> list[Any]:
    return await database.run(a_call(), "sql", lambda tx: tx.connection.fetch(statement, *arguments))


async def whole(lists: Lists, selection: Selection) -> tuple[str, list[bytes]]:
    """The tag and the items of a whole list."""
    async with lists.whole(a_call(), selection) as reading:
        return reading.tag, b"".join([chunk async for chunk in reading.chunks()]).splitlines()


async def put(database: Database, table: str, columns: dict[str, Any]) -> None:
    names, places = ", ".join(columns), ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    await sql(database, f"INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING", *columns.values())


# The same bytes


def lrp_columns(row: ActualLRP) -> dict[str, Any]:
    same = ("process_guid", "index", "domain", "instance_guid", "cell_id", "since", "crash_count", "crash_reason")
    more = ("placement_error", "attempts", "next_attempt_at", "stop_asked_at", "availability_zone", "revision")
    running = row.state is ActualLRPState.RUNNING
    return {name: getattr(row, name) for name in same + more} | {
        "state": row.state.value,
        "presence": (row.presence if running else Presence.ORDINARY).value,
        "routable": row.routable and running,
        "net_info": None if row.net_info is None else wire.encode(row.net_info),
        "tag_epoch": row.modification_tag.epoch,
        "tag_index": row.modification_tag.index,
    }


def desired_columns(lrp: DesiredLRP) -> dict[str, Any]:
    whole = lrp.definition
    same = ("process_guid", "domain", "instances", "memory_mb", "disk_mb", "rootfs", "placement_tags")
    return {name: getattr(whole, name) for name in same} | {
        "definition": wire.encode_revealed(whole),
        "labels": labels.encoded(labels_of(whole)),
        "tag_epoch": lrp.modification_tag.epoch,
        "tag_index": lrp.modification_tag.index,
        "created_at": lrp.created_at,
        "updated_at": lrp.updated_at,
    }


def task_columns(task: Task) -> dict[str, Any]:
    over = task.state in (TaskState.COMPLETED, TaskState.RESOLVING)
    runs = task.state is TaskState.RUNNING
    same = ("task_guid", "domain", "failure_reason", "rejection_count", "rejection_reason", "created_at", "updated_at")
    claim = {"boot_id": "boot", "claim_id": "claim", "claim_sequence": 1, "instance_guid": f"instance-{task.task_guid}"}
    return {name: getattr(task, name) for name in same} | {
        "state": task.state.value,
        "definition": wire.encode_revealed(task.definition),
        "has_callback": False,
        "cell_id": "cell-1" if runs else None,
        "result": (task.result + "\0").encode(),
        "failed": task.failed and over,
        "attempts": 0,
        "first_completed_at": task.updated_at if over else None,
        **(claim if runs else {}),
    }


def failure_columns(failure: tuple[Any, ...]) -> dict[str, Any]:
    number, at, document, code = failure
    subject = {"process_guid": "app", "index": number, "domain": "d"} if number % 2 else {"task_guid": "t"}
    said = {"code": code, "fault": "app", "status": 500, "request_id": "r", "phase": "place", "created_at": at}
    return {"id": f"failure-{number}", "document": wire.encode(document), **said, **subject}


FAILED = st.tuples(st.integers(0, 99), strategies.moments, strategies.json_objects, strategies.texts)
MODELS: Final[dict[str, tuple[Listing, Any, Any, Callable[[Any], Awaitable[list[Any]]]]]] = {
    "actual_lrps": (
        ACTUAL_LRPS,
        strategies.actual_lrps(),
        lrp_columns,
        lambda tx: tx.actual_lrps.list_all(),
    ),
    "desired_lrps": (
        DESIRED_LRPS,
        strategies.desired_lrps,
        desired_columns,
        all_desired,
    ),
    "tasks": (TASKS, strategies.tasks, task_columns, lambda tx: tx.tasks.list_page(TaskFilter())),
    "failures": (FAILURES, FAILED, failure_columns, lambda tx: tx.failures.list_page(FailureFilter())),
}


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_told_as_their_models_are(database_dsn: str, name: str) -> None:
    """Whole, as a page of lines and as one of JSON; and pages have the tag that is told before they are read."""
    listing, nouns, columns, read = MODELS[name]

    async def check(database: Database, rows: Sequence[Any]) -> None:
        await sql(database, f"TRUNCATE {listing.table}")
        for row in rows:
            await put(database, listing.table, columns(row))
        told = [wire.encode(item) for item in await database.read(a_call(), "read", read)]
        assert bool(told) == bool(rows)
        lists, page = Lists(database), Selection(listing, {}, limit=100)
        assert (await whole(lists, Selection(listing, {})))[1] == told
        as_lines, as_json = [await lists.page(a_call(), page, lines=lines) for lines in (True, False)]
        assert as_lines.lines == b"".join(item + b"\n" for item in told)
        assert b",".join(as_json.items) == b",".join(told)
        assert as_json.tag == as_lines.tag == await lists.tag(a_call(), page)

    @given(st.lists(nouns, max_size=4))
    @settings(max_examples=12, **SOME)
    def examples(rows: Sequence[Any]) -> None:
        on(database_dsn, lambda database: check(database, rows))

    examples()


# Tags

GUIDS = ("a", "b")
Changed = tuple[str, str, int, int]
"""What is done, to which row, and a value for it."""
CHANGES: Final[st.SearchStrategy[list[Changed]]] = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "state", "reason", "tag", "since", "move", "restore"]),
        st.sampled_from(GUIDS),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)
SQL: Final = {
    "delete": "DELETE FROM actual_lrps WHERE process_guid = $1 AND index = $2 AND $3 >= 0",
    "state": """
        UPDATE actual_lrps SET state = CASE $3::integer % 2 WHEN 0 THEN 'CRASHED' ELSE 'UNCLAIMED' END
        WHERE process_guid = $1 AND index = $2
    """,
    "reason": "UPDATE actual_lrps SET crash_reason = $3::integer::text WHERE process_guid = $1 AND index = $2",
    "tag": "UPDATE actual_lrps SET tag_index = $3::integer WHERE process_guid = $1 AND index = $2",
    "since": """
        UPDATE actual_lrps SET since = since + $3::integer * interval '1 microsecond'
        WHERE process_guid = $1 AND index = $2
    """,
    "move": """
        UPDATE actual_lrps SET index = $3::integer WHERE process_guid = $1 AND index = $2
        AND NOT EXISTS (SELECT FROM actual_lrps WHERE process_guid = $1 AND index = $3::integer)
    """,
}
SELECTIONS: Final = (
    Selection(ACTUAL_LRPS, {}),
    Selection(ACTUAL_LRPS, {"process_guid": "a"}),
    Selection(ACTUAL_LRPS, {}, limit=2),
    Selection(ACTUAL_LRPS, {"state": "CRASHED"}, limit=2),
    Selection(ACTUAL_LRPS, {}, after=("a", 1, "ORDINARY"), limit=2),
)


@given(changes=CHANGES)
@settings(max_examples=20, **SOME)
def test_whatever_changes_the_answer_changes_the_tag(database_dsn: str, changes: list[Changed]) -> None:
    """Also when rows go and come back, and when an older state is restored and goes on in another way."""

    async def work(database: Database) -> None:
        lists = Lists(database)
        await sql(database, "TRUNCATE actual_lrps")
        backup = await sql(database, "SELECT * FROM actual_lrps")
        answers: dict[tuple[int, str], bytes] = {}
        for change, guid, index, value in changes:
            if change == "insert":
                await put(database, "actual_lrps", lrp_columns(unclaimed(guid, index)))
            elif change == "restore":
                now = await sql(database, "SELECT * FROM actual_lrps")
                await sql(database, "TRUNCATE actual_lrps")
                for row in backup:
                    await put(database, "actual_lrps", dict(row))
                backup = now
            else:
                await sql(database, SQL[change], guid, index, value)
            for number, selection in enumerate(SELECTIONS):
                tag, told = await answered(lists, selection)
                assert answers.setdefault((number, tag), told) == told
        for number, _ in enumerate(SELECTIONS):
            of_one = [told for (selected, _), told in answers.items() if selected == number]
            assert len(set(of_one)) == len(of_one), "what has not changed keeps its tag"

    on(database_dsn, work)


async def answered(lists: Lists, selection: Selection) -> tuple[str, bytes]:
    if selection.limit is None:
        tag, told = await whole(lists, selection)
        return tag, b"".join(told)
    page = await lists.page(a_call(), selection, lines=True)
    assert page.tag == await lists.tag(a_call(), selection)
    return page.tag, page.lines


def unclaimed(guid: str, index: int) -> ActualLRP:
    return ActualLRP(
        process_guid=ProcessGuid(guid),
        index=index,
        domain=Domain("d"),
        state=ActualLRPState.UNCLAIMED,
        since=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        modification_tag=ModificationTag(epoch="e", index=0),
    )


async def test_a_change_of_a_hidden_value_alone_cannot_be_guessed_from_the_tag(database: Database) -> None:
    """Two databases give the same rows different tags: each has a key of its own for them."""
    lists, selection = Lists(database), Selection(ACTUAL_LRPS, {})
    await put(database, "actual_lrps", lrp_columns(unclaimed("a", 0)))
    tag, _ = await whole(lists, selection)
    await sql(database, "UPDATE list_tags SET seed = seed + 1")
    assert (await whole(lists, selection))[0] != tag


# Statements


@pytest.mark.parametrize("listing", ALL, ids=lambda listing: listing.table)
async def test_every_set_of_filters_is_a_statement(database: Database, listing: Listing) -> None:
    lists, after = Lists(database), (datetime(2026, 1, 1, tzinfo=UTC), "x") if listing is FAILURES else None
    after = after or (("a", 0, "ORDINARY") if listing is ACTUAL_LRPS else ("a",))
    sets = itertools.chain.from_iterable(itertools.combinations(listing.filters, n) for n in range(5))
    for given_filters, behind in itertools.product(sets, (None, after)):
        selection = Selection(listing, {name: "x" for name in given_filters}, behind)
        _, told = await whole(lists, selection)
        page = await lists.page(a_call(), evolve(selection, limit=3), lines=True)
        assert (told, page.count) == ([], 0)
        assert page.tag == await lists.tag(a_call(), evolve(selection, limit=3))


async def test_one_lrp_is_found_by_its_key(database: Database) -> None:
    """Whatever plan Postgres has settled on for the statement: among many rows it looks at those of the LRP."""
    await sql(
        database,
        """INSERT INTO actual_lrps (process_guid, index, presence, domain, state, since, crash_count, attempts,
                                    routable, availability_zone, tag_epoch, tag_index)
           SELECT 'lrp-' || number / 10, number % 10, 'ORDINARY', 'd', 'UNCLAIMED', now(), 0, 0, false, '', 'e', 0
           FROM generate_series(0, 19999) AS number""",
    )
    await sql(database, "ANALYZE actual_lrps")
    lists = Lists(database)
    for number in range(12):
        selection = Selection(ACTUAL_LRPS, {"process_guid": f"lrp-{number}"}, limit=100)
        assert (await lists.page(a_call(), selection, lines=True)).count == 10
    statement = page_statement(ACTUAL_LRPS, ("process_guid",), False)
    async with database.transaction(a_call()) as tx:
        await tx.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        plan = await tx.connection.fetch(f"EXPLAIN {statement}", "lrp-7", 100)
    assert "Index Cond: (process_guid = " in "\n".join(row[0] for row in plan)


# One moment, and its end


async def many(database: Database, rows: int = 600) -> None:
    for index in range(rows):
        await put(database, "actual_lrps", lrp_columns(unclaimed("a", index)))


async def test_a_whole_list_is_of_one_moment(database: Database) -> None:
    await many(database)
    lists, selection = Lists(database), Selection(ACTUAL_LRPS, {})
    before = await whole(lists, selection)
    async with lists.whole(a_call(), selection) as reading:
        chunks = reading.chunks()
        told = await anext(chunks)
        assert 0 < reading.rows < 600
        await sql(database, "DELETE FROM actual_lrps WHERE index > 400")
        await put(database, "actual_lrps", lrp_columns(unclaimed("b", 0)))
        told += b"".join([chunk async for chunk in chunks])
        assert (reading.tag, told.splitlines()) == before
        assert (reading.rows, reading.last) == (600, ("a", 599, "ORDINARY"))
    assert await whole(lists, selection) != before


async def test_nothing_holds_a_snapshot_afterwards(database: Database) -> None:
    await many(database, 300)
    async with Lists(database).whole(a_call(), Selection(ACTUAL_LRPS, {})) as reading:
        await anext(reading.chunks())
        assert len(await snapshots(database)) == 1
    assert await snapshots(database) == []


async def snapshots(database: Database) -> list[int]:
    """The backends that keep Postgres from vacuuming, but for the one that asks."""
    held = """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
          AND backend_type = 'client backend'
    """
    return [row["pid"] for row in await sql(database, held)]


async def test_a_backend_that_dies_on_the_way_is_the_databases_failure(database: Database) -> None:
    await many(database)

    async def read() -> None:
        async with Lists(database).whole(a_call(), Selection(ACTUAL_LRPS, {})) as reading:
            async for _ in reading.chunks():
                for pid in await snapshots(database):
                    await sql(database, "SELECT pg_terminate_backend($1)", pid)

    with pytest.raises(DatabaseUnavailable):
        await read()
    assert len((await whole(Lists(database), Selection(ACTUAL_LRPS, {})))[1]) == 600


async def test_whole_lists_leave_connections_for_others(database: Database) -> None:
    lists, selection = Lists(database), Selection(ACTUAL_LRPS, {})
    async with AsyncExitStack() as reading:
        for _ in range(WHOLE_LISTS_MAX):
            await reading.enter_async_context(lists.whole(a_call(), selection))
        with pytest.raises(Saturated):
            await reading.enter_async_context(lists.whole(a_call(), selection))
    assert (await whole(lists, selection))[1] == []
