"""An installation whose BBS serves Diego's wire, and a client that knows nothing but that wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bbs.config import DiegoWireConfig
from tests.chain.conftest import image_root as image_root
from tests.chain.conftest import in_order
from tests.chain.installation import Installation
from tests.diego_api.client import DiegoClient


@pytest.fixture
async def installation(image_root: Path, open_directory: Path, database_dsn: str) -> AsyncIterator[Installation]:
    """A BBS without cells. In the end nothing of any container is left, and no process met a defect."""
    async with Installation(open_directory, image_root, database_dsn) as made:
        await made.start_bbs(diego=DiegoWireConfig(listen_port=0), convergence_interval_s=0.2)
        yield made
        await in_order(made)


@pytest.fixture
async def bbs(installation: Installation) -> AsyncIterator[DiegoClient]:
    listener = installation.bbs.diego_listener
    assert listener is not None
    async with aiohttp.ClientSession() as session:
        yield DiegoClient(f"http://127.0.0.1:{listener.port}", session)
