"""What every auction must hold: room, zones, spread; the same cell as the slow and obvious auction finds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from bbs.auction import auction
from bbs.auction.auction import ALIKE_MIN, PASSED_OVER_MAX
from bbs.auction.cell_view import Assignment, CellView, Demand, Room
from bbs.auction.scoring import IMAGE_WEIGHT, RUSH_BUNDLE
from diego_py.models.identifiers import CellId
from tests.unit.bbs.auction import reference
from tests.unit.bbs.auction.cells import (
    IMAGE,
    OTHER_IMAGE,
    alike,
    cell,
    cell_lists,
    demand,
    demands,
    fleet_of,
    plain_cell_lists,
)
from tests.unit.bbs.auction.reference import fits, with_one_more

DIGEST = "sha256:" + "0" * 64
weights = st.sampled_from([0.0, 0.0, 0.125])


def choose(wanted: Demand, cells: Sequence[CellView], tried: frozenset[str] = frozenset()) -> Assignment:
    return auction.choose(fleet_of(cells), wanted, tried)


def assign(wanted: Sequence[Demand], cells: Sequence[CellView]) -> list[Assignment]:
    return auction.assign(fleet_of(cells), wanted)


def used(cell_id: CellId, assignments: Sequence[Assignment]) -> Room:
    needs = [assignment.demand.need for assignment in assignments if assignment.cell_id == cell_id]
    return Room(
        sum(need.memory_mb for need in needs),
        sum(need.disk_mb for need in needs),
        sum(need.containers for need in needs),
    )


some_cells = st.frozensets(st.integers(0, 99).map(lambda n: f"cell-{n:02}"), max_size=30)


@given(demands, cell_lists, some_cells, weights, st.booleans())
def test_one_demand_goes_where_the_obvious_auction_has_it_go(
    wanted: Demand, cells: list[CellView], tried: frozenset[str], bin_pack_weight: float, rush: bool
) -> None:
    chosen = auction.choose(fleet_of(cells, bin_pack_weight, rush), wanted, tried)
    assert chosen == reference.choose(wanted, cells, tried, bin_pack_weight, rush)


@given(st.lists(demands, max_size=12), cell_lists, weights, st.booleans())
def test_demands_of_every_sort_go_where_the_obvious_auction_has_them_go(
    wanted: list[Demand], cells: list[CellView], bin_pack_weight: float, rush: bool
) -> None:
    assigned = auction.assign(fleet_of(cells, bin_pack_weight, rush), wanted)
    assert assigned == reference.assign(wanted, cells, bin_pack_weight, rush)


@given(st.lists(alike, min_size=10, max_size=60), plain_cell_lists, weights, st.booleans())
def test_demands_that_are_alike_go_where_the_obvious_auction_has_them_go(
    wanted: list[Demand], cells: list[CellView], bin_pack_weight: float, rush: bool
) -> None:
    assigned = auction.assign(fleet_of(cells, bin_pack_weight, rush), wanted)
    assert assigned == reference.assign(wanted, cells, bin_pack_weight, rush)


sizes = st.builds(
    lambda guid, memory_mb, disk_mb, task: demand(guid, memory_mb=memory_mb, disk_mb=disk_mb, task=task),
    st.sampled_from(["web", "worker", "a", "b", "c", "d"]),
    st.sampled_from([0, 1, 7, 50, 51, 400, 900]),
    st.sampled_from([0, 10, 100, 500]),
    st.booleans(),
)
unlike_cells = st.lists(
    st.builds(
        lambda number, memory_mb, disk_mb, left: cell(
            f"cell-{number:02}",
            memory_mb,
            disk_mb,
            zone=f"z{number % 3}",
            available=Room(memory_mb * left // 10, disk_mb * left // 10, 9),
        ),
        st.integers(0, 99),
        st.sampled_from([700, 900, 1_000, 1_024, 3_000, 7_777]),
        st.sampled_from([300, 1_000, 2_000]),
        st.integers(0, 10),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda view: view.cell_id,
)


@given(st.lists(sizes, min_size=12, max_size=60), unlike_cells, weights, st.booleans())
def test_demands_of_many_sizes_share_an_order_and_go_where_the_obvious_auction_has_them_go(
    wanted: list[Demand], cells: list[CellView], bin_pack_weight: float, rush: bool
) -> None:
    assigned = auction.assign(fleet_of(cells, bin_pack_weight, rush), wanted)
    assert assigned == reference.assign(wanted, cells, bin_pack_weight, rush)


def test_large_demands_pass_over_the_many_cells_that_only_small_ones_fit() -> None:
    """So many that they get an order of their own, or look at every cell."""
    small = [cell(f"small-{n:02}", available=Room(300, 1_000, 10)) for n in range(2 * PASSED_OVER_MAX)]
    large = [cell(f"large-{n}", available=Room(900 - n, 100 + n, 10)) for n in range(4)]
    for count in (3, 2 * ALIKE_MIN):
        wanted = [demand(f"p{n}", memory_mb=200 if n % 3 else 400, disk_mb=10) for n in range(3 * count)]
        assert assign(wanted, small + large) == reference.assign(wanted, small + large)


@example(2_000, 1, 60)
@given(st.integers(0, 2_000), st.integers(1, 4), st.integers(1, 60))
def test_a_crowd_is_left_only_for_something_worse(starting: int, zones: int, count: int) -> None:
    """A cell that starts four thousand is worse than one with an instance of the process, and no order may hide it."""
    cells = [cell(f"c{n}", containers=100, zone=f"z{n % zones}", starting=starting * 3 * n) for n in range(6)]
    wanted = [demand(f"p{n % 20}", n, memory_mb=1) for n in range(count)]
    assert assign(wanted, cells) == reference.assign(wanted, cells)


@given(st.lists(demands, max_size=12), cell_lists)
def test_no_cell_gets_more_than_it_has(wanted: list[Demand], cells: list[CellView]) -> None:
    assignments = assign(wanted, cells)
    for view in cells:
        taken = used(view.cell_id, assignments)
        assert taken.memory_mb <= max(0, view.available.memory_mb)
        assert taken.disk_mb <= max(0, view.available.disk_mb)
        assert taken.containers <= max(0, view.available.containers)


@given(st.lists(alike, min_size=12, max_size=60), plain_cell_lists)
def test_no_cell_gets_more_than_it_has_from_many_alike(wanted: list[Demand], cells: list[CellView]) -> None:
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


@given(st.lists(demands, max_size=12), cell_lists)
def test_each_demand_of_a_batch_is_placed_if_it_still_fits_somewhere(
    wanted: list[Demand], cells: list[CellView]
) -> None:
    left = list(cells)
    for assignment in assign(wanted, cells):
        assert (assignment.cell_id is not None) is any(fits(view, assignment.demand) for view in left)
        left = [
            with_one_more(view, assignment.demand) if view.cell_id == assignment.cell_id else view for view in left
        ]


@given(demands, cell_lists, cell_lists)
def test_more_cells_never_turn_a_placement_into_a_refusal(
    wanted: Demand, cells: list[CellView], added: list[CellView]
) -> None:
    more = [*cells, *(evolve(view, cell_id=CellId(f"new-{view.cell_id}")) for view in added)]
    if choose(wanted, cells).cell_id is not None:
        assert choose(wanted, more).cell_id is not None


@given(demands, st.integers(1, 30), cell_lists, cell_lists)
def test_more_cells_never_place_fewer_instances_of_one_process(
    wanted: Demand, count: int, cells: list[CellView], added: list[CellView]
) -> None:
    more = [*cells, *(evolve(view, cell_id=CellId(f"new-{view.cell_id}")) for view in added)]
    batch = [evolve(wanted, index=index) for index in range(count)]
    placed = [sum(a.cell_id is not None for a in assign(batch, known)) for known in (cells, more)]
    assert placed[0] <= placed[1]


@given(st.lists(demands, max_size=6), cell_lists, st.randoms(use_true_random=False))
def test_the_same_auction_has_the_same_result_in_whichever_order_cells_came(
    wanted: list[Demand], cells: list[CellView], random: object
) -> None:
    shuffled = list(cells)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(wanted, cells) == assign(wanted, shuffled)


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


def test_tasks_avoid_each_other_whichever_zone_they_are_in() -> None:
    home, busy = cell("home", tasks=1), cell("busy", zone="z2", available=Room(100, 100, 1))
    assert choose(demand("t", task=True), [home, busy]).cell_id == "busy"
    assert choose(demand("t"), [home, busy]).cell_id == "home"


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
    assert choose(demand(), [cell("b"), cell("a")]).cell_id == "a"


def test_a_cell_that_is_starting_much_is_spared() -> None:
    assert choose(demand(), [cell("starting", starting=4), cell("half", available=Room(500, 500, 5))]).cell_id == "half"


@given(st.integers(1, 40), st.integers(1, 12))
def test_in_a_rush_lrps_go_to_the_same_cells_in_bundles_and_each_stays_spread(lrps: int, instances: int) -> None:
    cells = [cell(f"c{n:03}", 100_000, 100_000, 1_000, zone=f"z{n % 3}") for n in range(120)]
    fleet = fleet_of(cells, rush=True)
    starting: Counter[CellId | None] = Counter()
    for number in range(lrps):
        placed = auction.assign(fleet, [demand(f"p{number}", index, 1, 1) for index in range(instances)])
        there = [assignment.cell_id for assignment in placed]
        assert len(set(there)) == instances, "no two of an LRP share a cell"
        zones = Counter(fleet.columns.zone.at[fleet.slots[cell_id]] for cell_id in there if cell_id is not None)
        assert max(zones.values()) - min(zones[zone] for zone in range(3)) <= 1
        starting.update(there)
    assert max(starting.values()) <= RUSH_BUNDLE
    if instances % 3 == 0:
        assert len(starting) == instances * -(-lrps // RUSH_BUNDLE)


def test_in_a_rush_a_cell_that_is_much_fuller_is_still_the_worse_one() -> None:
    fleet = fleet_of([cell("a", available=Room(900, 900, 9)), cell("b")], rush=True)
    assert auction.choose(fleet, demand()).cell_id == "b"


def test_with_a_weight_for_bin_packing_the_first_cells_of_each_zone_fill_first() -> None:
    cells = [cell(f"{zone}{n}", zone=zone) for zone in "ab" for n in range(3)]
    fleet = fleet_of(cells, bin_pack_weight=5.0)
    assigned = auction.assign(fleet, [demand(f"p{n}", memory_mb=10, disk_mb=10) for n in range(10)])
    assert Counter(assignment.cell_id for assignment in assigned) == {"a0": 5, "b0": 5}


def test_a_cell_that_has_the_image_is_preferred_however_the_image_is_spelled() -> None:
    takes: dict[str, Any] = {"rootfs_providers": {"docker": frozenset(), "oci": frozenset()}}
    held = frozenset({IMAGE, OTHER_IMAGE, f"docker://registry.test/app@{DIGEST}"})
    cells = [cell("a", **takes), cell("b", images=held, **takes)]
    for rootfs in ("docker://registry.test/app", "docker://REGISTRY.test/app#latest", IMAGE, OTHER_IMAGE):
        assert choose(demand(rootfs=rootfs), cells).cell_id == "b"
    assert choose(demand(rootfs=f"docker://registry.test/app:old@{DIGEST}"), cells).cell_id == "b"
    assert choose(demand(rootfs="docker://registry.test/app:old"), cells).cell_id == "a"


def test_an_image_counts_less_than_what_starts_and_than_a_zone_or_cell_with_fewer_instances() -> None:
    wanted = demand(rootfs=IMAGE)
    holder = cell("holder", images=frozenset({IMAGE}))
    assert choose(wanted, [cell("empty"), evolve(holder, starting=1)]).cell_id == "empty"
    assert choose(wanted, [cell("empty"), evolve(holder, instances={"web": 1})]).cell_id == "empty"
    full = cell("full", zone="z2", available=Room(150, 150, 2))
    elsewhere = cell("elsewhere", instances={"web": 1})
    assert choose(wanted, [full, holder, elsewhere]).cell_id == "full"


@given(demands, cell_lists)
def test_images_decide_between_cells_that_are_nearly_equal_and_nothing_else(
    wanted: Demand, cells: list[CellView]
) -> None:
    """Whoever wins for its image is worse otherwise by no more than the image is worth, and spreads the same."""
    bare = [evolve(view, images=frozenset()) for view in cells]
    chosen, without = choose(wanted, cells), choose(wanted, bare)
    assert (chosen.cell_id is None) is (without.cell_id is None)
    if chosen.cell_id is None or without.cell_id is None or without.score is None:
        return
    views = {view.cell_id: view for view in bare}
    here, there = views[chosen.cell_id], views[without.cell_id]
    assert reference.score(here, wanted) <= without.score + IMAGE_WEIGHT + 1e-9
    crowd = Counter({zone: 0 for zone in ("z1", "z2", "z3")})
    for view in bare:
        crowd[view.zone] += 0 if wanted.task else view.instances.get(wanted.process_guid, 0)
    assert crowd[here.zone] == crowd[there.zone]
    assert wanted.task or here.instances.get(wanted.process_guid) == there.instances.get(wanted.process_guid)


@given(st.integers(2, 30), st.integers(1, 40))
def test_an_image_that_one_cell_has_draws_no_crowd(cells: int, count: int) -> None:
    """LRPs of one image that come at once: the cell that has it gets at most one instance more than an even share."""
    views = [cell(f"c{n:02}", memory_mb=9_000, disk_mb=9_000, containers=90) for n in range(cells)]
    views[-1] = evolve(views[-1], images=frozenset({IMAGE}))
    assigned = assign([demand(f"p{n}", rootfs=IMAGE) for n in range(count)], views)
    assert Counter(each.cell_id for each in assigned)[views[-1].cell_id] <= -(-count // cells) + 1


def test_no_cells_no_winner() -> None:
    assert choose(demand(), []) == Assignment(demand(), None)
    assert assign([], [cell("a")]) == []
    assert {each.cell_id for each in assign([demand()] * 20, [])} == {None}


def test_no_limit_costs_nothing_but_a_container() -> None:
    overbooked = cell("a", available=Room(-5, -5, 1))
    assert choose(demand(memory_mb=0, disk_mb=0), [overbooked]).cell_id == "a"
    assert choose(demand(memory_mb=1), [overbooked]).cell_id is None


@pytest.mark.parametrize("count", [1, 11, 12, 40])
def test_a_fleet_that_is_full_refuses_the_rest(count: int) -> None:
    assigned = assign([demand(index=n) for n in range(count)], [cell("a", containers=5), cell("b", containers=5)])
    assert [each.cell_id is not None for each in assigned] == [n < 10 for n in range(count)]
