"""How many requests are let in: as many as the event loop keeps up with. Decision 14 says why this and nothing else.

The limits are pure: they are told how late the loop is. `LoopLag` measures it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from statistics import median
from typing import Any, TypeVar

from attrs import define, field

T = TypeVar("T")

LAG_MAX_S = 0.02
"""How late the event loop may be. Whoever is refused waits a handful of turns of it."""
ALWAYS = 32
"""So many under way are never too many, however late the loop is: others may use the processor."""
LOOK_S = 0.02
LOOKS = 5
"""The middle one of so many measurements counts, so that one long step of work changes nothing."""
LESS = 0.7
MORE = 1.1
MORE_MIN = 4
"""How a limit falls and rises, each time it is looked at."""
KEPT_UP_WITH = "as many requests are under way as this process keeps up with"


@define
class Gate:
    """A limit of requests under way: it falls while the event loop is late, else it rises while it is reached."""

    most: int = 512
    limit: int = field(init=False)
    under_way: int = field(default=0, init=False)
    _reached: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.limit = self.most

    def is_full(self) -> bool:
        """Whether one more would be too many."""
        if self.under_way < self.limit:
            return False
        self._reached = True
        return True

    def looked(self, lag_s: float) -> None:
        """So late the event loop was. Few that are under way are no reason for it, so they leave the limit as it is."""
        if lag_s > LAG_MAX_S:
            if self.under_way > ALWAYS:
                self.limit = max(ALWAYS, int(min(self.limit, self.under_way) * LESS))
        elif self._reached:
            self.limit = min(self.most, max(self.limit + MORE_MIN, int(self.limit * MORE)))
        self._reached = False


@define
class Admission:
    """One limit for what changes something and one for what only reads, so that neither shuts out the other."""

    in_flight_max: int = 512
    changes: Gate = field(init=False)
    reads: Gate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.changes, self.reads = Gate(self.in_flight_max), Gate(self.in_flight_max)

    def looked(self, lag_s: float) -> None:
        for gate in (self.changes, self.reads):
            gate.looked(lag_s)

    async def changing(self, work: Coroutine[Any, Any, T]) -> T:
        """Count work that no request is counted for: it was let in, and is not done."""
        self.changes.under_way += 1
        try:
            return await work
        finally:
            self.changes.under_way -= 1

    def outlives(self, task: asyncio.Task[Any]) -> None:
        """Count work whose caller waits no longer, until it is done."""

        def done(_: asyncio.Task[Any]) -> None:
            self.changes.under_way -= 1

        self.changes.under_way += 1
        task.add_done_callback(done)


@define
class LoopLag:
    """Measures how late the event loop calls what is due, as a part of the process."""

    admission: Admission
    _due_s: float = field(default=0.0, init=False)
    _lags_s: list[float] = field(factory=list, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    async def start(self) -> None:
        self._plan(asyncio.get_running_loop())

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + LOOK_S
        self._timer = loop.call_at(self._due_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lags_s.append(loop.time() - self._due_s)
        if len(self._lags_s) == LOOKS:
            self.admission.looked(median(self._lags_s))
            self._lags_s.clear()
        self._plan(loop)
