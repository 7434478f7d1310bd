"""A task as decisions need it: read in great numbers, without its definition. Pure."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from diego_py.models.identifiers import CellId, InstanceGuid, TaskGuid
from diego_py.models.task import Task, TaskState


@frozen(kw_only=True)
class TaskStatus:
    """Where a task stands."""

    task_guid: TaskGuid
    state: TaskState
    cell_id: CellId | None = None
    instance_guid: InstanceGuid | None = None
    created_at: datetime
    updated_at: datetime
    """Also the revision: what was decided on is done only if it is still this one."""
    first_completed_at: datetime | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    has_callback: bool = False

    @classmethod
    def of(cls, task: Task) -> TaskStatus:
        return cls(
            task_guid=task.task_guid,
            state=task.state,
            cell_id=task.cell_id,
            instance_guid=task.instance_guid,
            created_at=task.created_at,
            updated_at=task.updated_at,
            first_completed_at=task.first_completed_at,
            attempts=task.attempts,
            next_attempt_at=task.next_attempt_at,
            has_callback=bool(task.definition.completion_callback_url),
        )


@frozen(kw_only=True)
class Claim:
    """Which start of which boot of a cell was granted a task, and the state of the cell's books then."""

    boot_id: str
    claim_id: str
    sequence: int
