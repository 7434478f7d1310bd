from collections.abc import Mapping
from typing import Annotated, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diego_py.models import validation
from diego_py.models.fields import FieldError, Limits, pointer_to
from tests import strategies

VALID = {
    "definition": strategies.desired_lrp_definitions(),
    "task_definition": strategies.task_definitions(),
    "actual_lrp": strategies.actual_lrps(),
    "presence": strategies.cell_presences,
}


@attrs.frozen(kw_only=True)
class Sample:
    """A noun with every kind of limit."""

    number: Annotated[int, Limits(minimum=2, maximum=4)] = 3
    text: Annotated[str, Limits(bytes_min=1, bytes_max=4)] = "a"
    items: Annotated[tuple[str, ...], Limits(items_max=2, unique=True)] = ()
    table: Annotated[Mapping[str, str], Limits(items_max=1)] = attrs.field(factory=dict)
    json: Annotated[Mapping[str, Any], Limits(bytes_max=20)] = attrs.field(factory=dict)
    inner: "Sample | None" = None


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"": value}
    return value


@pytest.mark.parametrize("kind", VALID)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_the_strategies_make_is_valid(kind: str, data: st.DataObject) -> None:
    assert validation.validate(data.draw(VALID[kind])) == []


@pytest.mark.parametrize(
    ("sample", "pointer", "code"),
    [
        (Sample(number=1), "/number", "out_of_range"),
        (Sample(number=5), "/number", "out_of_range"),
        (Sample(text=""), "/text", "required"),
        (Sample(text="ééé"), "/text", "too_long"),
        (Sample(text="a\0"), "/text", "invalid"),
        (Sample(text="\ud800"), "/text", "invalid"),
        (Sample(items=("a", "a")), "/items/1", "duplicate"),
        (Sample(items=("a", "b", "c")), "/items", "too_long"),
        (Sample(table={"a": "", "b": ""}), "/table", "too_long"),
        (Sample(table={"a\0": ""}), "/table/a\0", "invalid"),
        (Sample(table={"a/b": "\0"}), "/table/a~1b", "invalid"),
        (Sample(json={"k": "x" * 20}), "/json", "too_long"),
        (Sample(json={"k": ["", "\0"]}), "/json/k/1", "invalid"),
        (Sample(json={"k\0": 1}), "/json", "invalid"),
        (Sample(json={"k": object()}), "/json", "wrong_type"),
        (Sample(json=nested(100_000)), "/json", "too_long"),
        (Sample(inner=Sample(inner=Sample(number=0))), "/inner/inner/number", "out_of_range"),
    ],
)
def test_each_limit_is_reported_with_its_pointer(sample: Sample, pointer: str, code: str) -> None:
    assert [(error.pointer, error.code) for error in validation.validate(sample)] == [(pointer, code)]


def test_at_the_limit_is_allowed() -> None:
    sample = Sample(number=4, text="éé", items=("a", "b"), table={"a": ""}, json={"k": "x" * 12})
    assert validation.validate(sample) == []


def test_an_escaped_backslash_is_no_nul_byte() -> None:
    assert validation.validate(Sample(json={"k": "\\u0000"})) == []


def test_a_flood_of_errors_is_cut() -> None:
    sample = Sample(inner=Sample(items=("a", "b")))
    flood = attrs.evolve(sample, table={})
    for _ in range(validation.FIELD_ERRORS_MAX + 50):
        flood = Sample(number=0, inner=flood)
    assert len(validation.validate(flood)) == validation.FIELD_ERRORS_MAX


@given(st.integers(1, 30), st.integers(0, 30))
def test_depth_counts_objects_and_lists(depth: int, limit: int) -> None:
    assert validation.depth_exceeds(nested(depth), limit) is (depth > limit)


def test_pointers_are_escaped_and_cut() -> None:
    assert pointer_to("a/b", 1, "~") == "/a~1b/1/~0"
    assert len(pointer_to("x" * 5000)) < 200
    assert FieldError("/user", "required", "").below("/action/run").pointer == "/action/run/user"
