"""Codependent: all at once; when one ends, the others are ended. Diego: executor/depot/steps/codependent_step.go."""

from __future__ import annotations

import asyncio

from attrs import frozen

from cells.executor.outcomes import outcome_of
from cells.executor.steps.step import Site, Step, joined
from diego_py.call import Call
from diego_py.errors import CodependentExited


@frozen
class Codependent:
    """Steps that need each other."""

    steps: tuple[Step, ...]
    ends_well: bool = False
    """Whether the success of one is a success of all (an action and its sidecars), or a failure as in the action."""

    async def perform(self, call: Call, site: Site) -> None:
        """Raises the failures of those that ended first, or CodependentExited when one ended well."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome_of(step.perform(call, site))) for step in self.steps]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
        failures = [outcome for task in ended if (outcome := task.result()) is not None]
        if failures:
            raise joined(failures)
        if not self.ends_well:
            number = 1 + tasks.index(ended[0])
            raise CodependentExited(f"action {number} of {len(tasks)} codependent ones exited")
