"""The one way in which a task changes: locked, moved by the table, saved with its failure document. One transaction."""

from __future__ import annotations

from attrs import evolve

from bbs.store.failures import Document
from bbs.store.tasks import LockedTask
from bbs.store.transaction import Transaction
from bbs.task_status import Claim, TaskStatus
from diego_py.errors import IllegalTransition, TaskNotFound
from diego_py.models.task import Task, TaskState


async def lock(tx: Transaction, task_guid: str) -> LockedTask:
    """The row, ours until the transaction ends. Raises TaskNotFound."""
    locked = await tx.tasks.lock(task_guid)
    if locked is None:
        raise TaskNotFound(f"no task {task_guid[:200]}")
    return locked


async def lock_unchanged(tx: Transaction, seen: TaskStatus, event: str) -> LockedTask:
    """The row if it is the very revision that was decided on. Raises TaskNotFound, IllegalTransition."""
    locked = await lock(tx, seen.task_guid)
    if (locked.row.updated_at, locked.row.created_at) != (seen.updated_at, seen.created_at):
        evidence = {"from": str(locked.row.state), "event": event, "instance_guid": locked.row.instance_guid}
        raise IllegalTransition(f"{event} task {seen.task_guid}: it has changed since", evidence=evidence)
    return locked


async def save(tx: Transaction, locked: LockedTask, after: Task, claim: Claim | None = None) -> Task:
    """Write what the locked row became, without a new failure; a claim if it was granted just now."""
    kept = locked.failure_id if after.failure_reason or after.rejection_reason else None
    await tx.tasks.save(after, claim or _kept_claim(locked, after), kept)
    return after


async def save_failed(tx: Transaction, locked: LockedTask, after: Task, document: Document, phase: str) -> Task:
    """Write what the locked row became, and the document that says why; both or neither."""
    await tx.failures.insert(document, phase, locked.row)
    await tx.tasks.save(after, _kept_claim(locked, after), document.id)
    return evolve(after, failure=document.members)


def _kept_claim(locked: LockedTask, after: Task) -> Claim | None:
    """A task that is offered anew belongs to no start."""
    return None if after.state is TaskState.PENDING else locked.claim
