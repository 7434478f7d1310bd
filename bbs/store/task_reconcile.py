"""The tasks of a cell's report against the rows: what vanished, and what the cell must stop.

Ends are no part of it: the cell tells them by a call of their own. `compare` decides, from unlocked rows; `apply` locks
each row that differs and looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from bbs.store import task_moves, task_rows
from bbs.store.failures import document_of
from bbs.store.transaction import Transaction
from bbs.task_status import Claim, TaskStatus
from diego_py.chain import Problem
from diego_py.errors import ContainerVanished, Outcome
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task import Task, TaskState
from diego_py.models.task_work import CellTaskState
from diego_py.models.work import CellReport

Known = Sequence[tuple[TaskStatus, Claim | None]]
WriteTaskProblem = Callable[[Task, ContainerVanished], Problem]
"""Makes the numbered document of a lost task."""


@frozen
class TaskDifferences:
    """Where a report and the rows disagree."""

    vanished: tuple[TaskStatus, ...]
    stop: tuple[InstanceGuid, ...]
    none: bool
    """The cell runs the tasks that its rows say, all of them and nothing else, and no end is still to be told."""


@frozen
class TasksReconciled:
    """What the cell must stop, and the tasks that are lost now."""

    stop: tuple[InstanceGuid, ...] = ()
    lost: tuple[Task, ...] = ()
    agree: bool = True
    """There were no differences."""


def compare(report: CellReport, known: Known) -> TaskDifferences:
    """What a report changes. `known` are all tasks that run on the cell and all that are reported."""
    by_guid = {status.instance_guid: status for status, _ in known if status.instance_guid is not None}
    stop = tuple(
        task.instance_guid
        for task in report.tasks
        if task.state is not CellTaskState.COMPLETED and not _is_wanted(by_guid.get(task.instance_guid), report)
    )
    reported = {task.instance_guid for task in report.tasks}
    vanished = tuple(
        status
        for status, claim in known
        if status.instance_guid not in reported and has_vanished(status, claim, report)
    )
    ours = {status.instance_guid for status, _ in known if _is_here(status, report)}
    return TaskDifferences(
        vanished,
        stop,
        none=ours == reported and all(task.state is CellTaskState.RUNNING for task in report.tasks),
    )


def has_vanished(status: TaskStatus, claim: Claim | None, report: CellReport) -> bool:
    """Whether a report that does not name the task must have named it, if it was there or its end still to be told.

    The cell enters a task into its books before it claims it. So a later state of the same books knows it, and so does
    a later boot, which reports only what it found. Clocks do not matter.
    """
    if status.state is not TaskState.RUNNING or status.cell_id != report.presence.cell_id or claim is None:
        return False
    return claim.boot_id != report.presence.boot_id or claim.sequence < report.sequence


def _is_wanted(status: TaskStatus | None, report: CellReport) -> bool:
    """Whether the row waits for this very attempt, or runs as it on this cell."""
    if status is None:
        return False
    return _is_here(status, report) or status.state is TaskState.PENDING


def _is_here(status: TaskStatus, report: CellReport) -> bool:
    return status.state is TaskState.RUNNING and status.cell_id == report.presence.cell_id


async def apply(tx: Transaction, report: CellReport, write_problem: WriteTaskProblem) -> TasksReconciled:
    """Each difference that is still one once its row is locked. Rows are locked in the order of their names."""
    guids = [task.instance_guid for task in report.tasks]
    differences = compare(report, await tx.tasks.list_concerning(report.presence.cell_id, guids))
    lost = []
    for seen in differences.vanished:
        locked = await tx.tasks.lock(seen.task_guid)
        if locked is None or locked.row.updated_at != seen.updated_at:
            continue
        row = locked.row
        told = f"cell {row.cell_id} no longer has task {row.task_guid} ({row.instance_guid})"
        document = document_of(write_problem(row, ContainerVanished(told, outcome=Outcome.ROLLED_BACK)))
        after = task_moves.lost(row, document.detail, locked.now)
        lost.append(await task_rows.save_failed(tx, locked, after, document, "run"))
    return TasksReconciled(differences.stop, tuple(lost), differences.none)
