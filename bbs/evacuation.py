"""How a cell is emptied, top to bottom: it takes no new work, and each instance is replaced elsewhere before it stops.

An instance that finds no place serves on until one is found. When the time is over whoever asked is told what is left
and why; as long as the cell drains, convergence goes on moving it, also when whoever asked died. Tasks are never moved:
their ends are waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define, evolve, field, frozen

from bbs.cell_pool import ASK_TIMEOUT_MS, CellPool
from bbs.outcome import InstanceOutcome, tell
from bbs.replacement import Replacement
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import (
    DiegoError,
    EvacuationFailed,
    IllegalTransition,
    Outcome,
    PlacementFailed,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP, UpdateStrategy
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid

EVACUATION_TIMEOUT_S = 600
"""Diego's."""
EVACUATION_TIMEOUT_S_MAX = 3_000
MOVES_MAX = 10
"""Instances that are moved at the same time."""
POLL_S = 0.2
"""Between two looks at what is left on the cell."""
ANSWER_S = 10.0
"""Kept to put in order what could not be moved, and to say it."""


@frozen
class Evacuated:
    """A cell that has nothing any more."""

    cell_id: CellId
    moved: int


@define
class _Round:
    """What was done so far."""

    tried: dict[InstanceGuid, InstanceOutcome] = field(factory=dict)
    """By the old instance: the first attempt to replace it. Later ones are convergence's."""
    served: set[tuple[ProcessGuid, int]] = field(factory=set)
    """What ran on the cell and is desired."""


