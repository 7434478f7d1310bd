"""How a whole definition is replaced, top to bottom: store it, then instance by instance start the new, stop the old.

Runs until the first new instance fails: what is old by then goes on serving, and the answer says how many are new.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from attrs import define, evolve, field, frozen

from bbs.lifecycle import Restarted
from bbs.outcome import InstanceOutcome, is_gone, tell
from bbs.placement import Placed, Placement
from bbs.store.desires import Replaced
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import DiegoError, NeverRoutable, Outcome, ReplaceFailed
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRP, UpdateStrategy

IN_FLIGHT_DEFAULT = 1
IN_FLIGHT_MAX = 100
"""Instances of one LRP that are replaced at the same time."""
ROUTABLE_POLL_S = 0.1
UNDO_BUDGET_MS = 60_000.0
"""To stop a new instance that never became ready, also when the request's own time is spent."""


class Strategy(StrEnum):
    """Whether old and new instances of one index may run side by side."""

    ROLLING = "rolling"
    RECREATE = "recreate"

    @classmethod
    def of(cls, desired: UpdateStrategy) -> Strategy:
        """What the definition itself says."""
        return cls.RECREATE if desired is UpdateStrategy.RECREATE else cls.ROLLING


@frozen
class Pace:
    """How a replacement goes on."""

    strategy: Strategy
    in_flight: int = IN_FLIGHT_DEFAULT


@define
class _Round:
    """What is still to be replaced, and what became of the rest."""

    waiting: deque[ActualLRP]
    outcomes: list[InstanceOutcome] = field(factory=list)

    @property
    def failed(self) -> bool:
        return any(outcome.error for outcome in self.outcomes)


