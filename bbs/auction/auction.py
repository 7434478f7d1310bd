"""The auction: for each demand the best cell. Diego: auctionrunner/scheduler.go. Pure. Why it is none: reasons.py.

Zones with the fewest instances of the process come first, as in Diego; of those that have a fitting cell the lowest
score wins, and the first cell by its id where scores are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

import numpy as np
from attrs import define, field

from bbs.auction.cell_view import Assignment, Demand, Room
from bbs.auction.fleet import Fleet
from bbs.auction.ranking import Place, Ranking
from diego_py.models.identifiers import ProcessGuid

ALIKE_MIN = 12
"""From so many demands alike in one auction, cells are put in order once. For fewer each looks at all cells."""
ELSEWHERE_MAX = 8
"""A process with more instances than this has an order of its own or none: passing over its cells takes longer."""

Needs = tuple[Room, str, frozenset[str], bool, frozenset[str], bool]


def choose(fleet: Fleet, demand: Demand, tried: Iterable[str] = ()) -> Assignment:
    """The best cell for one demand, as things are; cells in `tried` are left out. Changes nothing."""
    return _assignment(fleet, demand, _look_at_all(fleet, demand, tried))


def assign(fleet: Fleet, demands: Sequence[Demand]) -> list[Assignment]:
    """A cell for each demand in order. Each is counted in the fleet before the next is looked at."""
    batch = _Batch(fleet, demands) if len(demands) >= ALIKE_MIN else None
    assignments = []
    for number, demand in enumerate(demands):
        place = batch.best(number, demand) if batch is not None else _look_at_all(fleet, demand, ())
        assignments.append(_assignment(fleet, demand, place))
        if place is not None:
            fleet.add(place[2], demand)
    return assignments


@define(eq=False)
class _Batch:
    """The demands of one auction, and an order of cells for those of which there are many alike."""

    fleet: Fleet
    demands: Sequence[Demand]
    _sorts: list[int] = field(init=False)
    """By demand: a number that those share which are alike but for their process."""
    _alike: list[int] = field(init=False)
    """By that number: how many there are."""
    _of_process: Counter[tuple[int, ProcessGuid]] = field(init=False)
    _rankings: dict[int | tuple[int, ProcessGuid], Ranking] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        numbers: dict[Needs, int] = {}
        self._sorts = [
            numbers.setdefault(
                (d.need, d.rootfs, d.placement_tags, d.privileged, d.volume_drivers, d.task), len(numbers)
            )
            for d in self.demands
        ]
        self._alike = [0] * len(numbers)
        for sort in self._sorts:
            self._alike[sort] += 1
        guids = [demand.process_guid for demand in self.demands]
        self._of_process = Counter(zip(self._sorts, guids, strict=True))

    def best(self, number: int, demand: Demand) -> Place | None:
        sort = self._sorts[number]
        if self._alike[sort] < ALIKE_MIN:
            return _look_at_all(self.fleet, demand, ())
        spread = self.fleet.spread(demand)
        of_process = (sort, demand.process_guid)
        if not demand.task and self._of_process[of_process] >= ALIKE_MIN:
            ranking = self._rankings.get(of_process) or self._ranked(of_process, demand)
            return ranking.best(spread.by_zone, spread.by_slot)
        if len(spread.by_slot) > ELSEWHERE_MAX:
            return _look_at_all(self.fleet, demand, ())
        ranking = self._rankings.get(sort) or self._ranked(sort, demand)
        return ranking.best(spread.by_zone, spread.by_slot)

    def _ranked(self, key: int | tuple[int, ProcessGuid], demand: Demand) -> Ranking:
        ranking = self._rankings[key] = Ranking(self.fleet, demand, own=isinstance(key, tuple))
        return ranking


def _look_at_all(fleet: Fleet, demand: Demand, tried: Iterable[str]) -> Place | None:
    """The best place by a look at every cell."""
    if not fleet.count:
        return None
    scores, _ = fleet.scores(demand, tried)
    fleet.disperse(demand, scores)
    in_zone = fleet.in_zone(demand)
    if in_zone is not None:
        in_zone[scores == inf] = inf
        scores[in_zone > in_zone.min()] = inf
    best = float(scores.min())
    if best == inf:
        return None
    ties = np.flatnonzero(scores == best)
    ranks = fleet.columns.rank.array[ties]
    first = ranks.argmin()
    return best, int(ranks[first]), int(ties[first])


def _assignment(fleet: Fleet, demand: Demand, place: Place | None) -> Assignment:
    return Assignment(demand, None) if place is None else Assignment(demand, fleet.ids[place[2]], place[0])
