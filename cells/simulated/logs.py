"""What the processes of one simulated container wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from attrs import define, field

from cells.garden.spec import LogLine

LINES_MAX = 10_000
"""Lines of a container before its log starts afresh."""


@define(eq=False)
class Log:
    """Lines, and who waits for more of them."""

    lines: list[LogLine] = field(factory=list)
    _dropped: int = 0
    """Lines that were there once; positions count them."""
    _ended: bool = False
    _news: asyncio.Event | None = None
    """Made when the first reader follows."""

    def add(self, line: LogLine) -> None:
        if len(self.lines) >= LINES_MAX:
            self._dropped += len(self.lines)
            self.lines.clear()
        self.lines.append(line)
        self._tell()

    def end(self) -> None:
        """The user process has ended: who follows has read all."""
        self._ended = True
        self._tell()

    async def read(self, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        """The last `tail` lines (None: all), then, when following, each new one until the process has ended."""
        position = self._dropped + (0 if tail is None else max(0, len(self.lines) - tail))
        while True:
            unread = self.lines[max(0, position - self._dropped) :]
            position = self._dropped + len(self.lines)
            for line in unread:
                yield line
            if position < self._dropped + len(self.lines):
                continue
            if not follow or self._ended:
                return
            self._news = self._news or asyncio.Event()
            self._news.clear()
            await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
