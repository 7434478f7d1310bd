"""A round's plans as anybody may read them: for each row that is not as desired what was decided, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, islice

from attrs import fields, frozen

from bbs.convergence.plan import Plan, Step
from bbs.convergence.task_plan import TaskPlan, TaskStep
from diego_py.models.actual_lrp import Presence
from diego_py.models.identifiers import CellId, ProcessGuid, TaskGuid

DECISIONS_MAX = 1_000
"""So many are told; of the rest only how many they are. What is held for long comes last."""
LAST = "held"
REPAIRS = tuple(each.name for each in fields(Plan) if each.name not in (LAST, "create", "valve", "wake_at"))
TASK_REPAIRS = tuple(each.name for each in fields(TaskPlan) if each.name != LAST)


@frozen(kw_only=True)
class Decision:
    """What was decided about one instance or one task."""

    process_guid: ProcessGuid | None = None
    index: int | None = None
    presence: Presence | None = None
    task_guid: TaskGuid | None = None
    cell_id: CellId | None = None
    """Where it is or was."""
    decision: str
    """`held`, or the repair that was begun."""
    reason: str
    due_at: datetime | None = None
    """When it is looked at again, if nothing happens before."""


@frozen(kw_only=True)
class Decisions:
    """Of one round."""

    valve: str = ""
    """Why nothing on vanished cells is replaced, if that is so."""
    items: tuple[Decision, ...] = ()
    omitted: int = 0


def decisions_of(plan: Plan, tasks: TaskPlan) -> Decisions:
    """What both plans decided, repairs before what is held."""
    repairs = _of_instances(plan, REPAIRS), _of_tasks(tasks, TASK_REPAIRS)
    found = chain(*repairs, _of_instances(plan, (LAST,)), _of_tasks(tasks, (LAST,)))
    told = tuple(islice(found, DECISIONS_MAX))
    made = [getattr(plan, name) for name in (*REPAIRS, "create", LAST)]
    made += [getattr(tasks, name) for name in (*TASK_REPAIRS, LAST)]
    return Decisions(valve=plan.valve, items=told, omitted=sum(map(len, made)) - len(told))


def _of_instances(plan: Plan, buckets: Sequence[str]) -> Iterator[Decision]:
    for bucket in buckets:
        for item in getattr(plan, bucket):
            step: Step = item
            row = step.row
            yield Decision(
                process_guid=row.process_guid,
                index=row.index,
                presence=row.presence,
                cell_id=row.cell_id,
                decision=bucket,
                reason=step.reason,
                due_at=step.due_at,
            )
    for missing in plan.create if LAST not in buckets else ():
        reason = "the index had no row"
        yield Decision(process_guid=missing.process_guid, index=missing.index, decision="create", reason=reason)


def _of_tasks(plan: TaskPlan, buckets: Sequence[str]) -> Iterator[Decision]:
    for bucket in buckets:
        for item in getattr(plan, bucket):
            step: TaskStep = item
            yield Decision(
                task_guid=step.task.task_guid,
                cell_id=step.task.cell_id,
                decision=bucket,
                reason=step.reason,
                due_at=step.due_at,
            )
