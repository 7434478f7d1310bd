"""A refused body names every bad field at once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from diego_py import wire
from diego_py.bad_fields import bad_fields
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.validation import validate
from tests import strategies


def test_unknown_missing_mistyped_and_out_of_bounds_fields_are_told_together() -> None:
    body: dict[str, Any] = {
        "process_guid": "not a guid",
        "rootfs": "preloaded:busybox",
        "instances": -1,
        "memory_mb": "64",
        "ports": [8080, 70_000, "x"],
        "action": {"run": {"path": "/" + "x" * 5000}},
        "colour": "green",
    }
    told = {(error.pointer, error.code) for error in bad_fields(DesiredLRPDefinition, body)}
    assert told == {
        ("/process_guid", "invalid"),
        ("/domain", "required"),
        ("/instances", "out_of_range"),
        ("/memory_mb", "wrong_type"),
        ("/ports/1", "out_of_range"),
        ("/ports/2", "wrong_type"),
        ("/action/run/path", "too_long"),
        ("/colour", "unknown_field"),
    }


@given(strategies.desired_lrp_definitions(), st.integers(-5, -1))
@settings(max_examples=30)
def test_one_error_of_each_kind_is_told_beside_what_is_well(definition: DesiredLRPDefinition, low: int) -> None:
    body: Any = wire.to_builtins_revealed(definition)
    assert bad_fields(DesiredLRPDefinition, body) == ()
    assert not validate(definition)
    body |= {"memory_mb": low, "no_such_field": 1}
    told = {(error.pointer, error.code) for error in bad_fields(DesiredLRPDefinition, body)}
    assert told == {("/memory_mb", "out_of_range"), ("/no_such_field", "unknown_field")}
