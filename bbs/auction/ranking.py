"""The cells in the order in which one demand after the other would take them, for auctions of many alike. Pure.

While an auction only places, scores rise and room shrinks. So a cell's old score is a bound of its new one, and the
order is kept in heaps whose heads are looked at again when they are about to win: a placement costs a few steps, not a
pass over all cells.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import cast

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from bbs.auction.cell_view import Demand
from bbs.auction.columns import Floats
from bbs.auction.fleet import Fleet
from bbs.auction.scoring import SPREAD_WEIGHT

Place = tuple[float, int, int]
"""Score, rank and slot of a cell: the least is the best."""
NO_NEED = -(2**63)
"""Of what is not limited: a cell takes it however much is on its way there."""


@define(eq=False)
class Ranking:
    """The order of cells for demands that are like `demand`, by zone; for tasks all cells are one zone.

    With `own` they are of the same process, or tasks, and its instances count in the order. Otherwise who asks says
    where there are some.
    """

    fleet: Fleet
    demand: Demand
    own: bool
    lanes: dict[int, list[Place]] = field(init=False)
    """Sorted lists of places are heaps."""
    _static: memoryview[float] = field(init=False)
    _base: memoryview[float] = field(init=False)
    _have: tuple[memoryview[int], memoryview[int], memoryview[int]] = field(init=False)
    _need: tuple[int, int, int] = field(init=False)
    _here: Callable[[int], int | None] | None = field(default=None, init=False)
    """How many instances that count are on a cell."""

    def __attrs_post_init__(self) -> None:
        columns, need = self.fleet.columns, self.demand.need
        scores, static = self.fleet.scores(self.demand)
        self._static = cast("memoryview[float]", static.data)
        self._base = columns.base.at
        self._have = (columns.memory_mb.at, columns.disk_mb.at, columns.containers.at)
        self._need = (need.memory_mb or NO_NEED, need.disk_mb or NO_NEED, need.containers or NO_NEED)
        if self.demand.task:
            self._here = columns.tasks.at.__getitem__
        if self.demand.task or self.own:
            self.fleet.disperse(self.demand, scores)
        self.lanes = self._sorted(scores)

    def best(self, in_zone: Mapping[int, int], here: Mapping[int, int]) -> Place | None:
        """The best place in the zones with the fewest instances, of those zones that have one.

        `in_zone` and `here` say how many instances of the process there are in each zone and on each cell.
        """
        lanes = self.lanes
        if self.own:
            self._here, here = here.get, {}
        numbers = sorted({in_zone.get(zone, 0) for zone in lanes}) if in_zone else (0,)
        for number in numbers:
            best = None
            for zone, lane in lanes.items():
                if in_zone.get(zone, 0) == number:
                    head = self._head(lane, here)
                    if head is not None and (best is None or head < best):
                        best = head
            if here and (best is None or best[0] >= SPREAD_WEIGHT):
                best = min(filter(None, (best, *self._crowded(in_zone, here, number))), default=None)
            if best is not None:
                return best
        return None

    def _crowded(self, in_zone: Mapping[int, int], here: Mapping[int, int], number: int) -> Iterator[Place]:
        """The cells of `here` that are in zones with this number of instances, and fit."""
        columns = self.fleet.columns
        for slot, count in here.items():
            static = self._static[slot]
            fits = all(have[slot] >= need for have, need in zip(self._have, self._need, strict=True))
            if fits and static < inf and in_zone.get(columns.zone.at[slot], 0) == number:
                yield (self._base[slot] + static) + count * SPREAD_WEIGHT, columns.rank.at[slot], slot

    def _head(self, lane: list[Place], elsewhere: Container[int]) -> Place | None:
        """The best place of one zone, but for cells in `elsewhere`."""
        passed: list[Place] = []
        head = None
        static, base, (memory_mb, disk_mb, containers), here = self._static, self._base, self._have, self._here
        need_memory_mb, need_disk_mb, need_containers = self._need
        while lane:
            place = lane[0]
            slot = place[2]
            if slot in elsewhere:
                passed.append(heappop(lane))
                continue
            if (
                memory_mb[slot] < need_memory_mb
                or disk_mb[slot] < need_disk_mb
                or containers[slot] < need_containers
            ):
                heappop(lane)  # nor will it fit again in this auction
                continue
            score = base[slot] + static[slot]
            if here is not None:
                score += (here(slot) or 0) * SPREAD_WEIGHT
            if score == place[0]:
                head = place
                break
            heapreplace(lane, (score, place[1], slot))
        for place in passed:
            heappush(lane, place)
        return head

    def _sorted(self, scores: Floats) -> dict[int, list[Place]]:
        columns = self.fleet.columns
        fitting = np.flatnonzero(scores < inf)
        fitting = fitting[np.lexsort((columns.rank.array[fitting], scores[fitting]))]
        if self.demand.task:
            return {0: self._places(scores, fitting)} if len(fitting) else {}
        zones = columns.zone.array[fitting]
        return {int(zone): self._places(scores, fitting[zones == zone]) for zone in np.unique(zones)}

    def _places(self, scores: Floats, slots: NDArray[np.intp]) -> list[Place]:
        ranks = self.fleet.columns.rank.array[slots]
        return list(zip(scores[slots].tolist(), ranks.tolist(), slots.tolist(), strict=True))
