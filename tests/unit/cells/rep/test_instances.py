"""The table of states is the specification: every pair is either in it or refused."""

import itertools

import pytest

from cells.rep.instances import TRANSITIONS, InstanceEvent, transition
from diego_py.models.transitions import IllegalTransition
from diego_py.models.work import InstanceState


@pytest.mark.parametrize(("state", "event"), list(itertools.product(InstanceState, InstanceEvent)))
def test_every_pair(state: InstanceState, event: InstanceEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(IllegalTransition):
        transition(state, event)


def test_every_state_can_be_stopped() -> None:
    assert {transition(state, InstanceEvent.STOP) for state in InstanceState} == {InstanceState.STOPPING}


def test_nothing_leaves_stopping() -> None:
    assert {to for (state, _), to in TRANSITIONS.items() if state is InstanceState.STOPPING} == {InstanceState.STOPPING}