@define
class Replacement:
    """Replaces instances; each is started and stopped as any other is."""

    store: Store
    placement: Placement

    async def replace(self, call: Call, replaced: Replaced, pace: Pace) -> Placed:
        """Return when every instance is a new one. Raises ReplaceFailed with the first failure; its document is stored.

        Scaling that comes with it is done first. `recreate` stops all old instances, then starts all new ones.
        """
        desired = replaced.desired
        current = [InstanceOutcome(row) for row in replaced.current]
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self.placement.place_all(call, desired, replaced.added))
            stopping = group.create_task(self.placement.removal.stop_all(call, replaced.surplus))
            retiring = group.create_task(self.placement.removal.retire(call, _served(replaced)))
            changing = group.create_task(self.placement.egress.apply(call, desired, _open(replaced)))
        done = [*current, *starting.result(), *stopping.result(), *retiring.result(), *changing.result()]
        work = _Round(deque(replaced.outdated))
        if not any(outcome.error for outcome in done):
            match pace.strategy:
                case Strategy.ROLLING:
                    await self._roll(call, replaced, work, pace.in_flight)
                case Strategy.RECREATE:
                    await self._recreate(call, replaced, work)
        untouched = [InstanceOutcome(row) for row in work.waiting]
        outcomes = sorted([*done, *work.outcomes, *untouched], key=lambda outcome: outcome.row.index)
        if any(outcome.error for outcome in outcomes):
            raise await self._failed(call, desired, outcomes)
        running = [*current, *starting.result(), *work.outcomes]
        return Placed(desired, tuple(sorted((outcome.row for outcome in running), key=lambda row: row.index)))

    async def _roll(self, call: Call, replaced: Replaced, work: _Round, in_flight: int) -> None:
        """So many at a time, until none is left or one failed; those under way then are still finished."""

        async def go_on() -> None:
            while work.waiting and not work.failed:
                work.outcomes.append(await self._succeed(call, replaced, work.waiting.popleft()))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(work.waiting))):
                group.create_task(go_on())

    async def _succeed(self, call: Call, replaced: Replaced, row: ActualLRP) -> InstanceOutcome:
        """One index: the new instance runs before the old one stops. Never raises."""
        beside = [old for old in replaced.beside if old.index == row.index]
        if row.state is not ActualLRPState.RUNNING:
            return await self._start_anew(call, replaced.desired, row, beside)
        try:
            await self._end(call, beside)  # an earlier replacement was not finished: what serves now is `row`
            pair = await self.placement.succession.displace(call, row, replaced.desired.revision)
        except DiegoError as error:
            return InstanceOutcome(row, _framed(call, error), row.cell_id, stopping=True)
        outcome = await self._started(call, pair.new, replaced.desired, recallable=True)
        if outcome.error is not None:
            return evolve(outcome, old=pair.old)
        return await self.ended(call, outcome, [pair.old])

    async def _start_anew(
        self, call: Call, desired: DesiredLRP, row: ActualLRP, beside: Sequence[ActualLRP]
    ) -> InstanceOutcome:
        """One that does not run: offered again with the new definition. What serves beside it ends once it runs."""
        guid = desired.definition.process_guid
        try:
            restarted = await self.placement.lifecycle.restart(call, guid, row.index, desired.revision)
        except DiegoError as error:
            return InstanceOutcome(row, _framed(call, error), row.cell_id, stopping=True)
        stopped = await self.placement.removal.stop_before(call, restarted)
        if stopped.error is not None:
            return evolve(stopped, row=restarted.after, stopping=False)
        outcome = await self._started(call, restarted.after, desired, recallable=False)
        return outcome if outcome.error is not None else await self.ended(call, outcome, beside)

    async def _started(self, call: Call, row: ActualLRP, desired: DesiredLRP, recallable: bool) -> InstanceOutcome:
        """Place it, and wait until requests may come to it; if they may not, it gives way to what can be recalled."""
        outcome = await self.placement.place_one(call, desired, row, None)
        if outcome.error is not None:
            return outcome
        try:
            return evolve(outcome, row=await self._routable(call, outcome.row))
        except DiegoError as error:
            if recallable:
                stopped = await self.placement.removal.stop_container(call.with_budget(UNDO_BUDGET_MS), outcome.row)
                error.outcome = Outcome.ROLLED_BACK if stopped.error is None else Outcome.UNKNOWN
            return evolve(outcome, error=error, gone=is_gone(error))

    async def _routable(self, call: Call, row: ActualLRP) -> ActualLRP:
        """The row once it is routable. Raises NeverRoutable."""
        while not row.routable:
            if call.remaining_ms() < ROUTABLE_POLL_S * 2_000:
                told = f"instance {row.process_guid}/{row.index} runs and is not ready"
                raise call.framed(NeverRoutable(told, outcome=Outcome.RUNNING))
            await call.clock.sleep(ROUTABLE_POLL_S)
            now = await self._look(call, row)
            if now is None or now.instance_guid != row.instance_guid:
                told = f"instance {row.process_guid}/{row.index} ended before it was ready"
                raise call.framed(NeverRoutable(told, outcome=Outcome.ROLLED_BACK))
            row = now
        return row

    async def _look(self, call: Call, row: ActualLRP) -> ActualLRP | None:
        key = (row.process_guid, row.index)
        return await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(*key))

    async def ended(self, call: Call, outcome: InstanceOutcome, olds: Sequence[ActualLRP]) -> InstanceOutcome:
        """The new one runs: once routers know, stop the old ones. One that cannot be shown to be gone is a failure."""
        try:
            await self._end(call, olds)
        except DiegoError as error:
            return evolve(outcome, error=error, stopping=True)
        return outcome

    async def _end(self, call: Call, olds: Sequence[ActualLRP]) -> None:
        for stopped in await self.placement.removal.retire(call, olds):
            if stopped.error is not None:
                raise stopped.error

    async def _recreate(self, call: Call, replaced: Replaced, work: _Round) -> None:
        """No old instance runs beside a new one."""
        rows = list(work.waiting)
        work.waiting.clear()
        guid = replaced.desired.definition.process_guid
        stopped = await self.placement.removal.stop_all(call, replaced.beside)
        restarted: list[Restarted] = []
        refused: list[InstanceOutcome] = []
        for row in rows:
            try:
                found = await self.placement.lifecycle.restart(call, guid, row.index, replaced.desired.revision)
            except DiegoError as error:  # somebody stopped it, or the database was lost: others have begun by now
                refused.append(InstanceOutcome(row, _framed(call, error), row.cell_id, stopping=True))
            else:
                restarted.append(found)
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(self.placement.removal.stop_before(call, pair)) for pair in restarted]
        stopped += [evolve(end.result(), row=pair.after) for end, pair in zip(ends, restarted, strict=True)]
        failed = [evolve(outcome, stopping=False) for outcome in stopped if outcome.error is not None]
        failed += refused
        work.outcomes += failed or await self.placement.place_all(call, replaced.desired, [p.after for p in restarted])

    async def _failed(self, call: Call, desired: DesiredLRP, outcomes: Sequence[InstanceOutcome]) -> DiegoError:
        """The error to raise, once each failed instance is where its failure leaves it."""
        about = _count(desired, outcomes)
        guid = desired.definition.process_guid
        message = f"replace {guid}: {about['new']} of {len(outcomes)} instances are new, {about['old']} old"
        return await self.placement.stored(call, tell(call, ReplaceFailed, message, outcomes, about))


def _framed(call: Call, error: DiegoError) -> DiegoError:
    """What our own rules refused gets the frame of this hop; what came from below has one."""
    return error if error.frame is not None else call.framed(error)


def _served(replaced: Replaced) -> list[ActualLRP]:
    """Rows beside instances that run with the new definition already: nobody needs them any more."""
    current = {row.index for row in replaced.current}
    return [row for row in replaced.beside if row.index in current]


def _open(replaced: Replaced) -> list[ActualLRP]:
    """Rows whose containers are to get other egress rules; none where they stay."""
    same = replaced.before.definition.egress_rules == replaced.desired.definition.egress_rules
    return [] if same else [row for row in replaced.current if row.cell_id is not None]


def _count(desired: DesiredLRP, outcomes: Sequence[InstanceOutcome]) -> dict[str, Any]:
    """How many instances serve with the new definition, and how many with an old one."""
    serving = [each.row.revision == desired.revision for each in outcomes if _serves(each)]
    recalled = sum(1 for each in outcomes if each.error is not None and each.old is not None)
    return {"revision": desired.revision, "new": serving.count(True), "old": serving.count(False) + recalled}


def _serves(outcome: InstanceOutcome) -> bool:
    return outcome.row.state is ActualLRPState.RUNNING and (outcome.error is None or outcome.stopping)
