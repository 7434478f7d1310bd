"""What may happen to a task on its cell: every pair of state and event, and what may be told of it."""

import itertools

import pytest

from cells.rep.tasks import CellTask, CellTaskEvent, TaskIdentity, transition
from diego_py.models.identifiers import Domain, InstanceGuid, TaskGuid
from diego_py.models.task_work import CellTaskState
from diego_py.models.transitions import IllegalTransition
from diego_py.models.workload import Resources

V, C, R, S, X = (
    CellTaskState.RESERVED,
    CellTaskState.CREATED,
    CellTaskState.RUNNING,
    CellTaskState.STOPPING,
    CellTaskState.COMPLETED,
)
EXPECTED: dict[CellTaskEvent, dict[CellTaskState, CellTaskState]] = {
    CellTaskEvent.CLAIM: {V: C},
    CellTaskEvent.START: {C: R},
    CellTaskEvent.FAIL: {V: S, C: S},
    CellTaskEvent.STOP: {V: S, C: S, R: S, S: S},
    CellTaskEvent.END: {R: S},
    CellTaskEvent.VANISH: {S: X},
}


def task_in(state: CellTaskState) -> CellTask:
    identity = TaskIdentity(
        task_guid=TaskGuid("t"),
        domain=Domain("d"),
        instance_guid=InstanceGuid("i"),
        resources=Resources(memory_mb=1, disk_mb=1),
    )
    return CellTask(identity, "claim", state)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(CellTaskState, CellTaskEvent)))
def test_every_pair_of_state_and_event(state: CellTaskState, event: CellTaskEvent) -> None:
    expected, task = EXPECTED[event].get(state), task_in(state)
    if expected is not None:
        assert transition(state, event) is expected
        task.happen(event)
        assert task.report().state is expected
        return
    with pytest.raises(IllegalTransition, match=f"{event} is not allowed from {state}") as failure:
        task.happen(event)
    assert (failure.value.state, failure.value.event) == (state, event)
    assert task.state is state


def test_what_has_a_container_is_never_forgotten_before_somebody_ended_it() -> None:
    assert {state for state in CellTaskState if CellTaskEvent.VANISH in _allowed(state)} == {S}


def _allowed(state: CellTaskState) -> set[CellTaskEvent]:
    return {event for event, moves in EXPECTED.items() if state in moves}
