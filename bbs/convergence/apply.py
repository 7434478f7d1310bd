"""Carries a plan out, step by step, and makes no choices: each step is fenced by the epoch and by the row's own tag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from attrs import define, field

from bbs.convergence.plan import Plan, Step
from bbs.lifecycle import Lifecycle
from bbs.outcome import InstanceOutcome, tell
from bbs.placement import Placement
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import CellLost, DiegoError, Outcome, RepairFailed
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.identifiers import ProcessGuid

REPAIRS_MAX = 100
"""Repairs carried out at the same time. Each of them mostly waits, for Postgres and for a cell: with the 20 of Diego's
convergence workers 2,500 instances of lost cells took three times as long.
"""
REPAIR_BUDGET_MS = 90_000.0

Key = tuple[str, int, str]


@define
class Repairs:
    """Effects of convergence. Each repair is a call of its own; one that fails is stored, logged and hinders none."""

    id: str
    lifecycle: Lifecycle
    placement: Placement
    log: structlog.stdlib.BoundLogger
    _under_way: set[Key] = field(factory=set, init=False)
    _slots: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(REPAIRS_MAX), init=False)

    async def apply(self, plan: Plan, epoch: int) -> None:
        """Side by side, those of lost cells first. What an earlier plan is still busy with is left to it."""
        buckets: tuple[tuple[Sequence[Step], Callable[[Step, int], Awaitable[None]]], ...] = (
            (plan.suspect, self._suspect),
            (plan.lose, self._lose),
            (plan.recall, self._recall),
            (plan.settle, self._settle),
            (plan.drop, self._drop),
            (plan.move, self._move),
            (plan.recreate, self._recreate),
            (plan.retry, self._retry),
            (plan.place, self._place_waiting),
            (plan.stop, self._stop),
        )
        async with asyncio.TaskGroup() as group:
            for steps, repair in buckets:
                for step in self._new(steps):
                    group.create_task(self._bounded(_key(step.row), repair(step, epoch)))
            for guid in dict.fromkeys(item.process_guid for item in plan.create):
                if (key := (guid, -1, "")) not in self._under_way:
                    self._under_way.add(key)
                    group.create_task(self._bounded(key, self._create(guid, epoch)))

    def _new(self, steps: Sequence[Step]) -> list[Step]:
        """Those that nothing is under way for, marked so that it is from now on."""
        new = [step for step in steps if _key(step.row) not in self._under_way]
        self._under_way.update(_key(step.row) for step in new)
        return new

    async def _bounded(self, key: Key, work: Awaitable[None]) -> None:
        async with self._slots:
            try:
                await self._reported(key, work)
            finally:
                self._under_way.discard(key)

    async def _suspect(self, step: Step, epoch: int) -> None:
        """The cell is gone, and the instance may serve there yet: place another one beside it."""
        call, row = self._call(), step.row
        desired = await self._desired(row.process_guid)
        revision = row.revision if desired is None else desired.revision
        with call.hop("bbs", self.id, "suspect_instance", RepairFailed) as inner:
            row = await self.placement.succession.suspect(inner, row, epoch, self._lost(inner, step), revision)
        self._say("instance_suspect", step.row, step.reason)
        if desired is not None:
            self._say_placed(await self.placement.repair_offered(self._call(), desired, row))

    async def _lose(self, step: Step, epoch: int) -> None:
        """The cell is gone: say so with the row, and place the instance elsewhere."""
        call, row = self._call(), step.row
        with call.hop("bbs", self.id, "lose_instance", RepairFailed) as inner:
            row = await self.lifecycle.lose(inner, row, epoch, self._lost(inner, step))
        self._say("instance_lost", row, step.reason)
        await self._place(row, epoch)

    def _lost(self, call: Call, step: Step) -> Problem:
        row = step.row
        lost = call.framed(CellLost(step.reason, outcome=Outcome.UNKNOWN))
        told = tell(call, RepairFailed, f"keep {row.process_guid}/{row.index} running", [InstanceOutcome(row, lost)])
        return self.placement.numbered(told.failures[0].document)

    async def _recall(self, step: Step, epoch: int) -> None:
        if await self.placement.succession.recall(self._call(), step.row, epoch=epoch) is not None:
            self._say("instance_recalled", step.row, step.reason)

    async def _drop(self, step: Step, epoch: int) -> None:
        if await self.placement.succession.drop(self._call(), step.row, epoch):
            self._say("instance_dropped", step.row, step.reason)

    async def _move(self, step: Step, epoch: int) -> None:
        """Place another one beside it. It serves until that one runs; a later round stops it then."""
        if (desired := await self._desired(step.row.process_guid)) is None:
            return
        pair = await self.placement.succession.displace(self._call(), step.row, desired.revision, epoch)
        self._say("instance_moved", step.row, step.reason)
        await self._place(pair.new, epoch)

    async def _recreate(self, step: Step, epoch: int) -> None:
        """Stop it, then place it elsewhere."""
        call, row = self._call(), step.row
        if (desired := await self._desired(row.process_guid)) is None:
            return
        restarted = await self.placement.succession.recreate(call, row, desired.revision, epoch)
        self._say("instance_recreated", row, step.reason)
        stopped = await self.placement.removal.stop_before(call, restarted)
        if stopped.error is not None:
            raise stopped.error
        await self._place(restarted.after, epoch)

    async def _retry(self, step: Step, epoch: int) -> None:
        row = await self.lifecycle.retry(self._call(), step.row, epoch)
        self._say("instance_retried", row, step.reason)
        await self._place(row, epoch)

    async def _place_waiting(self, step: Step, epoch: int) -> None:
        await self._place(step.row, epoch)

    async def _place(self, row: ActualLRP, epoch: int) -> None:
        desired = await self._desired(row.process_guid)
        if desired is not None:
            self._say_placed(await self.placement.repair(self._call(), desired, row, epoch))

    async def _create(self, guid: ProcessGuid, epoch: int) -> None:
        desired = await self._desired(guid)
        rows = await self.lifecycle.add_missing(self._call(), guid, epoch)
        if desired is None:
            return
        async with asyncio.TaskGroup() as group:
            for row in rows:
                self._say("instance_missing", row, "the index had no row")
                work = self.placement.repair(self._call(), desired, row, epoch)
                group.create_task(self._reported(_key(row), work))

    async def _settle(self, step: Step, epoch: int) -> None:
        await self.placement.retire(self._call(), step.row)
        self._say("instance_replaced", step.row, step.reason)

    async def _stop(self, step: Step, epoch: int) -> None:
        await self.placement.stop(self._call(), step.row)
        self._say("instance_surplus", step.row, step.reason)

    async def _desired(self, guid: ProcessGuid) -> DesiredLRP | None:
        """What is to be placed, read when it is: most rounds place nothing."""
        read = self.lifecycle.store.read
        return await read(self._call(), "get_desired_lrp", lambda tx: tx.desired_lrps.get(guid))

    async def _reported(self, key: Key, work: Awaitable[object]) -> None:
        """Errors of one repair end here: they are stored with the row already."""
        try:
            await work
        except DiegoError as error:
            root = error.root
            self.log.warning("repair_failed", process_guid=key[0], index=key[1], code=root.code, detail=root.message)

    def _call(self) -> Call:
        return Call.begin(self.lifecycle.clock, REPAIR_BUDGET_MS)

    def _say_placed(self, row: ActualLRP) -> None:
        self._say("instance_placed", row, f"on {row.cell_id}")

    def _say(self, event: str, row: ActualLRP, reason: str) -> None:
        self.log.info(event, process_guid=row.process_guid, index=row.index, reason=reason)


def _key(row: ActualLRP) -> Key:
    return (row.process_guid, row.index, row.presence)
