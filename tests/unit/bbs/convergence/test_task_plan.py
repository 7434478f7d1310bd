"""What is planned for each task, and what never is, whatever the snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbs.convergence.task_plan import COMPLETED_MAX_S, KICK_S, PENDING_MAX_S, TaskPlan, TaskSnapshot, plan
from bbs.task_status import TaskStatus
from diego_py.models.identifiers import CellId, TaskGuid
from diego_py.models.task import TaskState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CELLS = [CellId(f"cell-{number}") for number in range(4)]
PENDING, RUNNING, COMPLETED, RESOLVING = TaskState
BUCKETS = ("expire", "place", "lose", "recall", "call_back", "delete", "held")


def status(state: TaskState, **facts: Any) -> TaskStatus:
    """A task in this state since `ago` seconds; made, changed and completed then unless told otherwise."""
    at = NOW - timedelta(seconds=facts.pop("ago", 0.0))
    told = {
        "task_guid": TaskGuid("job"),
        "cell_id": None if state is PENDING else CELLS[0],
        "created_at": at,
        "updated_at": at,
        "first_completed_at": at if state in (COMPLETED, RESOLVING) else None,
    }
    return TaskStatus(state=state, **(told | facts))


def snapshot(*tasks: TaskStatus, live: list[CellId] | None = None, may_lose: bool = True) -> TaskSnapshot:
    return TaskSnapshot(NOW, tasks, frozenset(CELLS if live is None else live), frozenset(CELLS), frozenset(), may_lose)


def buckets_of(made: TaskPlan) -> dict[str, int]:
    return {name: len(getattr(made, name)) for name in BUCKETS if getattr(made, name)}


LATER, DUE = NOW + timedelta(seconds=9), NOW - timedelta(seconds=1)
CASES: dict[str, tuple[TaskStatus, str]] = {
    "just stored": (status(PENDING), ""),
    "its BBS died": (status(PENDING, ago=KICK_S), "place"),
    "tried, and waits": (status(PENDING, next_attempt_at=LATER, attempts=1), "held"),
    "tried, and due": (status(PENDING, next_attempt_at=DUE, attempts=1), "place"),
    "too old": (status(PENDING, ago=PENDING_MAX_S, next_attempt_at=DUE), "expire"),
    "too old, and tried a moment ago": (status(PENDING, ago=PENDING_MAX_S, updated_at=NOW), "expire"),
    "runs": (status(RUNNING, ago=PENDING_MAX_S), ""),
    "its cell is gone": (status(RUNNING, cell_id=CellId("gone")), "lose"),
    "ended": (status(COMPLETED), ""),
    "ended long ago": (status(COMPLETED, ago=COMPLETED_MAX_S), "delete"),
    "to be called back for now": (status(COMPLETED, has_callback=True), ""),
    "nobody called back": (status(COMPLETED, ago=KICK_S, has_callback=True), "call_back"),
    "nobody wants to be called": (status(COMPLETED, ago=KICK_S), ""),
    "taken": (status(RESOLVING), ""),
    "who took it died": (status(RESOLVING, ago=KICK_S), "recall"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case(name: str) -> None:
    task, bucket = CASES[name]
    made = plan(snapshot(task))
    assert buckets_of(made) == ({bucket: 1} if bucket else {})
    assert made.empty == (bucket in ("", "held"))
    for step in getattr(made, bucket) if bucket else ():
        assert step.task is task
        assert step.reason


@pytest.mark.parametrize(
    ("live", "may_lose", "lost"),
    [(CELLS[1:], True, True), (CELLS[1:], False, False), (CELLS[3:], True, False), ([], True, False)],
)
def test_a_cell_is_lost_only_when_that_means_something(live: list[CellId], may_lose: bool, lost: bool) -> None:
    """Not by a leader that has just come, and not when most of them vanish at once."""
    made = plan(snapshot(status(RUNNING), live=live, may_lose=may_lose))
    assert buckets_of(made) == ({"lose": 1} if lost else {"held": 1})


@st.composite
def statuses(draw: st.DrawFn) -> TaskStatus:
    state = draw(st.sampled_from(TaskState))
    ago = st.integers(0, 4000).map(lambda seconds: NOW - timedelta(seconds=seconds))
    return status(
        state,
        task_guid=TaskGuid(draw(st.sampled_from("abcdef"))),
        created_at=draw(ago),
        updated_at=draw(ago),
        next_attempt_at=draw(st.none() | ago) if state is PENDING else None,
        has_callback=draw(st.booleans()),
        cell_id=None if state is PENDING else draw(st.sampled_from(CELLS)),
    )


@given(
    st.lists(statuses(), max_size=8, unique_by=lambda task: task.task_guid),
    st.sets(st.sampled_from(CELLS)),
    st.booleans(),
)
def test_whatever_there_is(tasks: list[TaskStatus], live: set[CellId], may_lose: bool) -> None:
    seen = snapshot(*tasks, live=sorted(live), may_lose=may_lose)
    made = plan(seen)
    steps = [step for name in BUCKETS for step in getattr(made, name)]
    assert len({step.task.task_guid for step in steps}) == len(steps), "at most one repair a task"
    assert {step.task.state for step in (*made.place, *made.expire)} <= {PENDING}, "what runs is never placed again"
    assert all(step.task.cell_id not in live for step in made.lose)
    assert {step.task.state for step in made.lose} <= {RUNNING}
    assert not made.lose or may_lose
    assert {step.task.state for step in (*made.delete, *made.call_back)} <= {COMPLETED}
    assert {step.task.state for step in made.recall} <= {RESOLVING}
    assert all(step.reason for step in steps)
