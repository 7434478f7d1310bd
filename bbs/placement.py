"""The cascade of the BBS, top to bottom: store what is desired, auction each instance, start it on its cell, answer.

Every method returns when what was asked is true, or raises the error whose document was stored. A failed instance is
stored by the same function that answers it. What stops instances is in removal.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from attrs import define, evolve, field, frozen

from bbs.auction.cell_view import Assignment
from bbs.auction.reasons import Explanation
from bbs.cell_pool import CellPool, demand_of
from bbs.convergence.backoff import after_failure_s
from bbs.egress import LiveEgress
from bbs.known_cells import Promise
from bbs.lifecycle import Lifecycle, Updated
from bbs.outcome import (
    Failure,
    InstanceOutcome,
    Told,
    given_up,
    instant,
    is_crash,
    is_gone,
    not_started_unless_said,
    outcome_of_all,
    tell,
)
from bbs.removal import Removal
from bbs.store.attempts import Start
from bbs.succession import Succession
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import (
    DeleteFailed,
    DesiredLRPNotFound,
    DesireFailed,
    DiegoError,
    Outcome,
    PlacementFailed,
    PreconditionFailed,
    RepairFailed,
    RestartFailed,
    StopFailed,
    StoppedWhileStarting,
    UpdateFailed,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.identifiers import CellId, ProcessGuid
from diego_py.models.work import Work

CELLS_TRIED_MAX = 3
"""Cells tried for one instance within one request."""
PLACEMENTS_MAX = 4096
"""Instances that one BBS starts at the same time: the more, the more of them go to a cell in one request."""
ROLLBACK_BUDGET_MS = 60_000.0
SETTLE_BUDGET_MS = 5_000.0
"""Time to store a failure, also when the request's own time is spent."""


@frozen
class Placed:
    """The desired LRP and its instances, all of them as they were asked to be."""

    desired: DesiredLRP
    actuals: tuple[ActualLRP, ...]


