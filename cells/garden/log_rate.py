"""How much of a container's output is handed out: so many bytes a second, and a notice where lines are missing.

It is held where the log is read, by the times that conmon wrote into it, so it is the same whoever reads and whenever.
The container itself is never slowed down. What is on disk is held by the size of the log alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta

from attrs import define, field

from cells.garden.spec import LogLine

NOTICE_EVERY = timedelta(seconds=1)
NOTICE_STREAM = "stderr"


@define
class RateLimit:
    """A bucket of one second's bytes, full at first. A line that does not fit is dropped, whole."""

    bytes_per_second: int
    _left: float = field(init=False)
    _at: datetime | None = field(default=None, init=False)
    _noticed: datetime | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.bytes_per_second

    def passed(self, line: LogLine) -> Iterator[LogLine]:
        """The line, or a notice in its place at most once a second, or nothing."""
        since_s = 0.0 if self._at is None else max(0.0, (line.at - self._at).total_seconds())
        self._left = min(self.bytes_per_second, self._left + since_s * self.bytes_per_second)
        self._at = line.at
        size = len(line.text.encode())
        if size <= self._left:
            self._left -= size
            yield line
        elif self._noticed is None or line.at - self._noticed >= NOTICE_EVERY:
            self._noticed = line.at
            told = f"app instance exceeded log rate limit ({self.bytes_per_second} bytes/sec)"
            yield LogLine(line.at, NOTICE_STREAM, told)


async def limited(lines: AsyncGenerator[LogLine, None], bytes_per_second: int) -> AsyncGenerator[LogLine, None]:
    """The lines that a limit lets through."""
    limit = RateLimit(bytes_per_second)
    async with aclosing(lines):
        async for line in lines:
            for passed in limit.passed(line):
                yield passed
