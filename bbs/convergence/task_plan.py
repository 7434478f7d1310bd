"""What is to be done about tasks that nobody works on, as data with a reason for each. Pure: from one snapshot."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from attrs import define, field, frozen

from bbs.convergence.plan import mass_loss, why_held
from bbs.task_status import TaskStatus
from diego_py.models.identifiers import CellId
from diego_py.models.task import TaskState

PENDING_MAX_S: Final = 30 * 60.0
"""How long a task may wait for a cell. Diego: expire_pending_task."""
COMPLETED_MAX_S: Final = 120.0
"""How long a completed task is kept for whoever wants its result. Diego: expire_completed_task."""
KICK_S: Final = 30.0
"""A row that somebody should be working on, and that did not change for so long, has lost him. Diego: kick_task."""


@frozen
class TaskSnapshot:
    """One consistent reading of the database."""

    now: datetime
    tasks: tuple[TaskStatus, ...]
    live_cells: frozenset[CellId]
    known_cells: frozenset[CellId]
    late_cells: frozenset[CellId]
    """Live ones that have not reported for more than half of the time that a presence lasts."""
    may_lose_cells: bool
    """Whether this leader has watched for a whole presence TTL, so that a missing presence means something."""
    mass_lost: bool = False
    """Whether more than half of the cells were missing at once within the last presence TTL."""


@frozen
class TaskStep:
    """One repair: the task and why."""

    task: TaskStatus
    reason: str
    due_at: datetime | None = None
    """When something is done about it, if nothing happens before."""


@frozen
class TaskPlan:
    """A bucket for each kind of repair."""

    expire: tuple[TaskStep, ...] = ()
    place: tuple[TaskStep, ...] = ()
    lose: tuple[TaskStep, ...] = ()
    recall: tuple[TaskStep, ...] = ()
    call_back: tuple[TaskStep, ...] = ()
    delete: tuple[TaskStep, ...] = ()
    held: tuple[TaskStep, ...] = ()
    """Tasks that need something that is not done now, and why not."""

    @property
    def empty(self) -> bool:
        return not (self.expire or self.place or self.lose or self.recall or self.call_back or self.delete)


@define
class _Buckets:
    """A plan while it is made."""

    snapshot: TaskSnapshot
    valve: str
    expire: list[TaskStep] = field(factory=list)
    place: list[TaskStep] = field(factory=list)
    lose: list[TaskStep] = field(factory=list)
    recall: list[TaskStep] = field(factory=list)
    call_back: list[TaskStep] = field(factory=list)
    delete: list[TaskStep] = field(factory=list)
    held: list[TaskStep] = field(factory=list)

    def pending(self, task: TaskStatus) -> None:
        if self._older(task.created_at, PENDING_MAX_S):
            self.expire.append(TaskStep(task, f"not started within {PENDING_MAX_S / 60:.0f} minutes"))
        elif task.next_attempt_at is not None and task.next_attempt_at > self.snapshot.now:
            at = task.next_attempt_at.isoformat(timespec="seconds")
            told = f"attempt {task.attempts} failed; next attempt at {at}"
            self.held.append(TaskStep(task, told, task.next_attempt_at))
        elif task.next_attempt_at is not None:
            self.place.append(TaskStep(task, f"attempt {task.attempts} failed"))
        elif self._older(task.updated_at, KICK_S):
            self.place.append(TaskStep(task, f"nobody started it for over {KICK_S:.0f} s"))

    def running(self, task: TaskStatus) -> None:
        if task.cell_id in self.snapshot.live_cells:
            return
        reason = f"cell {task.cell_id} disappeared before completion"
        if self.valve:
            self.held.append(TaskStep(task, f"{reason}; {self.valve}"))
        else:
            self.lose.append(TaskStep(task, reason))

    def completed(self, task: TaskStatus) -> None:
        if self._older(task.first_completed_at or task.updated_at, COMPLETED_MAX_S):
            self.delete.append(TaskStep(task, f"completed for over {COMPLETED_MAX_S:.0f} s"))
        elif task.has_callback and self._older(task.updated_at, KICK_S):
            self.call_back.append(TaskStep(task, f"nobody called back for over {KICK_S:.0f} s"))

    def resolving(self, task: TaskStatus) -> None:
        if self._older(task.updated_at, KICK_S):
            self.recall.append(TaskStep(task, f"nobody took the result for over {KICK_S:.0f} s"))

    def _older(self, moment: datetime, seconds: float) -> bool:
        return moment + timedelta(seconds=seconds) <= self.snapshot.now

    def plan(self) -> TaskPlan:
        return TaskPlan(
            expire=tuple(self.expire),
            place=tuple(self.place),
            lose=tuple(self.lose),
            recall=tuple(self.recall),
            call_back=tuple(self.call_back),
            delete=tuple(self.delete),
            held=tuple(self.held),
        )


def plan(snapshot: TaskSnapshot) -> TaskPlan:
    """The repairs that this snapshot calls for; at most one for each task."""
    missing = mass_loss(snapshot.known_cells, snapshot.live_cells, snapshot.late_cells, snapshot.mass_lost)
    buckets = _Buckets(snapshot, why_held(missing, snapshot.may_lose_cells))
    for task in snapshot.tasks:
        match task.state:
            case TaskState.PENDING:
                buckets.pending(task)
            case TaskState.RUNNING:
                buckets.running(task)
            case TaskState.COMPLETED:
                buckets.completed(task)
            case TaskState.RESOLVING:
                buckets.resolving(task)
            case _:
                assert_never(task.state)
    return buckets.plan()
