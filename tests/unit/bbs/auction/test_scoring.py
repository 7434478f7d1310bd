"""The terms of a score and their weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbs.auction.auction import choose
from bbs.auction.cell_view import Room
from bbs.auction.scoring import load, score, used_fraction
from tests.unit.bbs.auction.cells import cell, demand


def test_the_terms_are_named() -> None:
    view = cell("c", available=Room(600, 1_000, 10), starting=2, instances={"web": 3, "worker": 9})
    assert score(view, demand(memory_mb=100, disk_mb=500)) == {
        "load": pytest.approx((0.5 + 0.5 + 0.1) / 3),
        "starting": 0.5,
        "same_process": 3_000.0,
        "unasked_tags": 0.0,
    }


def test_cells_with_optional_tags_are_kept_for_who_asks_for_them() -> None:
    plain, special = cell("plain", memory_mb=200), cell("special", optional_placement_tags=frozenset({"ssd"}))
    assert choose(demand(), [special, plain]).cell_id == "plain", "however full it gets"
    assert choose(demand(placement_tags=frozenset({"ssd"})), [special, plain]).cell_id == "special"
    assert choose(demand(memory_mb=300), [special, plain]).cell_id == "special", "better than none"
    crowded = cell("crowded", instances={"web": 1})
    assert choose(demand(), [special, crowded]).cell_id == "special", "spread counts more"


@given(st.integers(0, 100), st.integers(0, 100))
def test_used_is_a_fraction(capacity: int, used: int) -> None:
    fraction = used_fraction(capacity, capacity - min(used, capacity))
    assert 0.0 <= fraction <= 1.0


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))
def test_more_use_is_more_load(capacity: int, less: int, more: int) -> None:
    room = Room(capacity, capacity, capacity)
    free = sorted((min(less, capacity), min(more, capacity)), reverse=True)
    loads = [load(room, Room(amount, amount, amount)) for amount in free]
    assert loads == sorted(loads)


def test_a_cell_without_disk_counts_as_empty_of_it() -> None:
    assert load(Room(10, 0, 10), Room(5, 0, 5)) == pytest.approx(1 / 3)
