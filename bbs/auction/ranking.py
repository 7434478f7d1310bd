"""The cells in the order in which one demand after the other would take them, for auctions of many alike. Pure.

While an auction only places, scores rise and room shrinks. So a cell's old score is a bound of its new one, and the
order is kept in lists and heaps whose heads are looked at again when they are about to win: a placement costs a few
steps, not a pass over all cells.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import cast

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from bbs.auction.cell_view import Demand, Room
from bbs.auction.columns import Floats
from bbs.auction.fleet import Fleet
from bbs.auction.scoring import SPREAD_WEIGHT

Place = tuple[float, int, int]
"""Score, rank and slot of a cell: the least is the best."""
NOWHERE = -1
NOBODY: Mapping[int, int] = {}
LAST: Place = (inf, 0, NOWHERE)
CAPACITIES_MAX = 8
"""With more of them, orders that demands of several sizes share have too many parts."""
NO_NEED = -(2**63)
"""Of what is not limited: a cell takes it however much is on its way there."""


@frozen(eq=False)
class Size:
    """How much a demand needs, in terms of one order."""

    need: Room
    memory_mb: int
    """What must be there; so are the next two."""
    disk_mb: int
    containers: int
    more: tuple[float, ...]
    """For each capacity, what it costs beyond the least."""


@define(eq=False)
class Lane:
    """The cells of one zone and capacity that may take the demand, in their order."""

    zone: int
    capacity: int
    """Their numbers."""
    order: list[Place | None]
    """As they were at first; None for one that has changed or does not fit any more. LAST ends it."""
    changed: list[Place] = field(factory=list)
    """Those that have changed, as they were when they were looked at again: a heap, and most get far down in it."""
    at: int = 0
    """Before it there is nobody."""


@define(eq=False)
class Ranking:
    """The order of cells, by zone, for demands that are like `demand` but for their process, and for their size, which
    is nowhere less. For tasks all cells are one zone.

    With `own` they are all of its process and size, and its instances count in the order. Otherwise who asks says where
    there are some. Demands of several sizes can share an order, since on cells of one capacity a larger one costs the
    same more everywhere, and sums of scores are exact.
    """

    fleet: Fleet
    demand: Demand
    own: bool
    lanes: list[Lane] = field(init=False)
    """Of each zone, and there of each capacity that cells have."""
    least: Size = field(init=False)
    """That of `demand`."""
    passed_over: int = field(default=0, init=False)
    """Cells that the last demand was too large for, while a smaller one may fit."""
    _zones: frozenset[int] = field(init=False)
    _static: memoryview[float] = field(init=False)
    _base: memoryview[float] = field(init=False)
    _have: tuple[memoryview[int], memoryview[int], memoryview[int]] = field(init=False)
    _here: Callable[[int], int | None] | None = field(default=None, init=False)
    """How many instances that count are on a cell."""
    _weights: list[tuple[float, float, float]] = field(init=False)
    """Of each capacity: what a unit of each resource costs."""
    _is_for_all: bool = field(default=True, init=False)
    """Cells have few capacities; if not, the order is right for the least size only."""

    def __attrs_post_init__(self) -> None:
        columns = self.fleet.columns
        scores, static = self.fleet.scores(self.demand)
        self._static = cast("memoryview[float]", static.data)
        self._base = self.fleet.base.at
        self._have = (columns.memory_mb.at, columns.disk_mb.at, columns.containers.at)
        if self.demand.task:
            self._here = columns.tasks.at.__getitem__
        if self.demand.task or self.own:
            self.fleet.disperse(self.demand, scores)
        self.lanes = self._sorted(scores)
        self._zones = frozenset(lane.zone for lane in self.lanes)
        self.least = Size(self.demand.need, *_amounts(self.demand.need), tuple(0.0 for _ in self._weights))

    def sized(self, need: Room) -> Size | None:
        """A size in terms of this order; None when demands of this size need one of their own."""
        if need == self.demand.need:
            return self.least
        if not self._is_for_all:
            return None
        more = need.less(self.demand.need)
        return Size(need, *_amounts(need), tuple(_cost(weights, more) for weights in self._weights))

    def best(self, size: Size, in_zone: Mapping[int, int], here: Mapping[int, int]) -> Place | None:
        """The best place in the zones with the fewest instances, of those zones that have one.

        `in_zone` and `here` say how many instances of the process there are in each zone and on each cell.
        """
        lanes, more = self.lanes, size.more
        self.passed_over = 0
        if self.own:
            self._here, here = here.get, NOBODY
        numbers = sorted({in_zone.get(zone, 0) for zone in self._zones}) if in_zone else (0,)
        for number in numbers:
            best = None
            for lane in lanes:
                if in_zone.get(lane.zone, 0) != number:
                    continue
                head = self._head(lane, size, here)
                if head is not None:
                    if cost := more[lane.capacity]:
                        head = (head[0] + cost, head[1], head[2])
                    best = head if best is None or head < best else best
            if here and (best is None or best[0] >= SPREAD_WEIGHT):
                best = min(filter(None, (best, *self._crowded(size, in_zone, here, number))), default=None)
            if best is not None:
                return best
        return None

    def _crowded(
        self, size: Size, in_zone: Mapping[int, int], here: Mapping[int, int], number: int
    ) -> Iterator[Place]:
        """The cells of `here` that are in zones with this number of instances, and fit."""
        columns, more = self.fleet.columns, size.need.less(self.demand.need)
        weights = columns.memory_weight.at, columns.disk_weight.at, columns.containers_weight.at
        amounts = size.memory_mb, size.disk_mb, size.containers
        for slot, count in here.items():
            static = self._static[slot]
            fits = all(have[slot] >= wanted for have, wanted in zip(self._have, amounts, strict=True))
            if fits and static < inf and in_zone.get(columns.zone.at[slot], 0) == number:
                memory, disk, containers = (weight[slot] for weight in weights)
                score = self._base[slot] + static + _cost((memory, disk, containers), more)
                yield score + count * SPREAD_WEIGHT, columns.rank.at[slot], slot

    def _head(self, lane: Lane, size: Size, elsewhere: Container[int]) -> Place | None:
        """The best place of one lane, but for cells in `elsewhere`; its score is that of the least size."""
        order, changed, at = lane.order, lane.changed, lane.at
        passed: list[Place] = []
        head = None
        static, base, (memory_mb, disk_mb, containers), here = self._static, self._base, self._have, self._here
        need_memory_mb, need_disk_mb, need_containers = size.memory_mb, size.disk_mb, size.containers
        while True:
            while (place := order[at]) is None:
                lane.at += at == lane.at
                at += 1
            unchanged = not changed or place < changed[0]
            if not unchanged:
                place = changed[0]
            slot = place[2]
            if slot == NOWHERE:
                break
            if (
                slot in elsewhere
                or memory_mb[slot] < need_memory_mb
                or disk_mb[slot] < need_disk_mb
                or containers[slot] < need_containers
            ):
                keeps = slot in elsewhere or (size is not self.least and self._fits_least(slot))
                at += self._skip(lane, at if unchanged else None, passed if keeps else None)
                continue
            score = base[slot] + static[slot]
            if here is not None:
                score += (here(slot) or 0) * SPREAD_WEIGHT
            if score == place[0]:
                head = place
                break
            if unchanged:
                order[at] = None
                heappush(changed, (score, place[1], slot))
            else:
                heapreplace(changed, (score, place[1], slot))
        for place in passed:
            heappush(changed, place)
        return head

    def _skip(self, lane: Lane, at: int | None, passed: list[Place] | None) -> int:
        """Go past the head, which is at `at` of the order, or of what has changed. Without `passed` it is left out from
        now on: it will not fit again in this auction. Returns how far to go on."""
        if at is None:
            place = heappop(lane.changed)
            if passed is not None:
                passed.append(place)
            return 0
        if passed is None:
            lane.order[at] = None
            return 0
        return 1

    def _fits_least(self, slot: int) -> bool:
        """Whether the least size fits, while the one that is asked for does not."""
        least = self.least
        self.passed_over += 1
        memory_mb, disk_mb, containers = (have[slot] for have in self._have)
        return memory_mb >= least.memory_mb and disk_mb >= least.disk_mb and containers >= least.containers

    def _sorted(self, scores: Floats) -> list[Lane]:
        columns = self.fleet.columns
        fitting = np.flatnonzero(scores < inf)
        fitting = fitting[np.lexsort((columns.rank.array[fitting], scores[fitting]))]
        capacities = self._capacities(fitting)
        zones = np.zeros(len(fitting), np.int64) if self.demand.task else columns.zone.array[fitting]
        lanes = []
        for zone in np.unique(zones):
            for capacity in range(len(self._weights)):
                slots = fitting[(zones == zone) & (capacities == capacity)]
                if len(slots):
                    lanes.append(Lane(int(zone), capacity, self._places(scores, slots)))
        return lanes

    def _capacities(self, slots: NDArray[np.intp]) -> NDArray[np.intp]:
        """Number the capacities that these cells have."""
        columns = self.fleet.columns
        weights = np.stack(
            [column.array[slots] for column in (columns.memory_weight, columns.disk_weight, columns.containers_weight)]
        )
        if not len(slots) or (weights == weights[:, :1]).all():
            found, numbers = weights[:, :1], np.zeros(len(slots), np.intp)
        else:
            found, numbers = np.unique(weights, axis=1, return_inverse=True)
        if found.shape[1] > CAPACITIES_MAX:
            self._is_for_all = False
            found, numbers = found[:, :1], np.zeros(len(slots), np.intp)
        self._weights = [tuple(each) for each in found.T.tolist()]
        return numbers

    def _places(self, scores: Floats, slots: NDArray[np.intp]) -> list[Place | None]:
        ranks = self.fleet.columns.rank.array[slots]
        return [*zip(scores[slots].tolist(), ranks.tolist(), slots.tolist(), strict=True), LAST]


def _amounts(need: Room) -> tuple[int, int, int]:
    return need.memory_mb or NO_NEED, need.disk_mb or NO_NEED, need.containers or NO_NEED


def _cost(weights: tuple[float, float, float], amount: Room) -> float:
    return amount.memory_mb * weights[0] + amount.disk_mb * weights[1] + amount.containers * weights[2]
