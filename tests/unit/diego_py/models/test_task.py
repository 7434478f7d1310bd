from itertools import product

import pytest

from diego_py.models.actions import Action, RunAction
from diego_py.models.identifiers import Domain, TaskGuid
from diego_py.models.task import (
    IllegalTransition,
    TaskDefinition,
    TaskEvent,
    TaskRequest,
    TaskState,
    transition,
    validate,
)

P, R, C, V = TaskState.PENDING, TaskState.RUNNING, TaskState.COMPLETED, TaskState.RESOLVING
EXPECTED: dict[TaskEvent, dict[TaskState, TaskState]] = {
    TaskEvent.OFFER: {P: P},
    TaskEvent.START: {P: R},
    TaskEvent.REJECT: {P: P, R: P},
    TaskEvent.FAIL: {P: C, R: C},
    TaskEvent.COMPLETE: {R: C},
    TaskEvent.CANCEL: {P: C, R: C},
    TaskEvent.EXPIRE: {P: C},
    TaskEvent.LOSE: {R: C},
    TaskEvent.RESOLVE: {C: V},
    TaskEvent.RECALL: {V: C},
}


@pytest.mark.parametrize(("state", "event"), list(product(TaskState, TaskEvent)))
def test_every_pair_of_state_and_event(state: TaskState, event: TaskEvent) -> None:
    expected = EXPECTED[event].get(state)
    if expected is not None:
        assert transition(state, event) is expected
        return
    with pytest.raises(IllegalTransition) as failure:
        transition(state, event)
    assert (failure.value.state, failure.value.event) == (state, event)


def test_every_bad_field_of_a_request_is_reported() -> None:
    definition = TaskDefinition(
        rootfs="cflinuxfs4",
        action=Action(run=RunAction(path="", user="")),
        memory_mb=-1,
        completion_callback_url="ftp://client.test",
    )
    request = TaskRequest(task_guid=TaskGuid("no spaces"), domain=Domain(""), definition=definition)
    assert [(error.pointer, error.code) for error in validate(request)] == [
        ("/task_guid", "invalid"),
        ("/domain", "required"),
        ("/definition/rootfs", "invalid"),
        ("/definition/memory_mb", "out_of_range"),
        ("/definition/completion_callback_url", "invalid"),
        ("/definition/action/run/path", "required"),
        ("/definition/action/run/user", "required"),
    ]
