"""How many containers are built side by side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field

AT_ONCE = 4 * (os.cpu_count() or 1)
"""With more, the runtimes only hinder each other."""


@define
class Builders:
    """Whoever builds has a slot meanwhile."""

    _slots: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(AT_ONCE), init=False)
    _at_work: int = field(default=0, init=False)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[bool]:
        """Says whether nobody else is building: who builds beside others moves processes soon after they did."""
        async with self._slots:
            self._at_work += 1
            try:
                yield self._at_work == 1
            finally:
                self._at_work -= 1
