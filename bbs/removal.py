"""How instances end because somebody asked: stop the container on its cell, then remove the row, then answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from attrs import define, evolve

from bbs.cell_pool import CellPool
from bbs.lifecycle import Lifecycle, Restarted
from bbs.outcome import InstanceOutcome, not_started_unless_said
from bbs.store.desires import everything_of
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call, result_within
from diego_py.errors import DesiredLRPNotFound, DiegoError, HopUnreachable, Outcome
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.workload import ModificationTag

UNDO_S = 5.0
"""How long a delete waits for cells that were just making what it removed: they are refused its rows, and undo it."""
MOVES_MAX = 3
"""How often a delete looks for rows that moved on while it stopped them: crashed, or offered to another cell."""


@define
class Removal:
    """Stops and removes instances."""

    store: Store
    lifecycle: Lifecycle
    pool: CellPool
    route_grace_s: float = 0.0
    """How long what has ports serves on after its row says that no request may come to it."""

    async def delete(
        self, call: Call, process_guid: ProcessGuid, only: ModificationTag | None = None
    ) -> list[InstanceOutcome]:
        """Remove a desired LRP and all its instances; with `only`, if it is still that revision.

        Also finishes a delete that was cut short: then the desired row is gone and instances are still there. Raises
        DesiredLRPNotFound when there is neither, PreconditionFailed when it is another revision.
        """
        try:
            with not_started_unless_said():
                rows: Sequence[ActualLRP] = await self.lifecycle.undesire(call, process_guid, None, only)
        except DesiredLRPNotFound:
            rows = await self._undesired(call, process_guid)
            if not rows:
                raise
        outcomes = {_name(outcome.row): outcome for outcome in await self.stop_all(call, rows)}
        for _ in range(MOVES_MAX):
            if any(outcome.last for outcome in outcomes.values()):
                break  # Of what is not desired nothing can come about any more.
            left = await self._undesired(call, process_guid)
            moved_on = [row for row in left if _name(row) not in outcomes or outcomes[_name(row)].error is None]
            if not moved_on:
                break
            outcomes |= {_name(outcome.row): outcome for outcome in await self.stop_all(call, moved_on)}
        await self._begun_undone(process_guid)
        return list(outcomes.values())

    async def _begun_undone(self, process_guid: ProcessGuid) -> None:
        """Give cells time to undo what they had begun with for rows that they will not get any more.

        Nothing of the user's runs there, but whoever looks after our answer shall find nothing at all.
        """
        with suppress(TimeoutError):
            await result_within(UNDO_S, self.pool.cells.released(process_guid))

    async def _undesired(self, call: Call, process_guid: ProcessGuid) -> Sequence[ActualLRP]:
        """What there is of an LRP that is not desired any more; none if it is desired again by now.

        Rows first: those of an LRP that is desired again after that are seen as such. Nearly always there are none.
        """

        async def look(tx: Transaction) -> Sequence[ActualLRP]:
            rows = await everything_of(tx, process_guid)
            if rows and await tx.desired_lrps.get(process_guid) is not None:
                return ()
            return rows

        return await self.store.read(call, "list_instances", look)

    async def stop_all(self, call: Call, rows: Sequence[ActualLRP]) -> list[InstanceOutcome]:
        """Stop and remove instances side by side; each returns an outcome and never raises."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.stop_and_remove(call, row)) for row in rows]
        return [task.result() for task in tasks]

    async def abandoned(self, call: Call, row: ActualLRP) -> Sequence[ActualLRP]:
        """What cells may have yet of the index of a row, although no row names it."""

        async def look(tx: Transaction) -> Sequence[ActualLRP]:
            return await tx.abandoned.list_of(row.process_guid, row.index)

        return [found for found in await self.store.read(call, "list_abandoned", look) if found.index == row.index]

    async def stop_before(self, call: Call, restarted: Restarted) -> InstanceOutcome:
        """Stop all that ran at an index before; the first failure speaks for it."""
        outcomes = await self.stop_all(call, restarted.ends)
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        return failed[0] if failed else InstanceOutcome(restarted.before, stopping=True)

    async def retire(self, call: Call, rows: Sequence[ActualLRP]) -> list[InstanceOutcome]:
        """The same for what serves beside its replacement: routers learn first that nothing goes to it any more."""
        with_ports = [row for row in rows if row.net_info is not None and row.net_info.ports]
        asked = sorted(with_ports, key=lambda row: (row.index, row.presence))

        async def close(tx: Transaction) -> None:
            for row in asked:
                await tx.actual_lrps.close(row)

        if asked:
            try:
                await self.store.run(call, "close_instances", close)
            except DiegoError as error:
                return [InstanceOutcome(row, error, row.cell_id, stopping=True) for row in rows]
            await call.clock.sleep(self.route_grace_s)
        return await self.stop_all(call, rows)

    async def stop_container(self, call: Call, row: ActualLRP) -> InstanceOutcome:
        """Stop the container that the row names, if it names one, and wait until the cell says that it is gone.

        A cell that cannot be reached leaves the outcome unknown.
        """
        if row.cell_id is None or row.instance_guid is None:
            return InstanceOutcome(row, stopping=True)
        try:
            await self.pool.stop(call, row.cell_id, row.instance_guid)
        except DiegoError as error:
            return InstanceOutcome(row, error, row.cell_id, stopping=True)
        return InstanceOutcome(row, stopping=True)

    async def stop_and_remove(self, call: Call, row: ActualLRP) -> InstanceOutcome:
        """Stop an instance, then remove its row.

        That of a cell which cannot be reached is removed all the same, and remembered: should it come back, its report
        is answered with the order to stop, and who asks again before is told the same.
        """
        outcome = await self.stop_container(call, row)
        unreachable = outcome.error is not None and isinstance(outcome.error.root, HopUnreachable)
        if outcome.error is not None and not unreachable:
            return outcome
        if unreachable and outcome.error is not None:
            outcome.error.outcome = Outcome.UNKNOWN
        try:
            if unreachable:
                await self.lifecycle.abandon(call, row)
            else:
                key = (row.process_guid, row.index, row.instance_guid)
                removed = await self.lifecycle.remove(call, *key, row.presence)
                return evolve(outcome, last=removed.last)
        except DiegoError as error:
            if row.cell_id is not None and not unreachable:
                error.outcome = Outcome.PARTIAL
            return evolve(outcome, error=outcome.error or error)
        return outcome


def _name(row: ActualLRP) -> str:
    """One instance, or an index for which none was offered."""
    return row.instance_guid or f"{row.index} {row.presence}"
