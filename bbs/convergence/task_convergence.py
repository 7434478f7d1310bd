"""The part of a round of convergence that looks after tasks: plan from what was read, apply."""

from __future__ import annotations

from attrs import define, field

from bbs.convergence.task_apply import TaskRepairs
from bbs.convergence.task_plan import TaskPlan, TaskSnapshot, plan
from diego_py.service.run import OwnedTasks


@define
class TaskConvergence:
    """One round at a time; what it repairs does not keep the next round of anything else from reading."""

    repairs: TaskRepairs
    tasks: OwnedTasks
    planned: TaskPlan = field(factory=TaskPlan, init=False)
    """What was decided last."""
    _applying: bool = field(default=False, init=False)

    def round(self, snapshot: TaskSnapshot, epoch: int) -> None:
        """Begin what this moment calls for, as the leader of `epoch`."""
        if self._applying:
            return
        self.planned = plan(snapshot)
        if not self.planned.empty:
            self._applying = True
            self.tasks.begin(self._apply(self.planned, epoch), "task convergence")

    async def _apply(self, planned: TaskPlan, epoch: int) -> None:
        try:
            await self.repairs.apply(planned, epoch)
        finally:
            self._applying = False
