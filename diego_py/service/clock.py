"""Time as a dependency: whoever needs it gets a Clock, so that tests and simulations decide how it passes."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two readings and a wait."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin, never going back."""

    def now(self) -> datetime:
        """Wall-clock time in UTC; informative only, never compared between hosts."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
