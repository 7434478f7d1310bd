import attrs
import pytest

from diego_py.models import validation
from diego_py.models.cell import CellCapacity, CellPresence
from diego_py.models.identifiers import CellId, is_guid

PRESENCE = CellPresence(
    cell_id=CellId("c"),
    url="http://10.0.0.1:1800",
    capacity=CellCapacity(memory_mb=1, disk_mb=0, containers=1),
    boot_id="b",
)


def test_the_smallest_cell_is_valid() -> None:
    assert validation.validate(PRESENCE) == []


@pytest.mark.parametrize(
    ("presence", "pointer"),
    [
        (attrs.evolve(PRESENCE, cell_id=CellId("")), "/cell_id"),
        (attrs.evolve(PRESENCE, url="10.0.0.1"), "/url"),
        (attrs.evolve(PRESENCE, capacity=CellCapacity(memory_mb=0, disk_mb=0, containers=1)), "/capacity/memory_mb"),
        (attrs.evolve(PRESENCE, capacity=CellCapacity(memory_mb=1, disk_mb=0, containers=0)), "/capacity/containers"),
        (attrs.evolve(PRESENCE, placement_tags=("a", "a")), "/placement_tags/1"),
    ],
)
def test_each_bad_field_is_named(presence: CellPresence, pointer: str) -> None:
    assert [error.pointer for error in validation.validate(presence)] == [pointer]


@pytest.mark.parametrize(
    ("text", "valid"), [("a-B_9", True), ("", False), ("a b", False), ("a\n", False), ("é", False), ("x" * 256, False)]
)
def test_guids(text: str, valid: bool) -> None:
    assert is_guid(text) is valid
