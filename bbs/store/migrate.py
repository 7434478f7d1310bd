"""Brings a database to this release's schema: numbered .sql files, forward only, each once, each in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import asyncpg
from attrs import frozen

from bbs.store.postgres_errors import DRIVER_ERRORS, translate
from diego_py.errors import DatabaseUnavailable, Next

MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK: Final = 0x64696567  # any constant; "dieg"
CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 5.0
"""For what is applied already: a small table, but the server may fall silent."""
LOCK_TIMEOUT_S: Final = 60.0
"""How long to wait for another BBS that is migrating."""


class SchemaUnusable(DatabaseUnavailable):
    """The database's schema is not one that this release may work with; waiting does not help."""

    retryable = False
    next = (Next("Run the release that migrated this database, or a newer one; a schema never goes back"),)


@frozen
class Migration:
    """One file. Once it is applied somewhere it never changes."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str, directory: Path = MIGRATIONS) -> None:
    """Apply what is missing. Safe to run from several processes at once: one works, the others wait for it.

    Raises DatabaseUnavailable, DatabaseConflict when another one takes too long, or SchemaUnusable if the database is
    newer than this release or differs from it.
    """
    migrations = read_migrations(directory)
    try:
        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_TIMEOUT_S, server_settings={"lock_timeout": f"{LOCK_TIMEOUT_S:.0f}s"}
        )
        try:
            if _missing(migrations, await _applied(connection)):
                await connection.execute(TAKE_LOCK, LOCK)
                await _apply(connection, migrations)
        finally:
            connection.terminate()
    except DRIVER_ERRORS as error:
        ours = translate(error, "migrate")
        if ours is None:
            raise
        raise ours from error


def read_migrations(directory: Path) -> list[Migration]:
    """All files of a directory in order. Raises ValueError if the numbers are not 1, 2, 3, …"""
    migrations = [
        Migration(int(path.name[:4]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(migrations) + 1)):
        raise ValueError(f"migrations must be numbered without gaps, not {versions}")
    return migrations


async def _apply(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> None:
    await connection.execute(CREATE_SCHEMA_MIGRATIONS)
    for migration in _missing(migrations, await _applied(connection)):
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(INSERT_MIGRATION, migration.version, migration.name, migration.checksum)


def _missing(migrations: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """What is not applied yet. Raises SchemaUnusable if what is applied is not what this release has."""
    newest = max(applied, default=0)
    if newest > len(migrations):
        raise SchemaUnusable(f"the database has schema {newest}, and this release knows up to {len(migrations)}")
    for migration in migrations:
        checksum = applied.get(migration.version, migration.checksum)
        if checksum != migration.checksum:
            raise SchemaUnusable(f"the database was migrated with another {migration.name} than this release has")
    return [migration for migration in migrations if migration.version not in applied]


TAKE_LOCK: Final = "SELECT pg_advisory_lock($1)"

CREATE_SCHEMA_MIGRATIONS: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""

INSERT_MIGRATION: Final = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"

FIND_SCHEMA_MIGRATIONS: Final = "SELECT to_regclass('schema_migrations') IS NOT NULL"

LIST_MIGRATIONS: Final = "SELECT version, checksum FROM schema_migrations"


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    """Checksums of what the database has."""
    if not await connection.fetchval(FIND_SCHEMA_MIGRATIONS, timeout=READ_TIMEOUT_S):
        return {}
    listed = await connection.fetch(LIST_MIGRATIONS, timeout=READ_TIMEOUT_S)
    return {row["version"]: row["checksum"] for row in listed}
