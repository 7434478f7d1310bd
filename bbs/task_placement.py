"""The cascade of a task in the BBS, top to bottom: auction it, start it on a cell, answer; or settle what failed.

A task's process runs at most once. Every attempt has an instance_guid of its own, and the row is the judge: a cell may
begin only after it claimed the row under that name, and a task is offered under another name only when nobody claimed
the last one, or its cell said that nothing of it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from attrs import define, evolve, field, frozen

from bbs.auction.cell_view import Demand
from bbs.cell_pool import CellPool, demand_of_task
from bbs.convergence.backoff import after_failure_s
from bbs.known_cells import Promise
from bbs.placement import CELLS_TRIED_MAX, ROLLBACK_BUDGET_MS, SETTLE_BUDGET_MS
from bbs.store.failures import PATH
from bbs.store.task_moves import is_over, subject
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_outcome import outcome_of, tell, verdict_of
from bbs.task_status import TaskStatus
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import (
    CancelFailed,
    DiegoError,
    HopUnreachable,
    Outcome,
    PlacementFailed,
    TaskCancelled,
)
from diego_py.models.identifiers import CellId, TaskGuid
from diego_py.models.task import Task, TaskState
from diego_py.models.task_work import TaskWork

PLACEMENTS_MAX = 256
"""Tasks that one BBS starts at the same time: each is a request to its cell."""
CANCELLED = "the task was cancelled"
"""Diego's words; also how a task that was cancelled before is known."""


@frozen
class Attempted:
    """A task after the cascade: its row as last seen, and the error if it was not brought to run."""

    task: Task
    error: DiegoError | None = None


