"""Which log a handle has, how far it is followed, and how much of it is let through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from attrs import evolve

from cells.garden import log_rate, logs
from cells.garden.box import Box
from cells.garden.depot import Depot
from cells.garden.spec import LogLine
from diego_py.errors import ContainerNotFound


def lines(depot: Depot, handle: str, box: Box | None, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
    """The lines of a container, there or gone. Raises ContainerNotFound."""
    path = depot.log(handle)
    if "/" in handle or (box is None and not path.exists()):
        raise ContainerNotFound(f"read the log of {handle}")
    found = logs.follow(path, tail, box.ended if box is not None and follow else None)
    if source := depot.log_source(handle):
        found = _marked(found, source)
    rate = depot.log_rate(handle)
    return found if rate is None else log_rate.limited(found, rate)


async def _marked(lines: AsyncGenerator[LogLine, None], source: str) -> AsyncGenerator[LogLine, None]:
    """The lines, those that say nothing of their source marked as of the container's own process."""
    async with aclosing(lines):
        async for line in lines:
            yield line if line.source else evolve(line, source=source)
