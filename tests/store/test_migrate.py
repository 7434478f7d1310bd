"""Migrations: forward only, each once, whole or not at all, and safe from several processes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import pytest

from bbs.labels import Labels, labels_of
from bbs.store import labels
from bbs.store.migrate import MIGRATIONS, SchemaUnusable, migrate, read_migrations
from diego_py import wire
from diego_py.embedded.postgres import EmbeddedPostgres
from diego_py.errors import DatabaseUnavailable
from diego_py.models.actions import Action, RunAction
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.workload import MetricTagValue

pytestmark = pytest.mark.store

SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid <> pg_backend_pid()"


@pytest.fixture
async def empty_dsn(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    name = "migrate_" + str(abs(hash(request.node.name)))
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


async def ask(dsn: str, statement: str, *values: object) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


async def tables(dsn: str) -> set[str]:
    listed = await ask(dsn, "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'public'")
    assert listed is None or isinstance(listed, list)
    return set(listed or ())


async def test_an_empty_database_gets_every_table(empty_dsn: str) -> None:
    await migrate(empty_dsn)
    nouns = {"domains", "desired_lrps", "actual_lrps", "cells", "idempotency_keys", "failures", "leader"}
    assert await tables(empty_dsn) >= nouns
    assert await ask(empty_dsn, "SELECT count(*) FROM schema_migrations") == len(read_migrations(MIGRATIONS))


async def test_the_second_time_nothing_happens(empty_dsn: str) -> None:
    await migrate(empty_dsn)
    before = await ask(empty_dsn, "SELECT max(applied_at) FROM schema_migrations")
    await migrate(empty_dsn)
    assert await ask(empty_dsn, "SELECT max(applied_at) FROM schema_migrations") == before


async def test_many_at_once_apply_each_file_once(empty_dsn: str) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(migrate(empty_dsn))
    assert await ask(empty_dsn, "SELECT count(*) FROM schema_migrations") == len(read_migrations(MIGRATIONS))


async def test_a_file_that_fails_leaves_nothing_and_can_be_tried_again(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id integer);")
    second = tmp_path / "0002_second.sql"
    second.write_text("CREATE TABLE second (id integer); INSERT INTO first VALUES (1); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_dsn, tmp_path)
    assert await tables(empty_dsn) == {"schema_migrations", "first"}
    assert await ask(empty_dsn, "SELECT count(*) FROM first") == 0
    second.write_text("CREATE TABLE second (id integer);")
    await migrate(empty_dsn, tmp_path)
    assert "second" in await tables(empty_dsn)


async def test_a_migration_killed_midway_leaves_nothing_and_no_lock(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_slow.sql").write_text("CREATE TABLE slow (id integer); SELECT pg_sleep(60);")
    async with asyncio.TaskGroup() as group:
        killed = group.create_task(_fails(migrate(empty_dsn, tmp_path)))
        while not await ask(empty_dsn, SLEEPERS):
            await ask(empty_dsn, "SELECT pg_sleep(0.01)")
        await ask(empty_dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    assert isinstance(killed.result(), DatabaseUnavailable)
    assert await tables(empty_dsn) == {"schema_migrations"}
    await migrate(empty_dsn)


async def _fails(work: object) -> Exception | None:
    try:
        await work  # type: ignore[misc]
    except DatabaseUnavailable as error:
        return error
    return None


async def test_what_was_desired_before_there_were_labels_has_them(empty_dsn: str, tmp_path: Path) -> None:
    ours = next(path for path in MIGRATIONS.iterdir() if path.name.endswith("_labels.sql"))
    for path in MIGRATIONS.glob("*.sql"):
        if path.name < ours.name:
            (tmp_path / path.name).write_text(path.read_text())
    await migrate(empty_dsn, tmp_path)
    tags = {"source_id": MetricTagValue(static="ä")}
    definition = DesiredLRPDefinition(
        process_guid=ProcessGuid("web"),
        domain=Domain("d"),
        rootfs="preloaded:a",
        action=Action(run=RunAction(path="/bin/true", user="root")),
        routes={"internal-router": [{"hostname": "a.internal"}]},
        metric_tags=tags,
    )
    insert = """
        INSERT INTO desired_lrps (process_guid, definition, domain, instances, memory_mb, disk_mb, rootfs,
                                  placement_tags, tag_epoch, tag_index, created_at, updated_at)
        VALUES ($1, $2, 'd', 1, 0, 0, '', '{}', 'e', 0, now(), now()) RETURNING 1
    """
    without = msgspec.json.encode({"process_guid": "bare"})
    await ask(empty_dsn, insert, "web", wire.encode_revealed(definition))
    await ask(empty_dsn, insert, "bare", without)
    await migrate(empty_dsn)
    found = {}
    for guid in ("web", "bare"):
        stored = await ask(empty_dsn, "SELECT labels FROM desired_lrps WHERE process_guid = $1", guid)
        assert isinstance(stored, bytes)
        found[guid] = labels.decoded(stored)
    assert found == {"web": labels_of(definition), "bare": Labels()}


async def test_a_newer_database_is_refused(database_dsn: str) -> None:
    await ask(database_dsn, "INSERT INTO schema_migrations VALUES (9000, '9000_future', '') RETURNING 1")
    with pytest.raises(SchemaUnusable, match=r"schema 9000, .* up to \d") as refused:
        await migrate(database_dsn)
    assert refused.value.code == "database_unavailable"
    assert not refused.value.retryable


async def test_a_file_changed_after_it_was_applied_is_refused(database_dsn: str) -> None:
    await ask(database_dsn, "UPDATE schema_migrations SET checksum = 'other' RETURNING 1")
    with pytest.raises(SchemaUnusable, match="0001_initial"):
        await migrate(database_dsn)


async def test_no_server_is_said_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="no Postgres listens"):
        await migrate(f"postgresql://postgres@/postgres?host={tmp_path}")


def test_numbers_have_no_gaps(tmp_path: Path) -> None:
    (tmp_path / "0002_second.sql").write_text("")
    with pytest.raises(ValueError, match="without gaps"):
        read_migrations(tmp_path)
