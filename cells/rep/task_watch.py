"""What happens to a task after it began: its end is waited for, kept, undone and told."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from attrs import define, evolve

from cells.executor.executor import Executor
from cells.executor.once import RunOnce
from cells.executor.outcomes import outcome_of
from cells.executor.plan import Workload
from cells.garden.spec import Container
from cells.rep.books import Books
from cells.rep.task_teller import TaskTeller
from cells.rep.tasks import CellTask, CellTaskEvent
from cells.rep.undo import tell_ended
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import DiegoError, Outcome, RepFailed, TaskInterrupted, TaskNeverBegan
from diego_py.models.identifiers import CellId
from diego_py.models.task_work import TaskEnd
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks

WATCH_BUDGET_MS = 120_000.0
ANSWERED_FIRST_S = 5.0
"""Whoever asked for a start that failed has this long to store it himself; then it is told to any BBS."""


@define
class TaskWatcher:
    """Owns one task of the event loop for each task that is not in the hands of a request."""

    cell_id: CellId
    executor: Executor
    once: RunOnce
    books: Books
    teller: TaskTeller
    tasks: OwnedTasks
    clock: Clock
    log: structlog.stdlib.BoundLogger

    def begin(self, task: CellTask, container: Container, workload: Workload, result_file: str) -> None:
        """Wait for the end of a task that runs."""
        work = self._watch(task, container, workload, result_file)
        task.watching = self.tasks.begin(work, f"watch task {task.guid}")

    async def leave(self, task: CellTask) -> None:
        """Stop waiting, because somebody else now ends the task."""
        watching, task.watching = task.watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])

    async def keep_failed_start(self, call: Call, task: CellTask, failure: DiegoError) -> None:
        """A start failed that may have been claimed: should its answer be lost, this tells what became of it."""
        framed = call.left_with(failure, RepFailed)
        await self._keep(self._end_of(call, task, framed, task.begun))
        self.teller.tell(task.guid, after_s=ANSWERED_FIRST_S)

    async def never_began(self, task: CellTask) -> None:
        """The boot before ours had not begun it when it ended: remove it, and have it tried elsewhere."""
        error = TaskNeverBegan("the cell process ended before it", outcome=Outcome.NOT_STARTED)
        await self._give_up(task, error, started=False)

    async def interrupted(self, task: CellTask) -> None:
        """The boot before ours was just beginning it, or ending it, and nobody knows how far it came."""
        error = TaskInterrupted("the cell process ended while it began or ended the task", outcome=Outcome.UNKNOWN)
        await self._give_up(task, error, started=True)

    async def _give_up(self, task: CellTask, error: DiegoError, started: bool) -> None:
        call = Call.begin(self.clock, WATCH_BUDGET_MS)
        failure = self._framed("adopt_task", call, error)
        task.happen(CellTaskEvent.STOP)
        await self._keep(self._end_of(call, task, failure, started))
        await self.remove(call, task)
        self.teller.tell(task.guid)

    async def remove(self, call: Call, task: CellTask) -> None:
        """Remove the container of a task that is over, and forget the task. What fails stays in the books."""
        left = await outcome_of(self.executor.remove(call, task.guid))
        if isinstance(left, DiegoError):
            self.log.error("container_not_removed", handle=task.guid, code=left.root.code, detail=left.root.message)
        else:
            self.books.forget(task.guid)
        task.watching = None
        self.books.changed.set()

    async def _watch(self, task: CellTask, container: Container, workload: Workload, result_file: str) -> None:
        """Keep the end before anything is removed, so that no crash of ours loses it; then remove, then tell."""
        call = Call.begin(self.clock, WATCH_BUDGET_MS)
        result, failure = await self._finished(call, container, workload, result_file)
        task.happen(CellTaskEvent.END)
        end = evolve(self._end_of(call, task, failure, started=True), result=result)
        self.log.info("task_ended", instance_guid=task.guid, failed=end.failed, detail=end.failure_reason)
        await self._keep(end)
        await self.remove(call, task)
        self.teller.tell(task.guid)

    async def _finished(
        self, call: Call, container: Container, workload: Workload, result_file: str
    ) -> tuple[str, DiegoError | None]:
        """Its result, or how it failed, in the frame of this hop: nobody's request is under way that would have one."""
        try:
            with call.hop("rep", self.cell_id, "run_task", RepFailed) as inner:
                result, failure = await self.once.finish(inner, container, workload, result_file)
                if failure is not None:
                    raise failure
        except DiegoError as framed:
            tell_ended(framed)
            return "", framed
        return result, None

    def _framed(self, op: str, call: Call, failure: DiegoError) -> DiegoError:
        try:
            with call.hop("rep", self.cell_id, op, RepFailed):
                raise failure
        except DiegoError as framed:
            return framed

    def _end_of(self, call: Call, task: CellTask, failure: DiegoError | None, started: bool) -> TaskEnd:
        identity = task.identity
        problem = None if failure is None else chain.problem(failure, call, task.subject())
        return TaskEnd(
            task_guid=identity.task_guid,
            domain=identity.domain,
            instance_guid=task.guid,
            cell_id=self.cell_id,
            claim_id=task.claim_id,
            started=started,
            failed=problem is not None,
            failure_reason=None if problem is None else problem.detail,
            failure=None if problem is None else msgspec.json.decode(problem.encode()),
        )

    async def _keep(self, end: TaskEnd) -> None:
        await self.books.task_ends.add(end)
