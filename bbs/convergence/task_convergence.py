"""The part of a round of convergence that looks after tasks: read all of them at once, plan, apply."""

from __future__ import annotations

from attrs import define, field

from bbs.convergence.task_apply import TaskRepairs
from bbs.convergence.task_plan import TaskPlan, TaskSnapshot, plan
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.service.run import OwnedTasks


@define
class TaskConvergence:
    """One round at a time; what it repairs does not keep the next round of anything else from reading."""

    store: Store
    repairs: TaskRepairs
    tasks: OwnedTasks
    planned: TaskPlan = field(factory=TaskPlan, init=False)
    """What was decided last."""
    _applying: bool = field(default=False, init=False)

    async def round(self, call: Call, epoch: int, may_lose_cells: bool, mass_lost: bool) -> None:
        """Begin what this moment calls for, as the leader of `epoch`."""
        if self._applying:
            return

        async def read(tx: Transaction) -> TaskSnapshot:
            cells = await tx.cells.list_all()
            now = await tx.now()
            return TaskSnapshot(
                now=now,
                tasks=tuple(await tx.tasks.list_statuses()),
                live_cells=frozenset(cell.presence.cell_id for cell in cells if cell.live),
                known_cells=frozenset(cell.presence.cell_id for cell in cells),
                late_cells=frozenset(cell.presence.cell_id for cell in cells if cell.is_late(now)),
                may_lose_cells=may_lose_cells,
                mass_lost=mass_lost,
            )

        self.planned = plan(await self.store.snapshot(call, "read_tasks", read))
        if not self.planned.empty:
            self._applying = True
            self.tasks.begin(self._apply(self.planned, epoch), "task convergence")

    async def _apply(self, planned: TaskPlan, epoch: int) -> None:
        try:
            await self.repairs.apply(planned, epoch)
        finally:
            self._applying = False
