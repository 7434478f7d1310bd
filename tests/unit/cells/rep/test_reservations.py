"""The books never promise more than there is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.rep.reservations import Reservations
from diego_py.errors import InsufficientResources
from diego_py.models.cell import CellCapacity
from diego_py.models.workload import Resources

CAPACITY = CellCapacity(memory_mb=1000, disk_mb=500, containers=5)

resources = st.builds(Resources, memory_mb=st.integers(0, 700), disk_mb=st.integers(0, 400))
handles = st.sampled_from([f"h{n}" for n in range(8)])
steps = st.lists(st.tuples(st.sampled_from(["reserve", "release"]), handles, resources), max_size=60)


@given(steps)
def test_never_more_than_the_capacity(sequence: list[tuple[str, str, Resources]]) -> None:
    books = Reservations(CAPACITY)
    taken: dict[str, Resources] = {}
    last = books.sequence
    for op, handle, need in sequence:
        if op == "release":
            books.release(handle)
            taken.pop(handle, None)
        elif handle not in taken:
            placement = refusal(books, handle, need)
            if placement is None:
                taken[handle] = need
            else:
                assert placement["lacks"]
                for name in placement["lacks"]:
                    assert placement["need"][name] > placement["have"][name]
        available = books.available()
        assert available.memory_mb == CAPACITY.memory_mb - sum(need.memory_mb for need in taken.values()) >= 0
        assert available.disk_mb == CAPACITY.disk_mb - sum(need.disk_mb for need in taken.values()) >= 0
        assert available.containers == CAPACITY.containers - len(taken) >= 0
        assert books.sequence >= last
        last = books.sequence


def refusal(books: Reservations, handle: str, need: Resources) -> Any:
    """Why it was refused, None if it was not."""
    try:
        books.reserve(handle, need)
    except InsufficientResources as refused:
        return refused.placement
    return None


def test_unlimited_takes_nothing_even_of_a_full_cell() -> None:
    books = Reservations(CAPACITY)
    books.adopt("big", Resources(memory_mb=2000, disk_mb=0))
    books.reserve("unlimited", Resources(memory_mb=0, disk_mb=0))
    assert books.available().memory_mb == -1000
    with pytest.raises(InsufficientResources):
        books.reserve("one", Resources(memory_mb=1, disk_mb=0))


def test_release_is_idempotent() -> None:
    books = Reservations(CAPACITY)
    books.release("nobody")
    assert books.sequence == 0
