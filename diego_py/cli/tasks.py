"""Tasks as rows of a table and as a few lines: no state without its reason, and when the next attempt is. Pure."""

from __future__ import annotations

from datetime import datetime

from diego_py.cli import instances
from diego_py.cli.lines import BAD, GOOD, Line
from diego_py.models.task import Task, TaskState

TITLES = ("TASK_GUID", "DOMAIN", "STATE", "SINCE", "CELL", "RESULT")
CHARACTERS_MAX = 72


def row(task: Task, now: datetime) -> list[str]:
    """One task."""
    return [
        task.task_guid,
        task.domain,
        f"{task.state} (failed)" if task.failed else str(task.state),
        instances.ago(task.updated_at, now),
        task.cell_id or "-",
        _short(told(task, now)),
    ]


def told(task: Task, now: datetime) -> str:
    """Its result, or why it has none."""
    if task.failed:
        return " ".join((task.failure_reason or "").split())
    if task.state is not TaskState.PENDING:
        return task.result
    why = " ".join((task.rejection_reason or "").split())
    if task.next_attempt_at is None:
        return why
    return f"{why}; next attempt {instances.until(task.next_attempt_at, now)}" if why else "waits"


def standing(task: Task, now: datetime) -> list[Line]:
    """Where a task stands, in full."""
    since = f"since {task.updated_at:%Y-%m-%d %H:%M:%S} UTC ({instances.ago(task.updated_at, now)})"
    where = f" on {task.cell_id}" if task.cell_id else ""
    state = f"{task.state} (failed)" if task.failed else str(task.state)
    lines = [Line(f"{task.task_guid}: {state}{where} {since}", BAD if task.failed else GOOD)]
    return lines + [Line(f"  {line}") for line in told(task, now).splitlines()]


def _short(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= CHARACTERS_MAX else f"{one[:CHARACTERS_MAX]}…"
