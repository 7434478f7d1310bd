"""What a task becomes by each event of its state table. Pure: the time is an argument, and nothing is saved here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from attrs import evolve

from diego_py.errors import IllegalTransition
from diego_py.models import task
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task import Task, TaskEvent, TaskState
from diego_py.models.task_work import TaskEnd

REJECTIONS_MAX: Final = 3
"""A task that cells could not begin with so often fails with the next rejection. Diego: max_task_retries."""
REASON_CHARACTERS_MAX: Final = 16 * 1024
_TICK: Final = timedelta(microseconds=1)


def offered(row: Task, instance_guid: str, now: datetime) -> Task:
    """Offered to a cell under a new name: a claim under the old one is refused from now on."""
    guid = InstanceGuid(instance_guid)
    return _moved(row, TaskEvent.OFFER, now, instance_guid=guid, next_attempt_at=None)


def started(row: Task, cell_id: str, now: datetime) -> Task:
    """A cell has it. From here its process may run, so that nobody else may."""
    return _moved(row, TaskEvent.START, now, cell_id=CellId(cell_id))


def rejected(row: Task, reason: str, counted: bool, next_attempt_at: datetime | None, now: datetime) -> Task:
    """No process of it ran, nor will under this name. Failed once it was rejected too often."""
    if counted and row.rejection_count >= REJECTIONS_MAX:
        return failed(row, reason, now)
    return _moved(
        row,
        TaskEvent.REJECT,
        now,
        instance_guid=None,
        cell_id=None,
        rejection_count=row.rejection_count + counted,
        rejection_reason=_short(reason),
        attempts=row.attempts + 1,
        next_attempt_at=next_attempt_at,
    )


def failed(row: Task, reason: str, now: datetime) -> Task:
    """Not begun, and not to be tried again."""
    return _completed(row, TaskEvent.FAIL, reason, now)


def completed(row: Task, end: TaskEnd, now: datetime) -> Task:
    """Its process ended, well or not."""
    after = _completed(row, TaskEvent.COMPLETE, end.failure_reason, now)
    return evolve(after, failed=end.failed, result=end.result)


def cancelled(row: Task, reason: str, now: datetime) -> Task:
    """Its client does not want it any more."""
    return _completed(row, TaskEvent.CANCEL, reason, now)


def expired(row: Task, reason: str, now: datetime) -> Task:
    """No cell began with it in time."""
    return _completed(row, TaskEvent.EXPIRE, reason, now)


def lost(row: Task, reason: str, now: datetime) -> Task:
    """Gone with its cell, or from it."""
    return _completed(row, TaskEvent.LOSE, reason, now)


def resolving(row: Task, now: datetime) -> Task:
    """Somebody takes the result."""
    return _moved(row, TaskEvent.RESOLVE, now)


def recalled(row: Task, now: datetime) -> Task:
    """Who took the result did not come to an end."""
    return _moved(row, TaskEvent.RECALL, now)


def _completed(row: Task, event: TaskEvent, reason: str | None, now: datetime) -> Task:
    facts: dict[str, Any] = {
        "failed": True,
        "failure_reason": _short(reason),
        "first_completed_at": row.first_completed_at or now,
        "next_attempt_at": None,
    }
    return _moved(row, event, now, **facts)


def _moved(row: Task, event: TaskEvent, now: datetime, **changes: Any) -> Task:
    """The row after `event`. `updated_at` always rises: whoever decided on an earlier revision sees that it moved."""
    try:
        state = task.transition(row.state, event)
    except task.IllegalTransition as illegal:
        evidence = {"from": str(row.state), "event": str(event), "instance_guid": row.instance_guid}
        told = f"{event} task {row.task_guid} from {row.state}"
        raise IllegalTransition(told, evidence=evidence, subject=subject(row)) from illegal
    return evolve(row, state=state, updated_at=max(now, row.updated_at + _TICK), failure=None, **changes)


def subject(row: Task) -> dict[str, Any]:
    """What a document is about."""
    named = {"kind": "task", "guid": row.task_guid, "domain": row.domain}
    return named if row.instance_guid is None else {**named, "instance_guid": row.instance_guid}


def is_over(state: TaskState) -> bool:
    """Whether the task has come to its end, taken or not."""
    return state in (TaskState.COMPLETED, TaskState.RESOLVING)


def _short(reason: str | None) -> str | None:
    """A reason as its column takes it; the whole story is in the failure document."""
    return None if reason is None else reason.replace("\0", "\N{REPLACEMENT CHARACTER}")[:REASON_CHARACTERS_MAX]
