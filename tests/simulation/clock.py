"""A process's clocks on virtual time: both start somewhere else than those of other processes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import frozen

from tests.simulation.loop import SimulatedLoop

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)


@frozen
class SimulatedClock:
    """What `diego_py.service.clock.Clock` promises."""

    loop: SimulatedLoop
    ahead_s: float = 0.0
    """How far the wall clock is ahead of the others, and the monotonic one too."""

    def monotonic(self) -> float:
        return self.loop.time() + self.ahead_s

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.loop.time() + self.ahead_s)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
