"""Carries a plan out, step by step, and makes no choices: each step is fenced by the epoch and by the row's own tag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import structlog
from attrs import define, field

from bbs.convergence.plan import Missing, Plan, Snapshot, Step
from bbs.lifecycle import Lifecycle
from bbs.outcome import InstanceOutcome, tell
from bbs.placement import Placement
from diego_py.call import Call
from diego_py.errors import CellLost, DiegoError, Outcome, RepairFailed
from diego_py.models.actual_lrp import ActualLRP

REPAIRS_MAX = 20
"""Repairs carried out at the same time, as many as Diego's convergence workers."""
REPAIR_BUDGET_MS = 90_000.0


@define
class Repairs:
    """Effects of convergence. Each repair is a call of its own; one that fails is stored, logged and hinders none."""

    id: str
    lifecycle: Lifecycle
    placement: Placement
    log: structlog.stdlib.BoundLogger
    _under_way: set[tuple[str, int]] = field(factory=set, init=False)

    async def apply(self, plan: Plan, snapshot: Snapshot, epoch: int) -> None:
        """Lost cells first, so that their instances are placed in the same round; then the rest side by side."""
        slots = asyncio.Semaphore(REPAIRS_MAX)

        async def bounded(key: tuple[str, int], work: Awaitable[None]) -> None:
            async with slots:
                await self._reported(key, work)

        async with asyncio.TaskGroup() as group:
            for step in plan.lose:
                group.create_task(bounded(_key(step), self._lose(snapshot, step, epoch)))
            for step in plan.retry:
                group.create_task(bounded(_key(step), self._retry(snapshot, step, epoch)))
            for step in plan.place:
                group.create_task(bounded(_key(step), self._place(snapshot, step.row, epoch)))
            for step in plan.stop:
                group.create_task(bounded(_key(step), self._stop(step)))
            for guid, missing in _by_process(plan.create).items():
                group.create_task(bounded((guid, -1), self._create(missing, epoch)))

    async def _lose(self, snapshot: Snapshot, step: Step, epoch: int) -> None:
        """The cell is gone: say so with the row, and place the instance elsewhere."""
        call = self._call()
        row = step.row
        with call.hop("bbs", self.id, "lose_instance", RepairFailed) as inner:
            lost = inner.framed(CellLost(step.reason, outcome=Outcome.UNKNOWN))
            message = f"keep {row.process_guid}/{row.index} running"
            told = tell(inner, RepairFailed, message, [InstanceOutcome(row, lost)])
            document = self.placement.numbered(told.failures[0].document)
            row = await self.lifecycle.lose(inner, row, epoch, document)
        self._say("instance_lost", row, step.reason)
        await self._place(snapshot, row, epoch)

    async def _retry(self, snapshot: Snapshot, step: Step, epoch: int) -> None:
        row = await self.lifecycle.retry(self._call(), step.row, epoch)
        self._say("instance_retried", row, step.reason)
        await self._place(snapshot, row, epoch)

    async def _place(self, snapshot: Snapshot, row: ActualLRP, epoch: int) -> None:
        desired = snapshot.desired[row.process_guid]
        placed = await self.placement.repair(self._call(), desired, row, epoch)
        self._say("instance_placed", placed, f"on {placed.cell_id}")

    async def _create(self, missing: Sequence[Missing], epoch: int) -> None:
        desired = missing[0].desired
        rows = await self.lifecycle.add_missing(self._call(), desired.definition.process_guid, epoch)
        async with asyncio.TaskGroup() as group:
            for row in rows:
                self._say("instance_missing", row, "the index had no row")
                work = self.placement.repair(self._call(), desired, row, epoch)
                group.create_task(self._reported((row.process_guid, row.index), work))

    async def _stop(self, step: Step) -> None:
        await self.placement.stop(self._call(), step.row)
        self._say("instance_surplus", step.row, step.reason)

    async def _reported(self, key: tuple[str, int], work: Awaitable[object]) -> None:
        """Errors of one repair end here: they are stored with the row already."""
        try:
            await work
        except DiegoError as error:
            root = error.root
            self.log.warning("repair_failed", process_guid=key[0], index=key[1], code=root.code, detail=root.message)

    def _call(self) -> Call:
        return Call.begin(self.lifecycle.clock, REPAIR_BUDGET_MS)

    def _say(self, event: str, row: ActualLRP, reason: str) -> None:
        self.log.info(event, process_guid=row.process_guid, index=row.index, reason=reason)


def _key(step: Step) -> tuple[str, int]:
    return (step.row.process_guid, step.row.index)


def _by_process(missing: Sequence[Missing]) -> dict[str, list[Missing]]:
    grouped: dict[str, list[Missing]] = {}
    for item in missing:
        grouped.setdefault(item.desired.definition.process_guid, []).append(item)
    return grouped