@define
class Placement:
    """Starts instances. Decisions come from bbs.auction; every change of a row goes through the lifecycle."""

    id: str
    lifecycle: Lifecycle
    succession: Succession
    pool: CellPool
    removal: Removal
    egress: LiveEgress
    log: structlog.stdlib.BoundLogger
    new_failure_id: Callable[[], str]
    jitter: Callable[[], float]
    """A random number in [-1, 1]."""
    _slots: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(PLACEMENTS_MAX), init=False)

    async def desire(self, call: Call, desired: DesiredLRP, rows: Sequence[ActualLRP], roll_back: bool) -> Placed:
        """Start the stored rows of a new LRP. On failure the LRP stays and convergence goes on, or all is undone."""
        guid = desired.definition.process_guid
        outcomes = await self.place_all(call, desired, rows)
        if not any(outcome.error for outcome in outcomes):
            return Placed(desired, tuple(outcome.row for outcome in outcomes))
        told = tell(call, DesireFailed, f"desire {guid}", outcomes)
        if roll_back:
            raise await self._rolled_back(call, desired, told)
        raise await self.stored(call, told)

    async def resume(self, call: Call, desired: DesiredLRP, rows: Sequence[ActualLRP], roll_back: bool) -> Placed:
        """Go on with a `desire` whose process died: what runs is kept, the rest is offered and placed again."""
        running, waiting = await self._taken_up(call, desired, rows, DesireFailed)
        placed = await self.desire(call, desired, waiting, roll_back)
        return Placed(desired, (*running, *placed.actuals))

    async def resume_update(self, call: Call, updated: Updated, reopen: bool) -> Placed:
        """Go on with an `update` whose process died, likewise. Which instances it had added nobody knows any more."""
        _, waiting = await self._taken_up(call, updated.desired, updated.staying, UpdateFailed)
        return await self.update(call, evolve(updated, added=(*waiting, *updated.added)), reopen)

    async def _taken_up(
        self, call: Call, desired: DesiredLRP, rows: Sequence[ActualLRP], fails_as: type[DiegoError]
    ) -> tuple[list[ActualLRP], list[ActualLRP]]:
        """What runs of what another process left, and the rest, offered anew."""
        try:
            with call.hop("bbs", self.id, "take_up_instances", fails_as) as here:
                taken = [
                    await self.lifecycle.take_up(here, row, desired.revision)
                    for row in rows
                    if row.presence is Presence.ORDINARY  # what serves beside one goes on until that one runs
                ]
        except DiegoError as error:
            error.outcome = Outcome.UNKNOWN  # what the other process began may run
            raise
        running = [row for row in taken if row.state is ActualLRPState.RUNNING]
        return running, [row for row in taken if row.state is not ActualLRPState.RUNNING]

    async def update(self, call: Call, updated: Updated, reopen: bool) -> Placed:
        """Start the added instances, stop the surplus ones, and with `reopen` change the egress rules of the others."""
        desired = updated.desired
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self.place_all(call, desired, updated.added))
            stopping = group.create_task(self.removal.stop_all(call, updated.surplus))
            changing = group.create_task(self.egress.apply(call, desired, updated.staying if reopen else ()))
        outcomes = [*starting.result(), *stopping.result(), *changing.result()]
        if any(outcome.error for outcome in outcomes):
            told = tell(call, UpdateFailed, f"update {desired.definition.process_guid}", outcomes)
            raise await self.stored(call, told)
        return Placed(desired, tuple(outcome.row for outcome in starting.result()))

    async def restart(self, call: Call, desired: DesiredLRP, index: int) -> ActualLRP:
        """Stop one instance, then start it again, possibly on another cell."""
        guid = desired.definition.process_guid
        with not_started_unless_said():
            restarted = await self.lifecycle.restart(call, guid, index, desired.revision)
        stopped = await self.removal.stop_before(call, restarted)
        if stopped.error is None:
            outcome = await self.place_one(call, desired, restarted.after, None)
        else:
            outcome = evolve(stopped, row=restarted.after)
        outcomes = [outcome]
        if outcome.error is None:
            outcomes += await self._others_stopped(call, outcome.row, restarted.after)
        if any(each.error for each in outcomes):
            raise await self.stored(call, tell(call, RestartFailed, f"restart {guid}/{index}", outcomes))
        return outcome.row

    async def _others_stopped(self, call: Call, row: ActualLRP, offered: ActualLRP) -> list[InstanceOutcome]:
        """Stop the attempts before the one that runs: a cell whose answer was lost may run one, too. Never raises."""
        if row.instance_guid == offered.instance_guid:
            return []
        try:
            others = await self.removal.abandoned(call, row)
        except DiegoError as error:
            return [InstanceOutcome(row, error, row.cell_id, stopping=True)]
        return await self.removal.stop_all(call, [each for each in others if each.instance_guid != row.instance_guid])

    async def stop(self, call: Call, row: ActualLRP) -> None:
        """Stop one instance and remove its row; convergence makes a new one as long as it is desired."""
        rows = [row, *await self.removal.abandoned(call, row)]
        await self._stopped(call, row, await self.removal.stop_all(call, rows))

    async def retire(self, call: Call, row: ActualLRP) -> None:
        """The same for one that serves beside its replacement, once routers know that nothing goes to it any more."""
        await self._stopped(call, row, await self.removal.retire(call, [row]))

    async def _stopped(self, call: Call, row: ActualLRP, outcomes: Sequence[InstanceOutcome]) -> None:
        if any(outcome.error for outcome in outcomes):
            told = tell(call, StopFailed, f"stop {row.process_guid}/{row.index}", outcomes)
            raise await self.stored(call, told)

    async def delete(self, call: Call, process_guid: ProcessGuid) -> int:
        """Stop all instances of an LRP and forget it. Returns how many were stopped."""
        outcomes = await self.removal.delete(call, process_guid)
        if any(outcome.error for outcome in outcomes):
            told = tell(call, DeleteFailed, f"delete {process_guid}", outcomes)
            raise await self.stored(call, told)
        return len(outcomes)

    async def repair(self, call: Call, desired: DesiredLRP, row: ActualLRP, epoch: int) -> ActualLRP:
        """Place an UNCLAIMED row again, for the convergence leader of `epoch`."""
        with call.hop("bbs", self.id, "repair_instance", RepairFailed) as call:
            row = await self.lifecycle.offer(call, row, epoch, desired.revision)
            return await self._repaired(call, desired, row)

    async def repair_offered(self, call: Call, desired: DesiredLRP, row: ActualLRP) -> ActualLRP:
        """The same with a row that its leader has offered already, and nobody else has tried."""
        with call.hop("bbs", self.id, "repair_instance", RepairFailed) as call:
            return await self._repaired(call, desired, row)

    async def _repaired(self, call: Call, desired: DesiredLRP, row: ActualLRP) -> ActualLRP:
        outcome = await self.place_one(call, desired, row, None)
        if outcome.error is None:
            return outcome.row
        told = tell(call, RepairFailed, f"repair {row.process_guid}/{row.index}", [outcome])
        raise await self.stored(call, told)

    async def dry_run(
        self, call: Call, definition: DesiredLRPDefinition, count: int, explained: int
    ) -> list[tuple[Assignment, Explanation | None]]:
        """What the auction would do now with so many instances; nothing is reserved or stored."""
        await self.pool.refresh(call)
        demands = [demand_of(definition, index) for index in range(count)]
        return self.pool.cells.rehearse(demands, explained)

    def numbered(self, document: Problem) -> Problem:
        """The document with the place where it can be read again."""
        return evolve(document, instance=f"/v1/failures/{self.new_failure_id()}")

    async def place_all(self, call: Call, desired: DesiredLRP, rows: Sequence[ActualLRP]) -> list[InstanceOutcome]:
        """Auction all rows in one batch, then start them side by side; each returns an outcome and never raises."""
        if not rows:
            return []
        demands = [demand_of(desired.definition, row.index) for row in rows]
        with self.pool.cells.promised(demands) as promises:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.place_one(call, desired, row, promise))
                    for row, promise in zip(rows, promises, strict=True)
                ]
        return [task.result() for task in tasks]

    async def place_one(
        self, call: Call, desired: DesiredLRP, row: ActualLRP, first: Promise | None
    ) -> InstanceOutcome:
        """Try up to three cells, the best first; each failed attempt stays as a frame in the chain."""
        name = f"place {row.process_guid}/{row.index}"
        failed: list[tuple[CellId, DiegoError]] = []
        try:
            async with self._slots:
                with call.hop("auction", self.id, name, PlacementFailed) as call:
                    while True:
                        with call.step("auction"):
                            cell_id, promise = await self._choose(call, desired, row, first, failed)
                        with self.pool.cells.held(promise):
                            if failed:
                                gone = is_gone(failed[-1][1])
                                row = await self.lifecycle.offer(call, row, revision=desired.revision, gone=gone)
                            try:
                                row = await self._start_on(call, desired, row, promise, attempt=len(failed) + 1)
                                return InstanceOutcome(row, cell_id=cell_id)
                            except DiegoError as error:
                                cause = error
                                failed.append((cell_id, error))
                        if not cause.root.elsewhere or len(failed) >= CELLS_TRIED_MAX:
                            raise self.pool.spent(name, promise.demand, failed, won=cell_id) from cause
                        first = None
        except DiegoError as error:
            if not failed:
                return InstanceOutcome(row, error)
            cell_id, last = failed[-1]
            error.outcome = outcome_of_all(error, [each for _, each in failed])
            return InstanceOutcome(row, error, cell_id, gone=is_gone(last))

    async def _choose(
        self,
        call: Call,
        desired: DesiredLRP,
        row: ActualLRP,
        first: Promise | None,
        failed: Sequence[tuple[CellId, DiegoError]],
    ) -> tuple[CellId, Promise]:
        """The next cell to try, with room held there. Before a refusal cells are asked, so that it is true now.

        When every cell was ruled out without being tried, that is the failure. Once one was tried, what failed there
        is: it names the problem, and `placement` still says why no other cell came into question.
        """
        if first is not None and first.cell_id is not None:
            return first.cell_id, first
        demand = demand_of(desired.definition, row.index)
        promise = await self.pool.best(call, demand, frozenset(cell_id for cell_id, _ in failed))
        if promise.cell_id is not None:
            return promise.cell_id, promise
        if failed:
            raise self.pool.spent(f"place {row.process_guid}/{row.index}", demand, failed) from failed[-1][1]
        raise self.pool.refusal(demand)

    async def _start_on(
        self,
        call: Call,
        desired: DesiredLRP,
        row: ActualLRP,
        promise: Promise,
        attempt: int,
    ) -> ActualLRP:
        """Send the work to the cell, which claims the row itself, and record that it runs."""
        if row.instance_guid is None:
            raise ValueError("only a row that was offered can be started")
        work = Work(
            process_guid=row.process_guid,
            index=row.index,
            domain=row.domain,
            instance_guid=row.instance_guid,
            definition=desired.definition,
        )
        cell_id, started = await self.pool.run(call, promise, work, attempt)
        zone = self.pool.zone_of(cell_id)
        try:
            with call.hop("bbs", self.id, "start_instance", PlacementFailed) as call:
                who = (row.process_guid, row.index, row.instance_guid, cell_id)
                return await self.lifecycle.start(call, Start(*who, started.net_info, zone, started.routable))
        except DiegoError as unrecorded:
            # The cell's next report records it, or is answered with the order to stop what nobody wants any more.
            unrecorded.outcome = Outcome.RUNNING
            raise

    async def stored(self, call: Call, told: Told) -> DiegoError:
        """Store each instance's document with its row, and return the error that answers with the first one.

        The row of one that is being stopped is left alone: whoever stops it removes it.
        """
        for failure in told.failures:
            document = self.numbered(failure.document)
            try:
                if failure.outcome.stopping or isinstance(failure.error.root, StoppedWhileStarting):
                    await self.lifecycle.record_failure(call, document, "stop", failure.outcome.row)
                else:
                    document = await self._settle(call, failure, document)
            except DiegoError as unstored:
                self.log.error("failure_not_stored", subject=document.subject, code=unstored.root.code)
                document = evolve(document, instance=None)
            told.error.problem = told.error.problem or document
        return told.error

    async def _settle(self, call: Call, failure: Failure, document: Problem) -> Problem:
        """Bring the row to where the failure leaves it: CRASHED for the app's own, else UNCLAIMED.

        A replacement leaves no trace but the document: the old instance is the only one again.
        """
        row, cell_id, old = failure.outcome.row, failure.outcome.cell_id, failure.outcome.old
        call = call.with_budget(max(SETTLE_BUDGET_MS, call.remaining_ms()))
        gone = failure.outcome.gone
        if old is not None:
            await self.succession.recall(call, old, row.instance_guid, document, gone=gone)
            return document
        if is_crash(failure.error) and cell_id is not None and row.instance_guid is not None:
            crash_count = row.crash_count + 1
            wait_s = self.lifecycle.crash_policy.wait_s(crash_count)
            if wait_s is None:
                document = evolve(document, next=(given_up(row, crash_count), *document.next))
            else:
                document = _next_at(document, call, wait_s)
            key = (row.process_guid, row.index, row.instance_guid, cell_id)
            await self.lifecycle.crash(call, *key, document, gone)
            return document
        wait_s = after_failure_s(row.attempts + 1, failure.error.root.fault, self.jitter())
        document = _next_at(document, call, wait_s)
        await self.lifecycle.fail(call, row, document, call.clock.now() + timedelta(seconds=wait_s), gone)
        return document

    async def _rolled_back(self, call: Call, desired: DesiredLRP, told: Told) -> DiegoError:
        """Undo everything of a new LRP, and keep only the story.

        What somebody else has changed since, or made anew, is no longer ours to undo: then it stays desired.
        """
        guid: ProcessGuid = desired.definition.process_guid
        call = call.with_budget(ROLLBACK_BUDGET_MS)
        leftovers: Sequence[InstanceOutcome] = ()
        try:
            leftovers = await self.removal.delete(call, guid, desired.modification_tag)
        except PreconditionFailed:
            return await self.stored(call, told)
        except DesiredLRPNotFound:
            pass  # somebody else has deleted it
        except DiegoError as undone:
            self.log.error("rollback_failed", process_guid=guid, code=undone.root.code, detail=undone.root.message)
            return await self.stored(call, told.evolved(outcome=str(Outcome.UNKNOWN)))
        outcome = Outcome.PARTIAL if any(left.error for left in leftovers) else Outcome.ROLLED_BACK
        for failure in told.failures:
            document = evolve(self.numbered(failure.document), outcome=str(outcome))
            await self.lifecycle.record_failure(call, document, "place", failure.outcome.row)
            told.error.problem = told.error.problem or document
        return told.error


def _next_at(document: Problem, call: Call, wait_s: float) -> Problem:
    """The document with the time of the next attempt."""
    return evolve(document, next_attempt_at=instant(call.clock.now() + timedelta(seconds=wait_s)))
