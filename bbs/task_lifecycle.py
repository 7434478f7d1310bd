"""Every change of a task: lock the row, ask the state table, save with the reason. Each method is one transaction.

With an `epoch`, only as the convergence leader of that epoch: else NotLeader. Nothing here has an effect outside of the
database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from attrs import define

from bbs.store import replay, task_moves, task_rows
from bbs.store.failures import Document, document_of, document_of_cell
from bbs.store.fence import run_fenced
from bbs.store.idempotency import IdempotencyKey
from bbs.store.tasks import LockedTask
from bbs.store.transaction import Store, Transaction
from bbs.task_outcome import Verdict
from bbs.task_status import Claim, TaskStatus
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import ClaimRefused, TaskNotCompleted, TaskNotFound
from diego_py.models.task import Task, TaskRequest, TaskState
from diego_py.models.task_work import TaskClaim, TaskEnd
from diego_py.service.clock import Clock


@define
class TaskLifecycle:
    """The life of tasks, met with the database in one way."""

    store: Store
    clock: Clock
    new_guid: Callable[[], str]

    async def create(self, call: Call, request: TaskRequest, key: IdempotencyKey | None = None) -> Task:
        """Store a task, PENDING and offered. Raises TaskExists, IdempotencyInFlight, IdempotencyMismatch."""

        async def work(tx: Transaction) -> Task:
            if key is not None:
                await replay.keep(tx, key, replay.in_flight_s(call))
            return await tx.tasks.insert(request, self.new_guid())

        return await self.store.run(call, "desire_task", work)

    async def get(self, call: Call, task_guid: str) -> Task:
        """A task as it is now, with the document of its failure. Raises TaskNotFound."""
        task = await self.store.read(call, "get_task", lambda tx: tx.tasks.get(task_guid))
        if task is None:
            raise TaskNotFound(f"no task {task_guid[:200]}", subject={"kind": "task", "guid": task_guid[:200]})
        return task

    async def offer(self, call: Call, seen: TaskStatus, epoch: int | None = None) -> Task:
        """A new instance_guid for a task that waits. Raises IllegalTransition if it changed since it was read."""

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock_unchanged(tx, seen, "OFFER")
            return await task_rows.save(tx, locked, task_moves.offered(locked.row, self.new_guid(), locked.now))

        return await run_fenced(self.store, call, "offer_task", work, epoch)

    async def try_next(self, call: Call, attempt: Task, verdict: Verdict) -> Task | None:
        """Reject an attempt and offer the task anew, at once: the new attempt.

        None, and nothing is changed, if the attempt may have begun, or the row has moved on.
        """

        async def work(tx: Transaction) -> Task | None:
            locked = await task_rows.lock(tx, attempt.task_guid)
            if not _may_reject(locked, attempt, verdict):
                return None
            after = task_moves.rejected(locked.row, verdict.reason, verdict.counted, None, locked.now)
            after = task_moves.offered(after, self.new_guid(), locked.now)
            return await task_rows.save(tx, locked, after)

        return await self.store.run(call, "reject_task", work)

    async def settle(
        self, call: Call, attempt: Task, verdict: Verdict, problem: Problem, next_attempt_at: datetime | None
    ) -> Task | None:
        """Bring the row to where a failed attempt leaves it, with the document. Gives it as it is now; None: gone.

        If it moved on meanwhile (cancelled, ended, offered anew), or may still run, only the document is stored.
        """
        document = document_of(problem)

        async def work(tx: Transaction) -> Task | None:
            locked = await tx.tasks.lock(attempt.task_guid)
            after = None if locked is None else self._settled(locked, attempt, verdict, document, next_attempt_at)
            if locked is None or after is None:
                await tx.failures.insert(document, "place", attempt)
                return None if locked is None else locked.row
            return await task_rows.save_failed(tx, locked, after, document, "place")

        return await self.store.run(call, "settle_task", work)

    async def claim(self, call: Call, task_guid: str, request: TaskClaim) -> Task:
        """Give a task to the cell that it was offered to; again, if the very same start has it. Raises ClaimRefused."""
        claim = Claim(boot_id=request.boot_id, claim_id=request.claim_id, sequence=request.sequence)

        async def work(tx: Transaction) -> Task:
            locked = await tx.tasks.lock(task_guid)
            if locked is None:
                raise ClaimRefused(f"task {task_guid[:200]} has no row any more")
            row = locked.row
            if row.instance_guid != request.instance_guid:
                raise ClaimRefused(f"task {task_guid} ({row.state}) does not wait for {request.instance_guid}")
            if row.state is TaskState.RUNNING and row.cell_id == request.cell_id and locked.claim == claim:
                return row
            if row.state is not TaskState.PENDING:
                raise ClaimRefused(f"attempt {request.instance_guid} at task {task_guid} is {row.state} already")
            if not await tx.cells.is_live(request.cell_id, request.boot_id):
                raise ClaimRefused(f"cell {request.cell_id} has no live presence with boot {request.boot_id}")
            return await task_rows.save(tx, locked, task_moves.started(row, request.cell_id, locked.now), claim)

        return await self.store.run(call, "claim_task", work)

    async def end(self, call: Call, end: TaskEnd) -> Task | None:
        """Take up how an attempt ended on its cell. Gives the row if that changed it; None: nobody waits for it."""
        document = None if end.failure is None else document_of_cell(end.failure, self.new_guid())

        async def work(tx: Transaction) -> Task | None:
            locked = await tx.tasks.lock(end.task_guid)
            if locked is None or not _is_end_of(locked, end):
                return None
            after = _ended(locked, end)
            if document is None:
                return await task_rows.save(tx, locked, after)
            return await task_rows.save_failed(tx, locked, after, document, "run")

        return await self.store.run(call, "task_ended", work)

    async def cancel(self, call: Call, task_guid: str, problem: Problem) -> Task:
        """COMPLETED as cancelled; whatever the cell tells later does not count. Raises IllegalTransition, TaskNotFound.

        A task that was cancelled before is given as it is.
        """
        document = document_of(problem)

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock(tx, task_guid)
            if task_moves.is_over(locked.row.state) and locked.row.failure_reason == document.detail:
                return locked.row
            after = task_moves.cancelled(locked.row, document.detail, locked.now)
            return await task_rows.save_failed(tx, locked, after, document, "stop")

        return await self.store.run(call, "cancel_task", work)

    async def expire(self, call: Call, seen: TaskStatus, epoch: int, problem: Problem) -> Task:
        """It was PENDING for too long. Raises IllegalTransition if it changed since it was read."""
        return await self._give_up(call, seen, epoch, problem, "EXPIRE", task_moves.expired, "place")

    async def lose(self, call: Call, seen: TaskStatus, epoch: int, problem: Problem) -> Task:
        """Its cell vanished. Raises IllegalTransition if it changed since it was read."""
        return await self._give_up(call, seen, epoch, problem, "LOSE", task_moves.lost, "run")

    async def resolve(self, call: Call, task_guid: str) -> Task:
        """Take the result of a completed task: nobody else may until it is recalled. Raises TaskNotCompleted,
        IllegalTransition if somebody else takes it already, TaskNotFound."""

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock(tx, task_guid)
            _require_over(locked.row, "take the result of")
            return await task_rows.save(tx, locked, task_moves.resolving(locked.row, locked.now))

        return await self.store.run(call, "resolve_task", work)

    async def recall(self, call: Call, seen: TaskStatus, epoch: int | None = None) -> Task:
        """Who took the result did not come to an end. Raises IllegalTransition if it changed since it was read."""

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock_unchanged(tx, seen, "RECALL")
            return await task_rows.save(tx, locked, task_moves.recalled(locked.row, locked.now))

        return await run_fenced(self.store, call, "recall_task", work, epoch)

    async def delete(self, call: Call, task_guid: str) -> Task:
        """Forget a completed task, taken or not; gives it as it was. Raises TaskNotCompleted, TaskNotFound."""

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock(tx, task_guid)
            _require_over(locked.row, "delete")
            await tx.tasks.delete(task_guid)
            return locked.row

        return await self.store.run(call, "delete_task", work)

    async def forget(self, call: Call, seen: TaskStatus, epoch: int | None = None) -> None:
        """Forget a task in this very state, whichever. Raises IllegalTransition if it changed since it was read."""

        async def work(tx: Transaction) -> None:
            await task_rows.lock_unchanged(tx, seen, "DELETE")
            await tx.tasks.delete(seen.task_guid)

        await run_fenced(self.store, call, "forget_task", work, epoch)

    async def record_failure(self, call: Call, problem: Problem, task: Task) -> None:
        """Store a document, and leave the row alone."""
        document = document_of(problem)
        await self.store.run(call, "record_failure", lambda tx: tx.failures.insert(document, "place", task))

    async def _give_up(
        self,
        call: Call,
        seen: TaskStatus,
        epoch: int,
        problem: Problem,
        event: str,
        move: Callable[[Task, str, datetime], Task],
        phase: str,
    ) -> Task:
        document = document_of(problem)

        async def work(tx: Transaction) -> Task:
            locked = await task_rows.lock_unchanged(tx, seen, event)
            after = move(locked.row, document.detail, locked.now)
            return await task_rows.save_failed(tx, locked, after, document, phase)

        return await run_fenced(self.store, call, f"{event.lower()}_task", work, epoch)

    def _settled(
        self,
        locked: LockedTask,
        attempt: Task,
        verdict: Verdict,
        document: Document,
        next_attempt_at: datetime | None,
    ) -> Task | None:
        """What the row becomes, None if it stays. Of a RUNNING one only its cell knows when it does not say."""
        row = locked.row
        if _may_reject(locked, attempt, verdict):
            if verdict.hopeless:
                return task_moves.failed(row, document.detail, locked.now)
            at = self._by_database(next_attempt_at, locked.now)
            return task_moves.rejected(row, document.detail, verdict.counted, at, locked.now)
        if verdict.ended and _is_start(locked, attempt, verdict):
            return task_moves.failed(row, document.detail, locked.now)
        return None

    def _by_database(self, at: datetime | None, now: datetime) -> datetime | None:
        """A time of our wall clock as one of the database's clock."""
        return None if at is None else now + max(timedelta(), at - self.clock.now())


