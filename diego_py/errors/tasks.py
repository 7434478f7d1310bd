"""What can go wrong with a Task besides what can go wrong with any workload."""

from __future__ import annotations

from typing import ClassVar

from diego_py.errors.base import CELLS, DiegoError, Fault, Next
from diego_py.errors.caller import ConflictError, NotFound

SHOW = Next("See where the task stands, and why", run="diego task show {task_guid}")


class TaskNotFound(NotFound):
    """No task has this task_guid; one that has completed is deleted two minutes later."""

    code = "task_not_found"
    title = "There is no such task"
    next: ClassVar[tuple[Next, ...]] = (Next("List the tasks there are", run="diego task list"),)


class TaskExists(ConflictError):
    """A task with this task_guid exists already."""

    code = "task_exists"
    title = "The task exists already"
    next: ClassVar[tuple[Next, ...]] = (SHOW, Next("Use another task_guid: each runs once"))


class TaskNotCompleted(ConflictError):
    """The task has not completed, so it has no result to take and cannot be deleted."""

    code = "task_not_completed"
    title = "The task has not completed"
    next: ClassVar[tuple[Next, ...]] = (
        Next("End it", run="diego task cancel {task_guid}"),
        Next("Or wait until it completes: GET /v1/tasks/{task_guid}?until=completed"),
    )


class TaskFailed(DiegoError):
    """The task was not brought to run, or ran and failed."""

    code = "bbs.task_failed"
    title = "The task failed"
    next = (SHOW,)


class CancelFailed(DiegoError):
    """The task is completed as cancelled; that its process is gone could not be shown."""

    code = "bbs.cancel_failed"
    title = "The task's process may still run"
    next = (SHOW, Next("Cancel it again; a cell that comes back is told to stop it"))


class TaskCancelled(DiegoError):
    """Somebody cancelled the task."""

    code = "bbs.task_cancelled"
    title = "The task was cancelled"
    status = 409
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Run it again under another task_guid if this was not meant"),)


class TaskExpired(DiegoError):
    """The task waited for a cell for longer than it may."""

    code = "bbs.task_expired"
    title = "The task was not started in time"
    status = 503
    fault = Fault.CAPACITY
    retryable = True
    elsewhere = False
    next = (CELLS, Next("Ask for less, stop something, or add a cell; then run it again under another task_guid"))


class TaskLost(DiegoError):
    """The cell that had the task vanished; whether the task's process did its work is unknown."""

    code = "bbs.task_lost"
    title = "The cell of the task vanished"
    elsewhere = False
    next = (CELLS, Next("Look whether its work was done, then run it again under another task_guid"))


class TaskInterrupted(DiegoError):
    """The cell process was restarted, and what it was doing for the task cannot be taken up in the middle."""

    code = "rep.task_interrupted"
    title = "The cell process was restarted during the task"
    elsewhere = False
    next = (Next("Look whether its work was done, then run it again under another task_guid"),)


class TaskNeverBegan(DiegoError):
    """The cell process was restarted before any process of the task began."""

    code = "rep.task_never_began"
    title = "The cell process was restarted before the task began"
    retryable = True
    next = (SHOW,)


class CallbackFailed(DiegoError):
    """Nobody took the completed task at its completion_callback_url."""

    code = "bbs.callback_failed"
    title = "The completion callback was not taken"
    fault = Fault.CALLER
    retryable = True
    elsewhere = False
    next = (Next("Check that the callback's server answers; it is called again until the task is deleted"),)


class CallbackRefused(DiegoError):
    """The completion_callback_url leads to an address that this BBS does not call."""

    code = "bbs.callback_refused"
    title = "The address of the completion callback is not allowed"
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Use an address that callback_deny_networks of the BBS does not hold"),)
