"""Fixtures of a whole cell beside a fake garden and a fake BBS. A conftest.py that wants them imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest

from cells.app import Cell
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import running_cell
from tests.fakes.garden import FakeGarden


@pytest.fixture
async def bbs() -> AsyncIterator[FakeBBS]:
    async with FakeBBS() as fake:
        yield fake


@pytest.fixture
def garden() -> FakeGarden:
    return FakeGarden()


@pytest.fixture
def log() -> StringIO:
    """What the cell writes."""
    return StringIO()


@pytest.fixture
async def cell(tmp_path: Path, garden: FakeGarden, bbs: FakeBBS, log: StringIO) -> AsyncIterator[Cell]:
    async with running_cell(tmp_path, garden, bbs, log) as running:
        yield running
