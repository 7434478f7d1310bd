"""Try: an inner step that may fail. Diego: executor/depot/steps/try_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.steps.step import Site, Step
from diego_py.call import Call
from diego_py.errors import DiegoError, Fault


@frozen
class Try:
    """An inner step whose failure is only told."""

    inner: Step
    source: str

    async def perform(self, call: Call, site: Site) -> None:
        """Raises only what is the platform's fault: nothing that follows could do better."""
        try:
            await self.inner.perform(call, site)
        except DiegoError as failure:
            root = failure.root
            if root.fault is Fault.PLATFORM:
                raise
            site.tell(self.source, f"Failed, which is allowed here: {root.message}")