@define
class TaskPlacement:
    """Starts and cancels tasks. Decisions come from bbs.auction and bbs.task_outcome; rows change by the lifecycle."""

    id: str
    lifecycle: TaskLifecycle
    pool: CellPool
    completed: Callable[[Task], None]
    """Told of each task that comes to its end here."""
    log: structlog.stdlib.BoundLogger
    new_failure_id: Callable[[], str]
    jitter: Callable[[], float]
    """A random number in [-1, 1]."""
    _slots: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(PLACEMENTS_MAX), init=False)

    async def start(self, call: Call, task: Task, roll_back: bool) -> Task:
        """Start a stored task; returns it when a process of it runs, or has ended already.

        On failure it stays and convergence goes on, unless nothing can help it, or it is removed again.
        """
        attempted = await self._place(call, task)
        if attempted.error is None:
            return attempted.task
        raise await self._settled(call, attempted.task, attempted.error, roll_back)

    async def resume(self, call: Call, task: Task, roll_back: bool) -> Task:
        """Go on with a `start` whose process died: what a cell claimed is its own, the rest is offered anew."""
        if task.state is not TaskState.PENDING:
            return task
        return await self.start(call, await self.lifecycle.offer(call, TaskStatus.of(task)), roll_back)

    async def repair(self, call: Call, seen: TaskStatus, epoch: int) -> Task:
        """Place a PENDING task again, for the convergence leader of `epoch`."""
        return await self.start(call, await self.lifecycle.offer(call, seen, epoch), roll_back=False)

    async def cancel(self, call: Call, task_guid: TaskGuid) -> Task:
        """Complete a task as cancelled and stop it; returns when its process is gone.

        The row first, so that no cell begins with it any more. A cell that cannot be reached is told by the answer to
        its next report. Again for a task that was cancelled before, so that it can be shown to be gone.
        """
        task = await self.cancel_row(call, task_guid)
        await self.stop_cancelled(call, task)
        return task

    async def cancel_row(self, call: Call, task_guid: TaskGuid) -> Task:
        """Complete a task as cancelled; its process may still run. Raises IllegalTransition, TaskNotFound."""
        problem = self._cancelled(call, await self.lifecycle.get(call, task_guid))
        return await self.lifecycle.cancel(call, task_guid, problem)

    async def stop_cancelled(self, call: Call, task: Task) -> None:
        """Return when the process of a cancelled task is gone. Raises CancelFailed."""
        if task.cell_id is None or task.instance_guid is None:
            return
        try:
            await self.pool.stop_task(call, task.cell_id, task.instance_guid)
        except DiegoError as error:
            if isinstance(error.root, HopUnreachable):
                error.outcome = Outcome.UNKNOWN
            failed = call.framed(CancelFailed(f"stop task {task.task_guid}"))
            failed.__cause__ = error
            failed.outcome = outcome_of(error)
            failed.problem = self.numbered(chain.problem(failed, call, subject(task)))
            await self.lifecycle.record_failure(call, failed.problem, task)
            raise failed from error

    def numbered(self, document: Problem) -> Problem:
        """The document with the place where it can be read again."""
        return evolve(document, instance=f"{PATH}{self.new_failure_id()}")

    async def _place(self, call: Call, task: Task) -> Attempted:
        """Try up to three cells, the best first; each failed attempt stays as a frame in the chain."""
        failed: list[tuple[CellId, DiegoError]] = []
        try:
            async with self._slots:
                with call.hop("auction", self.id, f"place {task.task_guid}", PlacementFailed) as call:
                    while True:
                        with call.step("auction"):
                            cell_id, promise = await self._choose(call, task, failed)
                        with self.pool.cells.held(promise):
                            if failed:
                                task = await self._offered_anew(call, task, promise.demand, failed)
                            try:
                                await self._start_on(call, task, promise, attempt=len(failed) + 1)
                                return Attempted(await self._started(call, task, cell_id))
                            except DiegoError as error:
                                cause = error
                                failed.append((cell_id, error))
                        verdict = verdict_of(cause)
                        if not verdict.elsewhere or len(failed) >= CELLS_TRIED_MAX or verdict.gives_up(task):
                            what = f"place {task.task_guid}"
                            raise self.pool.spent(what, promise.demand, failed, won=cell_id) from cause
        except DiegoError as error:
            return Attempted(task, error)

    async def _choose(
        self, call: Call, task: Task, failed: Sequence[tuple[CellId, DiegoError]]
    ) -> tuple[CellId, Promise]:
        """The next cell to try, with room held there. Before a refusal cells are asked, so that it is true now."""
        demand = demand_of_task(task)
        promise = await self.pool.best(call, demand, frozenset(cell_id for cell_id, _ in failed))
        if promise.cell_id is not None:
            return promise.cell_id, promise
        if failed:
            raise self.pool.spent(f"place {task.task_guid}", demand, failed) from failed[-1][1]
        raise self.pool.refusal(demand)

    async def _offered_anew(
        self, call: Call, task: Task, demand: Demand, failed: Sequence[tuple[CellId, DiegoError]]
    ) -> Task:
        """The task under another name, for the next cell; the last failure if it may have begun, or has moved on."""
        error = failed[-1][1]
        following = await self.lifecycle.try_next(call, task, verdict_of(error))
        if following is None:
            raise self.pool.spent(f"place {task.task_guid}", demand, failed, won=failed[-1][0]) from error
        return following

    async def _start_on(self, call: Call, task: Task, promise: Promise, attempt: int) -> None:
        """Send the work to the cell, which claims the row itself."""
        if task.instance_guid is None:
            raise ValueError("only a task that was offered can be started")
        work = TaskWork(
            task_guid=task.task_guid,
            domain=task.domain,
            instance_guid=task.instance_guid,
            definition=task.definition,
        )
        await self.pool.run_task(call, promise, work, attempt)

    async def _started(self, call: Call, task: Task, cell_id: CellId) -> Task:
        """The task as it is by now. If it was taken away already, or nobody can say, it did run all the same."""
        try:
            row = await self.lifecycle.get(call, task.task_guid)
        except DiegoError:
            row = None
        if row is not None and row.instance_guid == task.instance_guid:
            return row
        return evolve(task, state=TaskState.RUNNING, cell_id=cell_id)

    async def _settled(self, call: Call, task: Task, error: DiegoError, roll_back: bool) -> DiegoError:
        """Store the document with the row, and return the error that answers with it."""
        verdict = verdict_of(error)
        told, document = tell(call, f"run {task.task_guid}", task, error)
        document = self.numbered(document)
        call = call.with_budget(max(SETTLE_BUDGET_MS, call.remaining_ms()))
        at = None
        if verdict.never_began and not verdict.gives_up(task) and not roll_back:
            wait_s = after_failure_s(task.attempts + 1, error.root.fault, self.jitter())
            at = call.clock.now() + timedelta(seconds=wait_s)
            document = evolve(document, next_attempt_at=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
        try:
            row = await self.lifecycle.settle(call, task, verdict, document, at)
            if roll_back and row is not None:
                await self._undo(call, row)
            elif row is not None and is_over(row.state):
                self.completed(row)
        except DiegoError as unstored:
            self.log.error("failure_not_stored", subject=document.subject, code=unstored.root.code)
            document = evolve(document, instance=None)
        told.problem = document
        return told

    async def _undo(self, call: Call, row: Task) -> None:
        """Leave nothing of a task that did not come to run but its story."""
        if row.state is TaskState.RUNNING:
            row = await self.cancel(call.with_budget(ROLLBACK_BUDGET_MS), row.task_guid)
        await self.lifecycle.forget(call, TaskStatus.of(row))

    def _cancelled(self, call: Call, task: Task) -> Problem:
        """The document of a cancelled task."""
        cancelled = call.framed(TaskCancelled(CANCELLED, outcome=Outcome.UNKNOWN))
        if task.state is TaskState.PENDING:
            cancelled.outcome = Outcome.NOT_STARTED
        return self.numbered(chain.problem(cancelled, call, subject(task)))