@define
class Evacuation:
    """Empties cells."""

    store: Store
    pool: CellPool
    replacement: Replacement

    async def evacuate(self, call: Call, cell_id: CellId, timeout_s: float) -> Evacuated:
        """Return when the cell has nothing any more. Raises EvacuationFailed with each instance that is left, and why.

        The cell stays marked as draining, whatever comes out of it.
        """
        await self.pool.drain(call, cell_id, True)
        until_s = call.clock.monotonic() + min(timeout_s, call.remaining_ms() / 1000 - ANSWER_S)
        work = _Round()
        while True:
            rows = await self.store.read(call, "list_instances", lambda tx: tx.actual_lrps.list_of_cell(cell_id))
            left = None if rows else await self._left_there(call, cell_id)
            if not rows and left is None:
                return Evacuated(cell_id, await self._moved(call, cell_id, work))
            if call.clock.monotonic() >= until_s:
                raise await self._failed(call, cell_id, rows, work, left)
            await self._look(call, rows, work)
            await call.clock.sleep(POLL_S)

    async def _look(self, call: Call, rows: Sequence[ActualLRP], work: _Round) -> None:
        """One pass: begin to move what was not moved yet, and end what has its replacement.

        Raises the first failure of the store, once all are done; convergence goes on then.
        """
        slots = asyncio.Semaphore(MOVES_MAX)
        failed: list[DiegoError] = []
        desired = {guid: await self._desired(call, guid) for guid in {row.process_guid for row in rows}}
        waiting = _one_of_each([row for row in rows if row.instance_guid not in work.tried], desired)

        async def bounded(row: ActualLRP, lrp: DesiredLRP | None) -> None:
            async with slots:
                try:
                    await self._look_at(call, row, lrp, work)
                except DiegoError as failure:
                    failed.append(failure)

        async with asyncio.TaskGroup() as group:
            for row in [*waiting, *(row for row in rows if row.instance_guid in work.tried)]:
                group.create_task(bounded(row, desired[row.process_guid]))
        if failed:
            raise failed[0]

    async def _look_at(self, call: Call, row: ActualLRP, desired: DesiredLRP | None, work: _Round) -> None:
        assert row.instance_guid is not None
        if row.state is ActualLRPState.RUNNING:
            work.served.add((row.process_guid, row.index))
        removal = self.replacement.placement.removal
        if desired is None or row.index >= desired.definition.instances:
            await removal.stop_and_remove(call, row)
        elif row.presence is not Presence.ORDINARY:
            await self._settle(call, row, work)
        elif row.state is not ActualLRPState.RUNNING or row.instance_guid in work.tried:
            return  # it is starting or ends, which is soon over; or somebody recalled it, and has his reasons
        elif desired.definition.update_strategy is UpdateStrategy.RECREATE:
            await self._recreate(call, row, desired, work)
        else:
            await self._move(call, row, desired, work)

    async def _move(self, call: Call, row: ActualLRP, desired: DesiredLRP, work: _Round) -> None:
        """The new one runs elsewhere before this one stops. If it does not come to run, this one goes on serving."""
        assert row.instance_guid is not None
        placement = self.replacement.placement
        try:
            pair = await placement.succession.displace(call, row, desired.revision)
        except IllegalTransition:
            return  # it changed since it was read: look again
        outcome = await placement.place_one(call, desired, pair.new, None)
        await self._note(call, row.instance_guid, evolve(outcome, old=pair.old), work)
        if outcome.error is None:
            await self._settle(call, pair.old, work)

    async def _recreate(self, call: Call, row: ActualLRP, desired: DesiredLRP, work: _Round) -> None:
        """This one stops before the new one starts, and only while all others of its LRP run."""
        assert row.instance_guid is not None
        guid, placement = row.process_guid, self.replacement.placement
        others = await self.store.read(call, "list_instances", lambda tx: tx.actual_lrps.list_of(guid))
        if any(other.state is not ActualLRPState.RUNNING for other in others):
            return
        try:
            restarted = await placement.succession.recreate(call, row, desired.revision)
        except IllegalTransition:
            return  # it changed since it was read: look again
        outcome = await placement.removal.stop_before(call, restarted)
        if outcome.error is None:
            outcome = await placement.place_one(call, desired, restarted.after, None)
        await self._note(call, row.instance_guid, outcome, work)

    async def _note(self, call: Call, old: InstanceGuid, outcome: InstanceOutcome, work: _Round) -> None:
        """Keep what came of it. A new row that failed is put off with its document: convergence tries it again."""
        work.tried[old] = outcome
        if outcome.error is not None:
            what = f"move {outcome.row.process_guid}/{outcome.row.index}"
            told = tell(call, EvacuationFailed, what, [evolve(outcome, old=None)])
            await self.replacement.placement.stored(call, told)

    async def _settle(self, call: Call, old: ActualLRP, work: _Round) -> None:
        """End one that serves beside another one, once that one is ready."""
        assert old.instance_guid is not None
        key = (old.process_guid, old.index)
        new = await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(*key))
        if new is None or new.state is not ActualLRPState.RUNNING or not new.routable:
            return
        outcome = await self.replacement.ended(call, InstanceOutcome(new), [old])
        if outcome.error is not None:
            work.tried[old.instance_guid] = evolve(outcome, old=None)

    async def _left_there(self, call: Call, cell_id: CellId) -> DiegoError | None:
        """Why the cell cannot be said to be empty although no row names it; None if it says so itself.

        One whose presence ran out has nothing that anybody could wait for; one that only does not answer may.
        """
        try:
            state = await self.pool.state(call.with_budget(min(ASK_TIMEOUT_MS, max(1.0, call.remaining_ms()))), cell_id)
        except DiegoError as error:
            if not await self.pool.is_present(call, cell_id):
                return None
            error.outcome = Outcome.UNKNOWN
            return error
        if not state.instances and not state.tasks:
            return None
        return EvacuationFailed("tasks of it have not ended, or containers are not gone", outcome=Outcome.PARTIAL)

    async def _moved(self, call: Call, cell_id: CellId, work: _Round) -> int:
        """How many run elsewhere now, whoever moved them: convergence empties cells, too."""
        guids = sorted({guid for guid, _ in work.served})

        async def read(tx: Transaction) -> list[ActualLRP]:
            return [row for guid in guids for row in await tx.actual_lrps.list_of(guid)]

        elsewhere = [
            row
            for row in await self.store.read(call, "list_instances", read)
            if row.state is ActualLRPState.RUNNING and row.presence is Presence.ORDINARY and row.cell_id != cell_id
        ]
        return len({(row.process_guid, row.index) for row in elsewhere} & work.served)

    async def _failed(
        self, call: Call, cell_id: CellId, rows: Sequence[ActualLRP], work: _Round, there: DiegoError | None
    ) -> DiegoError:
        """The error to raise, once what could not be moved is the only one of its index again."""
        call = call.with_budget(max(ANSWER_S * 1000, call.remaining_ms()))
        left = [self._left(call, row, work) for row in rows]
        moved = await self._moved(call, cell_id, work)
        about = {"cell_id": cell_id, "moved": moved, "left": len(left)}
        message = f"empty {cell_id}: {moved} instances moved, {len(left)} left"
        if there is not None:
            if isinstance(there, EvacuationFailed):
                return EvacuationFailed(f"{message}; {there.message}", outcome=there.outcome)
            unsure = call.framed(EvacuationFailed(f"{message}; it may not be empty", outcome=there.outcome))
            unsure.__cause__ = there
            return unsure
        told_all = tell(call, EvacuationFailed, message, left, about, partial=moved > 0)
        return await self.replacement.placement.stored(call, told_all)

    def _left(self, call: Call, row: ActualLRP, work: _Round) -> InstanceOutcome:
        """Why one is still there."""
        known = None if row.instance_guid is None else work.tried.get(row.instance_guid)
        if known is not None and known.error is not None:
            return known
        told = f"replace {row.process_guid}/{row.index}: {_state(row)} until the time was over"
        error = call.framed(PlacementFailed(told, outcome=Outcome.PARTIAL))
        if row.presence is Presence.ORDINARY:
            return InstanceOutcome(row, error, row.cell_id, stopping=True)
        return InstanceOutcome(row if known is None else known.row, error, row.cell_id, old=row)

    async def _desired(self, call: Call, guid: str) -> DesiredLRP | None:
        return await self.store.read(call, "get_desired_lrp", lambda tx: tx.desired_lrps.get(guid))


def _one_of_each(rows: Sequence[ActualLRP], desired: dict[ProcessGuid, DesiredLRP | None]) -> list[ActualLRP]:
    """All rows, but only one of each LRP whose instances may not be down together."""
    chosen: dict[tuple[str, int], ActualLRP] = {}
    for row in rows:
        lrp = desired[row.process_guid]
        together = lrp is None or lrp.definition.update_strategy is not UpdateStrategy.RECREATE
        chosen.setdefault((row.process_guid, row.index if together else -1), row)
    return list(chosen.values())


def _state(row: ActualLRP) -> str:
    return "its replacement did not run" if row.presence is not Presence.ORDINARY else f"it was {row.state}"
