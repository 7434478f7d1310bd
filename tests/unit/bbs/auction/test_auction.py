"""What every auction must hold: room, reasons, zones, spread; the same words in give the same cells out."""

from collections import Counter
from collections.abc import Sequence

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bbs.auction.auction import Assignment, assign, choose
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.reasons import ruled_out
from diego_py.models.identifiers import CellId
from tests.unit.bbs.auction.cells import cell, cell_lists, demand, demands


def used(cell_id: CellId, assignments: Sequence[Assignment]) -> Room:
    needs = [assignment.demand.need for assignment in assignments if assignment.cell_id == cell_id]
    return Room(
        sum(need.memory_mb for need in needs),
        sum(need.disk_mb for need in needs),
        sum(need.containers for need in needs),
    )


def fits(view: CellView, wanted: Demand) -> bool:
    """The rules once more, in the words of the specification."""
    scheme, _, name = wanted.rootfs.partition(":")
    offered = view.rootfs_providers.get(scheme)
    return (
        not view.draining
        and offered is not None
        and (not offered or name in offered)
        and view.placement_tags <= wanted.placement_tags
        and wanted.placement_tags <= view.placement_tags | view.optional_placement_tags
        and (view.privileged or not wanted.privileged)
        and wanted.need.memory_mb <= view.available.memory_mb
        and wanted.need.disk_mb <= view.available.disk_mb
        and wanted.need.containers <= view.available.containers
    )


@given(st.lists(demands, max_size=12), cell_lists)
def test_no_cell_gets_more_than_it_has(wanted: list[Demand], cells: list[CellView]) -> None:
    assignments = assign(wanted, cells)
    for view in cells:
        taken = used(view.cell_id, assignments)
        assert taken.memory_mb <= view.available.memory_mb
        assert taken.disk_mb <= view.available.disk_mb
        assert taken.containers <= view.available.containers


@given(demands, cell_lists)
def test_a_demand_is_placed_exactly_if_it_fits_somewhere(wanted: Demand, cells: list[CellView]) -> None:
    assignment = choose(wanted, cells)
    suitable = {view.cell_id for view in cells if fits(view, wanted)}
    assert (assignment.cell_id is not None) is bool(suitable)
    assert assignment.cell_id in suitable or not suitable
    assert {bid.cell_id for bid in assignment.bids if bid.score is not None} == suitable


@given(st.lists(demands, max_size=12), cell_lists)
def test_each_demand_of_a_batch_is_placed_if_it_still_fits_somewhere(
    wanted: list[Demand], cells: list[CellView]
) -> None:
    left = list(cells)
    for assignment in assign(wanted, cells):
        assert (assignment.cell_id is not None) is any(fits(view, assignment.demand) for view in left)
        left = [view.with_one_more(assignment.demand) if view.cell_id == assignment.cell_id else view for view in left]


@given(demands, cell_lists)
def test_every_cell_bids_and_every_refusal_has_its_reason_with_numbers(wanted: Demand, cells: list[CellView]) -> None:
    assignment = choose(wanted, cells)
    assert [bid.cell_id for bid in assignment.bids] == [view.cell_id for view in cells]
    winners = [bid.cell_id for bid in assignment.bids if bid.verdict == "won"]
    assert winners == ([assignment.cell_id] if assignment.cell_id else [])
    for bid, view in zip(assignment.bids, cells, strict=True):
        assert bid.have == view.available
        if bid.score is not None:
            assert bid.verdict in ("won", "fits")
            assert set(bid.parts) == {"load", "starting", "same_process", "unasked_tags"}
        elif bid.verdict == "no_fit":
            assert bid.lacks
            for name, amounts in bid.lacks.items():
                assert amounts["need"] == getattr(wanted.need, name)
                assert amounts["have"] == max(0, getattr(view.available, name))
                assert amounts["need"] > amounts["have"]
        else:
            assert bid.verdict in ("rootfs", "placement_tags", "privileged", "draining")
            assert bid.detail


@given(demands, cell_lists, cell_lists)
def test_more_cells_never_turn_a_placement_into_a_refusal(
    wanted: Demand, cells: list[CellView], added: list[CellView]
) -> None:
    more = [*cells, *(evolve(view, cell_id=CellId(f"new-{view.cell_id}")) for view in added)]
    if choose(wanted, cells).cell_id is not None:
        assert choose(wanted, more).cell_id is not None


