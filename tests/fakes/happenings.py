"""Waiting in tests: for what happened, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from attrs import define, field

PATIENCE_S = 45.0


@define
class Happenings:
    """A list of what happened that can be waited on."""

    items: list[Any] = field(factory=list)
    _news: asyncio.Event = field(factory=asyncio.Event)

    def add(self, item: Any) -> None:
        self.items.append(item)
        self._news.set()

    async def first(self, wanted: Callable[[Any], bool], since: int = 0) -> Any:
        """The first item from position `since` that is `wanted`, now or later. Fails after 45 s."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._news.clear()
                for item in self.items[since:]:
                    if wanted(item):
                        return item
                await self._news.wait()
