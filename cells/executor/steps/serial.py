"""Serial: one after the other, until one fails. Diego: executor/depot/steps/serial_step.go."""

from __future__ import annotations

from attrs import frozen

from cells.executor.steps.step import Site, Step
from diego_py.call import Call


@frozen
class Serial:
    """Steps in order."""

    steps: tuple[Step, ...]

    async def perform(self, call: Call, site: Site) -> None:
        """Raises the failure of the first step that fails; those after it never begin."""
        for step in self.steps:
            await step.perform(call, site)