@given(demands, st.integers(1, 12), cell_lists, cell_lists)
def test_more_cells_never_place_fewer_instances_of_one_process(
    wanted: Demand, count: int, cells: list[CellView], added: list[CellView]
) -> None:
    more = [*cells, *(evolve(view, cell_id=CellId(f"new-{view.cell_id}")) for view in added)]
    batch = [evolve(wanted, index=index) for index in range(count)]
    placed = [sum(a.cell_id is not None for a in assign(batch, known)) for known in (cells, more)]
    assert placed[0] <= placed[1]


@given(st.lists(demands, max_size=6), cell_lists)
def test_the_same_auction_has_the_same_result(wanted: list[Demand], cells: list[CellView]) -> None:
    before = list(cells)
    assert assign(wanted, cells) == assign(wanted, cells)
    assert cells == before


@given(demands, cell_lists, st.frozensets(st.integers(0, 99).map(lambda n: f"cell-{n:02}"), max_size=30))
def test_cells_that_were_tried_are_left_out(wanted: Demand, cells: list[CellView], tried: frozenset[str]) -> None:
    assignment = choose(wanted, cells, tried)
    assert assignment.cell_id not in tried
    assert all(bid.verdict == "tried" for bid in assignment.bids if bid.cell_id in tried)
    assert assignment.cell_id == choose(wanted, [view for view in cells if view.cell_id not in tried]).cell_id


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 30))
def test_equal_zones_and_cells_get_equal_shares(zones: int, cells_per_zone: int, count: int) -> None:
    cells = [
        cell(f"cell-{zone}-{n}", memory_mb=10_000, disk_mb=10_000, containers=100, zone=f"z{zone}")
        for zone in range(zones)
        for n in range(cells_per_zone)
    ]
    assignments = assign([demand(index=index) for index in range(count)], cells)
    by_cell = Counter(assignment.cell_id for assignment in assignments)
    zone_of = {view.cell_id: view.zone for view in cells}
    by_zone = Counter(zone_of[a.cell_id] for a in assignments if a.cell_id is not None)
    assert sum(by_cell.values()) == count
    zone_counts = [by_zone[f"z{zone}"] for zone in range(zones)]
    assert max(zone_counts) - min(zone_counts) <= 1
    for zone in range(zones):
        shares = [by_cell[view.cell_id] for view in cells if view.zone == f"z{zone}"]
        assert max(shares) - min(shares) <= 1


def test_instances_of_one_process_avoid_each_other_before_load_counts() -> None:
    busy = cell("busy", available=Room(100, 100, 1))
    home = cell("home", instances={"web": 1})
    assert choose(demand("web"), [home, busy]).cell_id == "busy"
    assert choose(demand("worker"), [home, busy]).cell_id == "home"


def test_a_zone_with_fewer_instances_comes_before_a_better_cell() -> None:
    empty = cell("empty", zone="z1")
    home = cell("home", zone="z1", instances={"web": 1})
    busy = cell("busy", zone="z2", available=Room(100, 100, 1))
    assert choose(demand("web"), [empty, home, busy]).cell_id == "busy"


def test_a_full_zone_is_passed_over() -> None:
    full = cell("full", zone="z1", available=Room(0, 0, 0))
    home = cell("home", zone="z2", instances={"web": 5})
    assert choose(demand("web"), [full, home]).cell_id == "home"


def test_the_emptier_cell_wins_and_then_the_first() -> None:
    half, empty = cell("half", available=Room(500, 500, 5)), cell("empty")
    assert choose(demand(), [half, empty]).cell_id == "empty"
    assert choose(demand(), [cell("b"), cell("a")]).cell_id == "b"


def test_a_cell_that_is_starting_much_is_spared() -> None:
    assert choose(demand(), [cell("starting", starting=4), cell("half", available=Room(500, 500, 5))]).cell_id == "half"


def test_no_cells_no_bids() -> None:
    assert choose(demand(), []) == Assignment(demand(), None, ())
    assert assign([], [cell("a")]) == []


def test_no_limit_costs_nothing_but_a_container() -> None:
    overbooked = cell("a", available=Room(-5, -5, 1))
    assert choose(demand(memory_mb=0, disk_mb=0), [overbooked]).cell_id == "a"
    assert ruled_out(overbooked, demand(memory_mb=1), frozenset()) is not None
