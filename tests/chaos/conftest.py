"""One installation for all faults of a run: faults come one after the other in production, too."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest_asyncio
from attrs import define, field

from tests import orphans
from tests.chaos.fleet import QUICK, Fleet, installed


@define
class Installations:
    """One after the other: a broken promise takes away the installation it was broken in, not the next trial's."""

    _stack: AsyncExitStack = field(factory=AsyncExitStack, init=False)
    _fleet: Fleet | None = field(default=None, init=False)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Fleet]:
        """Two BBSes and two cells, impatient ones; as the trial before left them, if it ended well."""
        if self._fleet is None:
            directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="diego-chaos-", dir="/tmp"))
            self._fleet = await self._stack.enter_async_context(installed(Path(directory), QUICK))
        try:
            yield self._fleet
        except BaseException:
            await self.remove()
            raise

    async def remove(self) -> None:
        """Raises AssertionError when something is left of it, or a process had ended of itself."""
        self._fleet = None
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installations() -> AsyncIterator[Installations]:
    there = Installations()
    with orphans.reaped():
        try:
            yield there
        finally:
            await there.remove()
    orphans.reap()
