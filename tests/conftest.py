"""What tests of every kind share: one real Postgres, a fresh database for each test, and the rule on root."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from diego_py.embedded.postgres import EmbeddedPostgres
from tests.slowness import patient

ROOT_MARKERS = ("kernel", "cluster")
TEMPLATE_DATABASE = "template_diego"

_database_numbers = count(1)

# How long one example may take says more about the machine than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A slow machine has longer for each test. First: pytest-timeout reads the option when it is configured."""
    if config.option.timeout is None:
        config.option.timeout = patient(float(config.getini("timeout")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need root are skipped in the open, and where everything has to run their absence is a failure."""
    needed_by = [name for name in ROOT_MARKERS if item.get_closest_marker(name)]
    if not needed_by or os.geteuid() == 0:
        return
    reason = f"marked {', '.join(needed_by)}: needs root, and this is user {os.geteuid()}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A temporary directory that other users may pass through; pytest's own are closed to them."""
    with _open_directory() as path:
        yield path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    with _open_directory() as path:
        async with EmbeddedPostgres(path, durable=False) as server:
            yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_database(postgres: EmbeddedPostgres) -> str:
    """The name of a database with every migration applied, which nobody is connected to."""
    dsn = await postgres.create_database(TEMPLATE_DATABASE)
    await _migrate(dsn)
    return TEMPLATE_DATABASE


@pytest.fixture
async def database_dsn(postgres: EmbeddedPostgres, template_database: str) -> AsyncIterator[str]:
    """A database of this test's own, migrated and empty."""
    name = f"test_{next(_database_numbers)}"
    yield await postgres.create_database(name, template=template_database)
    await postgres.drop_database(name)


async def _migrate(dsn: str) -> None:
    from bbs.store.migrate import migrate

    await migrate(dsn)


@contextmanager
def _open_directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="diego-test-", dir="/tmp"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)
