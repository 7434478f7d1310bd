"""Parallel: all at once, wait for all. Diego: executor/depot/steps/parallel_step.go."""

from __future__ import annotations

import asyncio

from attrs import frozen

from cells.executor.outcomes import outcome_of
from cells.executor.steps.step import Site, Step, joined
from diego_py.call import Call


@frozen
class Parallel:
    """Steps beside each other; one that fails leaves the others alone."""

    steps: tuple[Step, ...]

    async def perform(self, call: Call, site: Site) -> None:
        """Raises, once all have ended, the failure of the first in the list that failed, with those of the others."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome_of(step.perform(call, site))) for step in self.steps]
        failures = [outcome for task in tasks if (outcome := task.result()) is not None]
        if failures:
            raise joined(failures)
