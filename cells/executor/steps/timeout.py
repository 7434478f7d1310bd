"""Timeout: an inner step that may take so long. Diego: executor/depot/steps/timeout_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.outcomes import first_of
from cells.executor.steps.step import Site, Step
from diego_py.call import Call
from diego_py.errors import ActionTimedOut


@frozen
class Timeout:
    """A limit on the time that the inner step takes."""

    inner: Step
    limit_s: float
    spent_s: float = 0.0
    """Of the limit, before this cell process was there."""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what the inner step does, or ActionTimedOut, once the inner step has ended what it began."""
        await first_of(self.inner.perform(call, site), self._alarm(site))

    async def _alarm(self, site: Site) -> None:
        await site.clock.sleep(max(0.0, self.limit_s - self.spent_s))
        evidence = {"timeout_ms": round(self.limit_s * 1000)}
        raise ActionTimedOut(f"exceeded {self.limit_s:g} s timeout", evidence=evidence)
