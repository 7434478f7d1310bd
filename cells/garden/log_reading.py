"""Which log a handle has, how far it is followed, and how much of it is let through."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
    rate = depot.log_rate(handle)
    return found if rate is None else log_rate.limited(found, rate)