def _is_attempt(row: Task, attempt: Task) -> bool:
    return row.instance_guid == attempt.instance_guid and row.created_at == attempt.created_at


def _is_start(locked: LockedTask, attempt: Task, verdict: Verdict) -> bool:
    """Whether the row runs as the very start that failed."""
    running = _is_attempt(locked.row, attempt) and locked.row.state is TaskState.RUNNING
    return running and locked.claim is not None and locked.claim.claim_id == verdict.claim_id


def _may_reject(locked: LockedTask, attempt: Task, verdict: Verdict) -> bool:
    """Whether the attempt can be given up for another one without a second process of the task.

    Unclaimed, it can: under its old name nobody can claim it any more. Claimed, only if the cell says of the very start
    that has the claim that no process of it began.
    """
    unclaimed = _is_attempt(locked.row, attempt) and locked.row.state is TaskState.PENDING
    return unclaimed or (verdict.never_began and _is_start(locked, attempt, verdict))


def _is_end_of(locked: LockedTask, end: TaskEnd) -> bool:
    """Whether the row waits for the end of this start: another one of the same name may have the claim."""
    if locked.row.instance_guid != end.instance_guid or task_moves.is_over(locked.row.state):
        return False
    return locked.claim is None or locked.claim.claim_id == end.claim_id


def _ended(locked: LockedTask, end: TaskEnd) -> Task:
    row, now = locked.row, locked.now
    reason = end.failure_reason or "no reason is known"
    if not end.started:
        return task_moves.rejected(row, reason, True, now, now)
    if row.state is TaskState.PENDING:  # it ran without a claim that we know of: never again
        return task_moves.failed(row, reason, now)
    return task_moves.completed(row, end, now)


def _require_over(row: Task, what: str) -> None:
    if not task_moves.is_over(row.state):
        raise TaskNotCompleted(f"{what} task {row.task_guid}: it is {row.state}", subject=task_moves.subject(row))
