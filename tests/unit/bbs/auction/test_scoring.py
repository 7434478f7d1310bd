"""The terms of a score and their weights."""

from math import fsum
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbs.auction import auction
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.scoring import exact, weight
from diego_py.models.identifiers import CellId
from tests.unit.bbs.auction.cells import cell, demand, fleet_of


def winner(wanted: Demand, *cells: CellView) -> CellId | None:
    return auction.choose(fleet_of(cells), wanted).cell_id


def test_cells_with_optional_tags_are_kept_for_who_asks_for_them() -> None:
    plain, special = cell("plain", memory_mb=200), cell("special", optional_placement_tags=frozenset({"ssd"}))
    assert winner(demand(), special, plain) == "plain", "however full it gets"
    assert winner(demand(placement_tags=frozenset({"ssd"})), special, plain) == "special"
    assert winner(demand(memory_mb=300), special, plain) == "special", "better than none"
    crowded = cell("crowded", instances={"web": 1})
    assert winner(demand(), special, crowded) == "special", "spread counts more"


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))
def test_more_use_is_more_load(capacity: int, less: int, more: int) -> None:
    free = sorted((min(less, capacity), min(more, capacity)), reverse=True)
    cells = [cell(f"c{n}", capacity, capacity, capacity, available=Room(m, m, m)) for n, m in enumerate(free)]
    fleet = fleet_of(cells)
    loads = [fleet.columns.base.at[fleet.slots[view.cell_id]] for view in cells]
    assert loads == sorted(loads)
    assert all(0 <= each <= 1 + 1e-9 for each in loads)


amounts = st.tuples(st.integers(1, 2**24), st.floats(0, 1)).map(lambda of: int(of[0] * of[1]) * weight(of[0]))


@given(st.lists(amounts | st.integers(0, 1_000).map(float), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_sums_of_terms_are_the_same_in_whatever_order(terms: list[float], random: Random) -> None:
    shuffled = random.sample(terms, len(terms))
    assert sum(shuffled) == sum(terms) == fsum(terms)
    assert exact(sum(terms)) == sum(terms)


def test_all_of_a_resource_is_a_third_of_the_load_and_a_cell_without_any_counts_as_empty_of_it() -> None:
    assert 3 * 300 * weight(300) == pytest.approx(1)
    assert weight(0) == 0
    fleet = fleet_of([cell("a", 10, 0, 10, available=Room(5, 0, 5))])
    assert fleet.columns.base.at[0] == pytest.approx(1 / 3)
