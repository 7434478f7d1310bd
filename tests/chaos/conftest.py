"""One installation for all faults of a run: faults come one after the other in production, too."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests import orphans
from tests.chaos.fleet import QUICK, Fleet, installed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """Two BBSes and two cells, impatient ones."""
    with tempfile.TemporaryDirectory(prefix="diego-chaos-", dir="/tmp") as directory:
        async with installed(Path(directory), QUICK) as fleet:
            yield fleet
    orphans.reap()
