"""What a statement reads grows with what it is about, also by a plan that was made while the tables were empty.

Each connection keeps its plans. After whatever had Postgres look at the tables while they were empty they are made for
no rows, and stay when there are many: one that looks for each row among all the others takes minutes then.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from attrs import evolve

from bbs.store.abandoned import PostgresAbandoned
from bbs.store.actual_lrps import PostgresActualLRPs
from bbs.store.cells import PostgresCells
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.deviations import PostgresDeviations
from bbs.store.labels import PostgresLabels
from bbs.store.tasks import PostgresTasks
from bbs.store.unchanged import Change, PostgresUnchanged
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.workload import ModificationTag
from diego_py.service.clock import SystemClock

pytestmark = pytest.mark.store

ROWS = 400
GUIDS, INDICES = ["app"] * ROWS, list(range(ROWS))
NAMES, CELLS = [f"guid-{number}" for number in INDICES], [f"cell-{number}" for number in range(8)]

FILL = """
    INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, since,
                             crash_count, attempts, routable, availability_zone, tag_epoch, tag_index, revision)
    SELECT 'app', number, 'ORDINARY', 'tests', 'RUNNING', 'guid-' || number, 'cell-' || number % 8,
           '{"address": "10.0.0.1", "ports": []}', now(),
           0, 0, true, 'z1', 'epoch', 0, 0
    FROM generate_series(0, 399) AS number
"""
FILL_ABANDONED = """
    INSERT INTO abandoned_attempts (instance_guid, process_guid, index, domain, cell_id, revision, since)
    SELECT 'old-' || number, 'app', number, 'tests', 'cell-' || number % 8, 0, now() - interval '1 hour'
    FROM generate_series(0, 399) AS number
"""
FILL_CELLS = """
    INSERT INTO cells (cell_id, boot_id, url, zone, address, presence, available_memory_mb, available_disk_mb,
                       available_containers, sequence, told, seen_at, expires_at, home_id, draining, digest)
    SELECT 'cell-' || number, 'boot', 'http://127.0.0.1:1800', 'z1', '127.0.0.1', '{}', 1, 1, 1, 0, 0, now(),
           now() + interval '1 hour', 'home', false, 'digest'
    FROM generate_series(0, 7) AS number
"""
FILL_TASKS = """
    INSERT INTO tasks (task_guid, domain, state, definition, has_callback, instance_guid, result, failed,
                       rejection_count, attempts, created_at, updated_at, cell_id, boot_id, claim_id, claim_sequence)
    SELECT 'task-' || number, 'tests', 'RUNNING', '{}', false, 'of-task-' || number, '', false, 0, 0, now(), now(),
           'cell-' || number % 8, 'boot', 'claim-' || number, 1
    FROM generate_series(0, 399) AS number
"""
ROW = ActualLRP(
    process_guid=ProcessGuid("nobody"),
    index=0,
    domain=Domain("tests"),
    state=ActualLRPState.UNCLAIMED,
    since=datetime.now(UTC),
    modification_tag=ModificationTag(epoch="epoch", index=1),
)
READ = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"


@pytest.fixture
async def connection(database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """As a BBS has it whose database was looked at while it was empty, and that has been at work since then."""
    database = Database(database_dsn, SystemClock(), DatabaseSettings(connections_max=4))
    await database.start()
    await database.stop()
    connection = await asyncpg.connect(
        database_dsn, server_settings={"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}
    )
    await connection.execute("ANALYZE")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("sql", "arguments"),
    [
        pytest.param(PostgresAbandoned.SETTLE, (CELLS, NAMES, timedelta(seconds=5)), id="settle"),
        pytest.param(PostgresActualLRPs.ASK_STOP, ("app", 0), id="ask_stop"),
        pytest.param(
            PostgresActualLRPs.DELETE_MANY, (GUIDS, INDICES, ["ORDINARY"] * ROWS, NAMES), id="delete_many"
        ),
        pytest.param(PostgresActualLRPs.LOCK_MANY, (GUIDS, INDICES), id="lock_many"),
        pytest.param(PostgresActualLRPs.LIST_OF_KEYS, (GUIDS, INDICES), id="list_of_keys"),
        pytest.param(PostgresActualLRPs.LIST_CONCERNING, (CELLS, NAMES), id="list_concerning"),
        pytest.param(PostgresDeviations.KEYS, (["app"], datetime.now(UTC)), id="keys"),
        pytest.param(PostgresLabels.CHANGED, ("app",), id="changed"),
        pytest.param("SELECT * FROM undesire_lrp($1)", ("app",), id="undesire"),
        pytest.param(PostgresDeviations.UNEVEN, (), id="uneven"),
        pytest.param(PostgresDeviations.EMPTIED, (), id="emptied"),
        pytest.param(PostgresDeviations.OFFERED_SINCE, (datetime.now(UTC),), id="offered_since"),
        pytest.param(
            PostgresCells.RENEW, (CELLS, ["boot"] * 8, [1] * 8, ["digest"] * 8, timedelta(seconds=5)), id="renew"
        ),
        pytest.param(PostgresCells.SETTLE, (CELLS, [0] * 8), id="settle_cells"),
        pytest.param(PostgresCells.LIVE_OF, (CELLS, ["boot"] * 8), id="live_of"),
        pytest.param(PostgresTasks.LIST_STATUSES, (), id="list_statuses"),
        pytest.param(PostgresTasks.CELLS_WITH_ANY, (CELLS,), id="cells_with_any"),
    ],
)
async def test_no_row_is_looked_for_among_all_others(
    connection: asyncpg.Connection, sql: str, arguments: Sequence[Any]
) -> None:
    prepared = await connection.prepare(sql)
    await prepared.fetch(*arguments)
    for fill in (FILL, FILL_ABANDONED, FILL_CELLS, FILL_TASKS):
        await connection.execute(fill)
    async with connection.transaction():
        before = await connection.fetchval(READ)
        await prepared.fetch(*arguments)
        assert await connection.fetchval(READ) - before <= 8 * ROWS


@pytest.mark.parametrize("how", ["save_unchanged", "save_many"])
async def test_nor_to_be_written(connection: asyncpg.Connection, how: str) -> None:
    """By the names of columns that are told in arrays."""
    rows, unchanged = PostgresActualLRPs(connection), PostgresUnchanged(connection)

    async def save() -> None:
        now = [evolve(row, modification_tag=row.modification_tag.next()) for row in await rows.list_of("app")]
        if how == "save_many":
            await rows.save_many([(row, None) for row in now] or [(ROW, None)])
        else:
            assert len(await unchanged.save([Change(row) for row in now] or [Change(ROW)])) == len(now)

    await save()
    await connection.execute(FILL)
    async with connection.transaction():
        await save()
        assert await connection.fetchval(READ) <= 8 * ROWS
    assert {row.modification_tag.index for row in await rows.list_of("app")} == {1}
