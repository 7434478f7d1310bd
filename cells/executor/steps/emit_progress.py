"""Emit progress: lines in the app's log around an inner step. Diego: executor/depot/steps/emit_progress_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.steps.step import Site, Step
from diego_py.call import Call
from diego_py.errors import DiegoError


@frozen
class EmitProgress:
    """An inner step that is told of. An empty message is not written."""

    inner: Step
    source: str
    start: str
    success: str
    failure_prefix: str

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what the inner step does."""
        self._tell(site, self.start)
        try:
            await self.inner.perform(call, site)
        except DiegoError as failure:
            if self.failure_prefix:
                self._tell(site, f"{self.failure_prefix}: {failure.root.message}")
            raise
        self._tell(site, self.success)

    def _tell(self, site: Site, text: str) -> None:
        if text:
            site.tell(self.source, text)
