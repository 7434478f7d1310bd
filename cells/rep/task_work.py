"""The cascade of a task on its cell, top to bottom: refuse or reserve, claim and create, begin, answer; and back.

Runs inside the hop that the HTTP route entered ("rep"). No process of the user begins before the claim was granted, and
none begins twice: an attempt that ended in any way is never begun again, here or elsewhere, under its instance_guid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from attrs import define, field

from cells.executor.executor import Executor
from cells.executor.once import RunOnce
from cells.executor.outcomes import outcome_of, value_of
from cells.executor.plan import Plan
from cells.garden.spec import Container
from cells.rep import task_translate
from cells.rep.admission import Admission
from cells.rep.bbs import BBS
from cells.rep.books import Books
from cells.rep.shared import SharedWork
from cells.rep.task_watch import TaskWatcher
from cells.rep.tasks import CellTask, CellTaskEvent, TaskIdentity
from cells.rep.translate import checked
from cells.rep.undo import tell_leftovers, tell_outcome, with_time_to_undo
from diego_py.call import Call
from diego_py.errors import DiegoError, HandleTaken, Outcome, StoppedWhileStarting
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task_work import CellTaskState, TaskClaim, TaskWork
from diego_py.models.work import Stopped, TaskStarted
from diego_py.service.run import OwnedTasks

STOP_BUDGET_MS = 120_000.0
"""A stop goes on after its caller's budget is spent: the container shall be gone in any case."""


@define
class CellTaskWork:
    """Runs and stops tasks. One for each cell process."""

    cell_id: CellId
    boot_id: str
    new_claim_id: Callable[[], str]
    books: Books
    admission: Admission
    bbs: BBS
    executor: Executor
    once: RunOnce
    watcher: TaskWatcher
    owned: OwnedTasks
    _starts: SharedWork[TaskStarted] = field(init=False)
    _stops: SharedWork[Stopped] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._starts = SharedWork("run_task", self.owned)
        self._stops = SharedWork("stop_task", self.owned)

    async def run_task(self, call: Call, work: TaskWork) -> TaskStarted:
        """Return when a process of the task was started; raise when none was, or it could not be, with all undone.

        A failure whose outcome is NOT_STARTED says that no process of it ran, and none will under this instance_guid.
        """
        work = checked(work)
        identity = task_translate.identity_of(work)
        known = self.books.tasks.get(work.instance_guid)
        taken = self.books.instances.get(work.instance_guid) is not None
        if taken or (known is not None and known.identity != identity):
            raise HandleTaken("something else has this guid", outcome=Outcome.UNKNOWN)
        if known is not None and known.state is CellTaskState.RUNNING:
            return self._started(known)
        if known is not None and not self._starts.under_way(work.instance_guid):
            raise HandleTaken(f"this task is {known.state} already", outcome=Outcome.UNKNOWN)
        async with call.within_budget("run_task"):
            return await self._starts.join(work.instance_guid, lambda: self._run(call, work, identity))

    async def _run(self, call: Call, work: TaskWork, identity: TaskIdentity) -> TaskStarted:
        """Each step's undo is pushed before the step; the steps are in the order in which they happen."""
        self.admission.admit_task(work)
        task = self.books.reserve_task(identity, self.new_claim_id())
        plan = task_translate.plan_of(work, task.claim_id)
        left: list[DiegoError] = []
        hurried = with_time_to_undo(call)
        try:
            async with AsyncExitStack() as undo:
                undo.callback(self._release, task, left)
                undo.push_async_callback(self._destroy, call, task, left)
                async with hurried.within_budget("run_task"):
                    container = await self._claim_and_create(hurried, task, plan)
                    if task.stop_asked.is_set():
                        raise StoppedWhileStarting("stopped before its process was started")
                    task.begun = True
                    await self.once.begin(hurried, container, plan.workload, task.stop_asked)
                undo.pop_all()
        except DiegoError as failure:
            tell_outcome(failure, task.guid, left, Outcome.ROLLED_BACK if task.begun else Outcome.NOT_STARTED)
            failure.subject = task.subject()
            if task.was_claimed:
                await self.watcher.keep_failed_start(call, task, failure)
            raise
        task.happen(CellTaskEvent.START)
        self.watcher.begin(task, container, plan.workload, work.definition.result_file)
        self.books.changed.set()
        return self._started(task)

    async def _claim_and_create(self, call: Call, task: CellTask, plan: Plan) -> Container:
        """Both at once; neither failure cancels the other. No process of the user runs before the claim is granted."""
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(outcome_of(self._claim(call, task)))
            creating = group.create_task(outcome_of(self.executor.create(call, plan)))
        value_of(claiming.result())
        return value_of(creating.result())

    async def _claim(self, call: Call, task: CellTask) -> None:
        """Whatever the answer, the row may be ours once the claim was sent: what becomes of it has to be told then."""
        request = TaskClaim(
            instance_guid=task.guid,
            cell_id=self.cell_id,
            boot_id=self.boot_id,
            claim_id=task.claim_id,
            sequence=self.books.reservations.sequence,
        )
        task.was_claimed = True
        await self.bbs.claim_task(call, task.identity.task_guid, request)
        task.happen(CellTaskEvent.CLAIM)

    async def _destroy(self, call: Call, task: CellTask, left: list[DiegoError]) -> None:
        """Undo of create and begin."""
        task.happen(CellTaskEvent.FAIL)
        gone = await outcome_of(self.executor.destroy(call, task.guid))
        if isinstance(gone, DiegoError):
            left.append(gone)

    def _release(self, task: CellTask, left: list[DiegoError]) -> None:
        """Undo of reserve. What a container still uses stays reserved, and the task reported until it is gone."""
        if not left:
            self.books.forget(task.guid)
        self.books.changed.set()

    async def stop_task(self, call: Call, guid: InstanceGuid) -> Stopped:
        """Return when the task's container is gone or never was there. Stops one that is still starting, too."""
        async with call.within_budget("stop_task"):
            return await self._stops.join(guid, lambda: self._stop(call.with_budget(STOP_BUDGET_MS), guid))

    async def _stop(self, call: Call, guid: InstanceGuid) -> Stopped:
        known = self.books.tasks.get(guid)
        if known is not None:
            known.stop_asked.set()
        existed = known is not None or self.executor.has(guid)
        await self._starts.settled(guid)  # who starts it undoes what he did
        await self._settled_end(guid)  # it may be ending by itself
        task = self.books.tasks.get(guid)
        try:
            if task is not None:
                task.happen(CellTaskEvent.STOP)
                await self.watcher.leave(task)
            if task is not None or self.executor.has(guid):
                existed = True
                await self.executor.remove(call, guid)
        except DiegoError as failure:
            tell_leftovers(failure, guid, [failure])
            raise
        if task is not None:
            self.books.forget(task.guid)
        self.books.changed.set()
        return Stopped(instance_guid=guid, existed=existed)

    async def _settled_end(self, guid: InstanceGuid) -> None:
        task = self.books.tasks.get(guid)
        if task is not None and task.state is CellTaskState.STOPPING and task.watching is not None:
            await asyncio.wait([task.watching])

    def _started(self, task: CellTask) -> TaskStarted:
        return TaskStarted(
            instance_guid=task.guid,
            available=self.books.reservations.available(),
            sequence=self.books.reservations.sequence,
        )
