from datetime import UTC, datetime
from itertools import product

import attrs
import pytest
from hypothesis import given

from diego_py.models import validation
from diego_py.models.actual_lrp import (
    TRANSITIONS,
    ActualLRP,
    ActualLRPEvent,
    ActualLRPState,
    IllegalTransition,
    NetInfo,
    Presence,
    transition,
)
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid
from diego_py.models.workload import ModificationTag
from tests import strategies

U, C, R, X = (
    ActualLRPState.UNCLAIMED,
    ActualLRPState.CLAIMED,
    ActualLRPState.RUNNING,
    ActualLRPState.CRASHED,
)
EXPECTED: dict[ActualLRPEvent, dict[ActualLRPState, ActualLRPState]] = {
    ActualLRPEvent.OFFER: {U: U},
    ActualLRPEvent.CLAIM: {U: C},
    ActualLRPEvent.START: {U: R, C: R, R: R},
    ActualLRPEvent.FAIL: {U: U, C: U},
    ActualLRPEvent.CRASH: {C: X, R: X},
    ActualLRPEvent.LOSE: {C: U, R: U},
    ActualLRPEvent.RETRY: {X: U},
    ActualLRPEvent.RESTART: {U: U, C: U, R: U, X: U},
}
UNCLAIMED = ActualLRP(
    process_guid=ProcessGuid("p"),
    index=0,
    domain=Domain("d"),
    state=U,
    since=datetime(2030, 1, 1, tzinfo=UTC),
    modification_tag=ModificationTag(epoch="e", index=0),
)
PLACED = attrs.evolve(UNCLAIMED, state=C, instance_guid=InstanceGuid("i"), cell_id=CellId("c"))


@pytest.mark.parametrize(("state", "event"), list(product(ActualLRPState, ActualLRPEvent)))
def test_every_pair_of_state_and_event(state: ActualLRPState, event: ActualLRPEvent) -> None:
    expected = EXPECTED[event].get(state)
    if expected is not None:
        assert transition(state, event) is expected
        return
    with pytest.raises(IllegalTransition, match=f"{event} is not allowed from {state}") as failure:
        transition(state, event)
    assert (failure.value.state, failure.value.event) == (state, event)


def test_only_the_app_can_crash_and_only_from_a_cell() -> None:
    crashing = {state for (state, event), after in TRANSITIONS.items() if after is X}
    assert crashing == {C, R}


@pytest.mark.parametrize(
    ("actual", "pointer", "code"),
    [
        (attrs.evolve(UNCLAIMED, state=C), "/instance_guid", "required"),
        (attrs.evolve(PLACED, state=R), "/net_info", "required"),
        (attrs.evolve(PLACED, state=X), "/instance_guid", "invalid"),
        (attrs.evolve(PLACED, net_info=NetInfo(address="a")), "/net_info", "invalid"),
        (attrs.evolve(PLACED, placement_error="no"), "/placement_error", "invalid"),
        (attrs.evolve(UNCLAIMED, presence=Presence.SUSPECT), "/presence", "invalid"),
        (attrs.evolve(UNCLAIMED, index=-1), "/index", "out_of_range"),
    ],
)
def test_each_state_has_what_it_needs_and_no_more(actual: ActualLRP, pointer: str, code: str) -> None:
    assert [(error.pointer, error.code) for error in validation.validate(actual)] == [(pointer, code)]


def test_an_offered_row_is_valid() -> None:
    assert validation.validate(attrs.evolve(UNCLAIMED, instance_guid=InstanceGuid("i"), cell_id=CellId("c"))) == []


@given(strategies.actual_lrps())
def test_keys_name_the_instance_and_its_attempt(actual: ActualLRP) -> None:
    assert (actual.key.process_guid, actual.key.index) == (actual.process_guid, actual.index)
    assert (actual.instance_key is None) is (actual.state in (U, X))
