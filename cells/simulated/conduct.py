"""How long what a simulated runtime does takes, and how often it fails. The random numbers are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Final

from attrs import define, field, frozen

from diego_py.errors import DestroyFailed, DiegoError, RuntimeFailed, SandboxFailed
from diego_py.service.clock import Clock

FAILURES: Final[Mapping[str, type[DiegoError]]] = {
    "create": SandboxFailed,
    "run": RuntimeFailed,
    "exec": RuntimeFailed,
    "launch": RuntimeFailed,
    "stop": RuntimeFailed,
    "destroy": DestroyFailed,
}
Z99: Final = 2.326
"""How many standard deviations above its middle a normal distribution has its 99th percentile."""


@frozen
class Latency:
    """Milliseconds, log-normally distributed: half take at most `median_ms`, 99 of 100 at most `p99_ms`."""

    median_ms: float
    p99_ms: float

    @classmethod
    def parse(cls, text: str) -> Latency:
        """`MEDIAN` or `MEDIAN,P99`, in milliseconds. Raises ValueError."""
        median_ms, *more = [float(part) for part in text.split(",")]
        p99_ms = more[0] if more else median_ms
        if len(more) > 1 or not 0 <= median_ms <= p99_ms < math.inf:
            raise ValueError(f"{text}: a latency is MEDIAN or MEDIAN,P99 in milliseconds")
        return cls(median_ms, p99_ms)

    def draw_s(self, random: Random) -> float:
        """One of them, in seconds."""
        if self.median_ms == 0 or self.p99_ms == self.median_ms:
            return self.median_ms / 1000
        sigma = math.log(self.p99_ms / self.median_ms) / Z99
        return self.median_ms * math.exp(random.gauss(0, sigma)) / 1000


@define
class Conduct:
    """Time and failures of each operation of a runtime. What is not named takes no time and never fails."""

    clock: Clock
    random: Random
    latencies: Mapping[str, Latency] = field(factory=dict)
    failure_rates: Mapping[str, float] = field(factory=dict)

    async def perform(self, op: str, handle: str) -> None:
        """Return when it would have been done. Raises what a runtime would that failed."""
        latency = self.latencies.get(op)
        if latency is not None and (seconds := latency.draw_s(self.random)) > 0:
            await self.clock.sleep(seconds)
        rate = self.failure_rates.get(op, 0.0)
        if rate and self.random.random() < rate:
            raise FAILURES[op](f"{op} {handle}: the simulated runtime said no")
