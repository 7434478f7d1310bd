"""All cells as the auction sees them, in arrays that are kept between auctions and changed by deltas. Pure.

A cell has a slot, which stays the same while it is there. Deltas are: a cell's new word (`put`), a cell that is gone
(`remove`), an instance on its way to a cell (`add`), and one that is not any more (`take_back`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from attrs import define, field

from bbs.auction.cell_view import RESOURCES, CellView, Demand, Room
from bbs.auction.columns import Column, Columns, Floats, Ints
from bbs.auction.holders import Holders
from bbs.auction.kinds import Kind, Numbered
from bbs.auction.scoring import (
    IMAGE_WEIGHT,
    SPREAD_WEIGHT,
    STARTING_WEIGHT,
    UNASKED_TAG_WEIGHT,
    exact,
    rushed,
    weight,
)
from diego_py.models.identifiers import CellId, ProcessGuid

SLOTS_MIN = 16
COSTS_KEPT_MAX = 1_024
"""Different constraints of demands whose costs by kind of cell are remembered."""
ABSENT = 0
"""The kind of a slot without a cell."""


@define(eq=False)
class Spread:
    """Where the instances of one process are, and how many: by slot and by zone."""

    by_slot: dict[int, int] = field(factory=dict)
    by_zone: dict[int, int] = field(factory=dict)


@define(eq=False)
class Fleet:
    """The cells."""

    bin_pack_weight: float = 0.0
    """This times its place in its zone is added to a cell's score (Diego's bin_pack_first_fit_weight). Not below 0."""
    rush: bool = field(default=False, init=False)
    """So many are on their way that a BBS has more to do than cells: they are placed so that they go in bundles."""
    columns: Columns = field(factory=Columns, init=False)
    count: int = field(default=0, init=False)
    """Slots that are or were in use; arrays may be longer."""
    slots: dict[CellId, int] = field(factory=dict, init=False)
    ids: list[CellId | None] = field(factory=list, init=False)
    zones: Numbered[str] = field(factory=Numbered, init=False)
    kinds: Numbered[Kind] = field(factory=Numbered, init=False)
    spreads: dict[ProcessGuid, Spread] = field(factory=dict, init=False)
    images: Holders = field(factory=Holders, init=False)
    _instances: list[dict[ProcessGuid, int]] = field(factory=list, init=False)
    """The same as `spreads`, by slot."""
    _free: list[int] = field(factory=list, init=False)
    _costs: dict[tuple[str, frozenset[str], bool, frozenset[str], bool], Floats] = field(factory=dict, init=False)
    _unranked: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.kinds.reserve()

    def put(self, cell: CellView) -> None:
        """Take up a cell's new word, in place of all that was known of it."""
        slot = self.slots.get(cell.cell_id)
        if slot is None:
            slot = self._new_slot(cell)
        self._classify(slot, cell)
        self._count_instances(slot, cell.instances)
        self.images.put(slot, cell.images)
        columns, capacity, available = self.columns, cell.capacity, cell.available
        columns.memory_capacity.at[slot] = capacity.memory_mb
        columns.disk_capacity.at[slot] = capacity.disk_mb
        columns.containers_capacity.at[slot] = capacity.containers
        columns.memory_weight.at[slot] = weight(capacity.memory_mb)
        columns.disk_weight.at[slot] = weight(capacity.disk_mb)
        columns.containers_weight.at[slot] = weight(capacity.containers)
        columns.memory_mb.at[slot] = available.memory_mb
        columns.disk_mb.at[slot] = available.disk_mb
        columns.containers.at[slot] = available.containers
        columns.starting.at[slot] = cell.starting
        columns.tasks.at[slot] = cell.tasks
        self._rate(slot)

    def remove(self, cell_id: CellId) -> None:
        """Forget a cell."""
        slot = self.slots.pop(cell_id)
        self._count_instances(slot, {})
        self.images.put(slot, frozenset())
        self.zones.leave(self.columns.zone.at[slot])
        self.kinds.leave(self.columns.kind.at[slot])
        self.columns.kind.at[slot] = ABSENT
        self.ids[slot] = None
        self._free.append(slot)
        self._unranked = True

    def add(self, slot: int, demand: Demand) -> None:
        """Count an instance against a cell."""
        self._change(slot, demand, 1)

    def take_back(self, slot: int, demand: Demand) -> None:
        """The reverse of `add`."""
        self._change(slot, demand, -1)

    def arrived(self, slot: int, demand: Demand) -> None:
        """An instance on its way is in the cell's own books, which count what it takes."""
        columns, need = self.columns, demand.need
        columns.starting.at[slot] -= 1
        columns.memory_mb.at[slot] += need.memory_mb
        columns.disk_mb.at[slot] += need.disk_mb
        columns.containers.at[slot] += need.containers
        self._rate(slot)

    def has_more(self, slot: int, room: Room) -> None:
        """A cell has so much more left than it said before; nothing is looked through for that, however much is on its
        way there."""
        columns = self.columns
        columns.memory_mb.at[slot] += room.memory_mb
        columns.disk_mb.at[slot] += room.disk_mb
        columns.containers.at[slot] += room.containers
        self._rate(slot)

    def available(self, slot: int) -> Room:
        columns = self.columns
        return Room(columns.memory_mb.at[slot], columns.disk_mb.at[slot], columns.containers.at[slot])

    def costs(self, demand: Demand) -> Floats:
        """By kind of cell: what unasked tags cost, infinite where the demand may not go."""
        drivers, limited = demand.volume_drivers, demand.need.disk_mb > 0
        key = (demand.rootfs, demand.placement_tags, demand.privileged, drivers, limited)
        costs = self._costs.get(key)
        if costs is None:
            if len(self._costs) >= COSTS_KEPT_MAX:
                self._costs.clear()
            costs = self._costs[key] = np.array([_cost(kind, demand) for kind in self.kinds.values])
        return costs

    @property
    def base(self) -> Column[float]:
        """By slot: the part of the score that is the same for every demand."""
        return self.columns.rushed if self.rush else self.columns.base

    def static(self, demand: Demand) -> Floats:
        """By slot: the part of the score that is the demand's own, infinite where its constraints forbid the cell."""
        columns, need, count = self.columns, demand.need, self.count
        self.rank()
        static = columns.memory_weight.array[:count] * float(need.memory_mb)
        static += columns.disk_weight.array[:count] * float(need.disk_mb)
        static += columns.containers_weight.array[:count] * float(need.containers)
        static += self.costs(demand).take(columns.kind.array[:count], mode="clip")
        if self.bin_pack_weight:
            static += columns.packing.array[:count]
        holders = self.images.of(demand.rootfs)
        if holders:
            missing = np.full(count, IMAGE_WEIGHT)
            missing[np.fromiter(holders, np.int64, len(holders))] = 0.0
            static += missing
        return static

    def haves(self, demand: Demand) -> Iterator[tuple[str, int, Ints]]:
        """For each resource that is needed at all: its name, the need, and what each slot has left."""
        columns = self.columns
        yield from self._needed(demand, columns.memory_mb, columns.disk_mb, columns.containers)

    def capacities(self, demand: Demand) -> Iterator[tuple[str, int, Ints]]:
        """The same with all that each slot has, used or not."""
        columns = self.columns
        yield from self._needed(
            demand, columns.memory_capacity, columns.disk_capacity, columns.containers_capacity
        )

    def scores(self, demand: Demand, tried: Iterable[str] = ()) -> tuple[Floats, Floats]:
        """By slot: the score without its spread, infinite where the demand does not fit; and its static part."""
        static = self.static(demand)
        scores = self.base.array[: self.count] + static
        short = np.zeros(self.count, bool)
        for _, wanted, have in self.haves(demand):
            short |= have < wanted
        np.putmask(scores, short, np.inf)
        for cell_id in tried:
            slot = self.slots.get(CellId(cell_id))
            if slot is not None:
                scores[slot] = np.inf
        return scores, static

    def spread(self, demand: Demand) -> Spread:
        """Where other instances of the process of a demand are. Tasks have none: they are counted by cell."""
        return self.spreads.get(demand.process_guid, _NOWHERE) if not demand.task else _NOWHERE

    def disperse(self, demand: Demand, scores: Floats) -> None:
        """Add to scores what instances of the same process, or tasks, on the cell cost."""
        if demand.task:
            scores += self.columns.tasks.array[: self.count] * SPREAD_WEIGHT
            return
        by_slot = self.spread(demand).by_slot
        if by_slot:
            here = np.fromiter(by_slot.keys(), np.int64, len(by_slot))
            scores[here] += np.fromiter(by_slot.values(), np.float64, len(by_slot)) * SPREAD_WEIGHT

    def in_zone(self, demand: Demand) -> Floats | None:
        """By slot: how many instances of the process its zone has; None when there is none anywhere."""
        by_zone = self.spread(demand).by_zone
        if not by_zone:
            return None
        counts = np.zeros(len(self.zones.values))
        for zone, count in by_zone.items():
            counts[zone] = count
        return counts.take(self.columns.zone.array[: self.count])

    def rank(self) -> None:
        """Bring the order of cells up to date, after some came or went."""
        if not self._unranked:
            return
        in_zone: dict[int, int] = {}
        for rank, cell_id in enumerate(sorted(self.slots)):
            slot = self.slots[cell_id]
            zone = self.columns.zone.at[slot]
            self.columns.rank.at[slot] = rank
            self.columns.packing.at[slot] = in_zone.get(zone, 0) * exact(self.bin_pack_weight)
            in_zone[zone] = in_zone.get(zone, 0) + 1
        self._unranked = False

    def _needed(self, demand: Demand, *amounts: Column[int]) -> Iterator[tuple[str, int, Ints]]:
        need = demand.need
        wants = (need.memory_mb, need.disk_mb, need.containers)
        for name, wanted, column in zip(RESOURCES, wants, amounts, strict=True):
            if wanted > 0:
                yield name, wanted, column.array[: self.count]

    def _change(self, slot: int, demand: Demand, by: int) -> None:
        (memory_mb, _, _), (disk_mb, _, _), (containers, _, _), starting = self.columns.books
        need = demand.need
        memory_mb[slot] -= by * need.memory_mb
        disk_mb[slot] -= by * need.disk_mb
        containers[slot] -= by * need.containers
        starting[slot] += by
        self._rate(slot)
        if demand.task:
            self.columns.tasks.at[slot] += by
        else:
            self._spread(demand.process_guid, slot, by)

    def _rate(self, slot: int) -> None:
        """Compute the base of a cell anew, always from whole numbers: deltas leave no rounding behind."""
        (memory_mb, memory_capacity, memory_cost), (disk_mb, disk_capacity, disk_cost), containers, starting = (
            self.columns.books
        )
        memory = memory_capacity[slot] - memory_mb[slot]
        disk = disk_capacity[slot] - disk_mb[slot]
        used = containers[1][slot] - containers[0][slot]
        load = (
            (memory * memory_cost[slot] if memory > 0 else 0.0)
            + (disk * disk_cost[slot] if disk > 0 else 0.0)
            + (used * containers[2][slot] if used > 0 else 0.0)
        )
        self.columns.base.at[slot] = load + starting[slot] * STARTING_WEIGHT
        self.columns.rushed.at[slot] = rushed(load, starting[slot])

    def _spread(self, guid: ProcessGuid, slot: int, by: int) -> None:
        spread = self.spreads.get(guid)
        if spread is None:
            spread = self.spreads[guid] = Spread()
        zone = self.columns.zone.at[slot]
        if by > 0:  # every placement comes here
            spread.by_zone[zone] = spread.by_zone.get(zone, 0) + by
            spread.by_slot[slot] = spread.by_slot.get(slot, 0) + by
            instances = self._instances[slot]
            instances[guid] = instances.get(guid, 0) + by
            return
        _count_down(spread.by_zone, zone, by)
        _count_down(spread.by_slot, slot, by)
        _count_down(self._instances[slot], guid, by)
        if not spread.by_slot:
            del self.spreads[guid]

    def _count_instances(self, slot: int, instances: Mapping[ProcessGuid, int]) -> None:
        """What the cell has now, in place of all that was counted there."""
        before = self._instances[slot]
        if before == instances:
            return
        for guid in before.keys() | instances.keys():
            by = instances.get(guid, 0) - before.get(guid, 0)
            if by:
                self._spread(guid, slot, by)

    def _classify(self, slot: int, cell: CellView) -> None:
        """Number its zone and kind, which hardly ever change."""
        columns = self.columns
        kind, before = Kind.of(cell), columns.kind.at[slot]
        if self.kinds.values[before] != kind:
            number = self.kinds.take(kind)
            if before != ABSENT:
                self.kinds.leave(before)
            columns.kind.at[slot] = number
            self._costs.clear()
        if self.zones.values[columns.zone.at[slot]] != cell.zone:
            self._count_instances(slot, {})  # they are counted by zone, too
            self.zones.leave(columns.zone.at[slot])
            columns.zone.at[slot] = self.zones.take(cell.zone)
            self._unranked = True

    def _new_slot(self, cell: CellView) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot = self.count
            self.count += 1
            self.ids.append(None)
            self._instances.append({})
            if slot >= len(self.columns.base.array):
                self.columns.grow(max(SLOTS_MIN, 2 * slot))
        self.slots[cell.cell_id] = slot
        self.ids[slot] = cell.cell_id
        self.columns.zone.at[slot] = self.zones.take(cell.zone)
        self._unranked = True
        return slot


def _cost(kind: Kind | None, demand: Demand) -> float:
    if kind is None or kind.refusal(demand) is not None:
        return np.inf
    return kind.unasked_tags(demand) * UNASKED_TAG_WEIGHT


def _count_down(counts: dict[Any, int], what: object, by: int) -> None:
    counts[what] += by
    if not counts[what]:
        del counts[what]


_NOWHERE = Spread()
