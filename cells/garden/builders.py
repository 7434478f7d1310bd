"""How many containers are built side by side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
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
    async def slot(self) -> AsyncIterator[Callable[[], bool]]:
        """Says, whenever it is asked, whether nobody else is building."""
        async with self._slots:
            self._at_work += 1
            try:
                yield lambda: self._at_work == 1
            finally:
                self._at_work -= 1
