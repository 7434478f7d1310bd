"""Everything that a round decided can be read, in bounds, and comes back from JSON as it was."""

import msgspec
from attrs import evolve
from hypothesis import given

from bbs.convergence.decisions import DECISIONS_MAX, Decisions, decisions_of
from bbs.convergence.plan import Plan, Snapshot, Step
from bbs.convergence.task_plan import TaskPlan
from diego_py.models.actual_lrp import ActualLRPState
from tests.unit.bbs.convergence.snapshots import NOW, plan, row, snapshots


@given(snapshots())
def test_each_step_is_told_with_its_reason(cluster: Snapshot) -> None:
    planned = plan(cluster)
    told = decisions_of(planned, TaskPlan())
    assert told.valve == planned.valve
    missing = [(item.process_guid, item.index) for item in told.items if item.decision == "create"]
    assert missing == [(item.process_guid, item.index) for item in planned.create]
    for item in told.items:
        if item.decision != "create":
            (step,) = [s for s in getattr(planned, item.decision) if _key(s) == (*_of(item), item.presence)]
            assert (item.reason, item.cell_id, item.due_at) == (step.reason, step.row.cell_id, step.due_at)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Decisions) == told


@given(snapshots())
def test_what_waits_for_a_time_is_due_then_and_in_no_plan_before(cluster: Snapshot) -> None:
    for step in plan(cluster).held:
        if step.due_at is None:
            continue
        assert step.due_at > cluster.now
        later = plan(evolve(cluster, now=step.due_at))
        assert step.row not in [each.row for each in later.held if each.due_at == step.due_at]


def test_repairs_are_told_before_what_is_held_when_it_is_too_much() -> None:
    waiting = row(ActualLRPState.UNCLAIMED)
    held = tuple(Step(evolve(waiting, index=index), "waits", NOW) for index in range(DECISIONS_MAX))
    told = decisions_of(Plan(held=held, lose=(Step(waiting, "lost"),)), TaskPlan())
    assert (told.items[0].decision, len(told.items), told.omitted) == ("lose", DECISIONS_MAX, 1)


def _of(item: object) -> tuple[object, object]:
    return item.process_guid, item.index  # type: ignore[attr-defined]


def _key(step: Step) -> tuple[object, ...]:
    return step.row.process_guid, step.row.index, step.row.presence
