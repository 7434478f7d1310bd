"""Fixtures of the tests of the BBS."""

import pytest

from tests.unit.bbs.stage import Stage, built


@pytest.fixture
async def stage() -> Stage:
    return await built()
