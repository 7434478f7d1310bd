"""A database of one test's own."""

from collections.abc import AsyncIterator

import pytest

from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from diego_py.service.clock import SystemClock


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    database = Database(database_dsn, SystemClock(), DatabaseSettings(connections_max=10))
    await database.start()
    yield database
    await database.stop()
