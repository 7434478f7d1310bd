"""The auction once more, slow and obvious: one cell after the other, nothing kept, nothing clever."""

from collections import Counter
from collections.abc import Sequence
from math import floor

from attrs import evolve

from bbs.auction.cell_view import Assignment, CellView, Demand, Room
from bbs.auction.scoring import (
    IMAGE_WEIGHT,
    RUSH_BUNDLE,
    RUSH_LOAD_STEPS,
    SPREAD_WEIGHT,
    STARTING_WEIGHT,
    UNASKED_TAG_WEIGHT,
    weight,
)
from diego_py.image_reference import BadReference, held_as


def fits(view: CellView, wanted: Demand) -> bool:
    """The rules in the words of the specification."""
    scheme, _, name = wanted.rootfs.partition(":")
    offered = view.rootfs_providers.get(scheme)
    return (
        not view.draining
        and offered is not None
        and (not offered or name in offered)
        and view.placement_tags <= wanted.placement_tags
        and wanted.placement_tags <= view.placement_tags | view.optional_placement_tags
        and (view.privileged or not wanted.privileged)
        and wanted.volume_drivers <= view.volume_drivers
        and (view.disk_limits or not wanted.need.disk_mb)
        and wanted.need.memory_mb <= max(0, view.available.memory_mb)
        and wanted.need.disk_mb <= max(0, view.available.disk_mb)
        and wanted.need.containers <= max(0, view.available.containers)
    )


def load(capacity: Room, amount: Room) -> float:
    return (
        amount.memory_mb * weight(capacity.memory_mb)
        + amount.disk_mb * weight(capacity.disk_mb)
        + amount.containers * weight(capacity.containers)
    )


def must_be_fetched(view: CellView, wanted: Demand, others: Sequence[CellView]) -> bool:
    """Some cell has the image, and this one has not."""
    try:
        name = held_as(wanted.rootfs)
    except BadReference:
        return False
    return name is not None and any(name in each.images for each in others) and name not in view.images


def score(
    view: CellView,
    demand: Demand,
    place_in_zone: int = 0,
    bin_pack_weight: float = 0.0,
    others: Sequence[CellView] = (),
    rush: bool = False,
) -> float:
    used = view.capacity.less(view.available)
    used = Room(max(0, used.memory_mb), max(0, used.disk_mb), max(0, used.containers))
    base = load(view.capacity, used) + view.starting * STARTING_WEIGHT
    if rush:
        base = floor(load(view.capacity, used) * RUSH_LOAD_STEPS) / RUSH_LOAD_STEPS
        base += (view.starting - view.starting % RUSH_BUNDLE) * STARTING_WEIGHT
    static = load(view.capacity, demand.need)
    static += len(view.optional_placement_tags - demand.placement_tags) * UNASKED_TAG_WEIGHT
    static += place_in_zone * bin_pack_weight
    static += IMAGE_WEIGHT if must_be_fetched(view, demand, others) else 0.0
    here = view.tasks if demand.task else view.instances.get(demand.process_guid, 0)
    return (base + static) + here * SPREAD_WEIGHT


def choose(
    demand: Demand,
    cells: Sequence[CellView],
    tried: frozenset[str] = frozenset(),
    bin_pack_weight: float = 0.0,
    rush: bool = False,
) -> Assignment:
    in_zone: Counter[str] = Counter()
    places: Counter[str] = Counter()
    bids = []
    for cell in cells:
        in_zone[cell.zone] += 0 if demand.task else cell.instances.get(demand.process_guid, 0)
    for cell in sorted(cells, key=lambda cell: cell.cell_id):
        if cell.cell_id not in tried and fits(cell, demand):
            its_score = score(cell, demand, places[cell.zone], bin_pack_weight, cells, rush)
            bids.append((in_zone[cell.zone], its_score, cell.cell_id))
        places[cell.zone] += 1
    if not bids:
        return Assignment(demand, None)
    _, won, cell_id = min(bids)
    return Assignment(demand, cell_id, won)


def assign(
    demands: Sequence[Demand], cells: Sequence[CellView], bin_pack_weight: float = 0.0, rush: bool = False
) -> list[Assignment]:
    state = list(cells)
    assignments = []
    for demand in demands:
        assignment = choose(demand, state, bin_pack_weight=bin_pack_weight, rush=rush)
        assignments.append(assignment)
        state = [with_one_more(cell, demand) if cell.cell_id == assignment.cell_id else cell for cell in state]
    return assignments


def with_one_more(cell: CellView, demand: Demand) -> CellView:
    """This cell once it was given `demand`."""
    fuller = evolve(cell, available=cell.available.less(demand.need), starting=cell.starting + 1)
    if demand.task:
        return evolve(fuller, tasks=cell.tasks + 1)
    count = cell.instances.get(demand.process_guid, 0) + 1
    return evolve(fuller, instances={**cell.instances, demand.process_guid: count})
