"""The auction: for each demand the best cell. Diego: auctionrunner/scheduler.go. Pure. Why it is none: reasons.py.

Zones with the fewest instances of the process come first, as in Diego; of those that have a fitting cell the lowest
score wins, and the first cell by its id where scores are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

import numpy as np
from attrs import define, evolve, field

from bbs.auction.cell_view import Assignment, Demand, Room
from bbs.auction.fleet import Fleet, Spread
from bbs.auction.ranking import Place, Ranking, Size
from diego_py.models.fields import INT32_MAX
from diego_py.models.identifiers import ProcessGuid

ALIKE_MIN = 12
"""From so many demands alike in one auction, cells are put in order once. For fewer each looks at all cells."""
ELSEWHERE_MAX = 8
"""A process with more instances than this has an order of its own or none: passing over its cells takes longer."""

PASSED_OVER_MAX = 16
"""Demands of one size that pass over more cells than this, which smaller ones fit, have an order of their own from then
on."""
NO_LESS = Room(INT32_MAX, INT32_MAX, INT32_MAX)


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
class _Kind:
    """Demands that are alike but for their process and how much they need. They share an order of cells."""

    count: int = 0
    least: Room = NO_LESS
    """Of each resource the least that one of them needs."""
    ranking: Ranking | None = None


@define(eq=False)
class _Sort:
    """Demands of one kind that need as much."""

    kind: _Kind
    count: int = 0
    of_process: Counter[ProcessGuid] = field(factory=Counter)
    size: Size | None = None
    """What they need, in terms of the kind's order."""
    apart: bool = False
    """They do not share it."""
    ranking: Ranking | None = None
    rankings: dict[ProcessGuid, Ranking] = field(factory=dict)


@define(eq=False)
class _Batch:
    """The demands of one auction, and an order of cells for those of which there are many alike."""

    fleet: Fleet
    demands: Sequence[Demand]
    _sorts: list[_Sort] = field(init=False)
    """By demand."""

    def __attrs_post_init__(self) -> None:
        kinds: dict[object, _Kind] = {}
        sorts: dict[object, _Sort] = {}
        self._sorts = []
        for each in self.demands:
            like = (each.rootfs, each.placement_tags, each.privileged, each.volume_drivers, each.task)
            sort = sorts.get((like, each.need))
            if sort is None:
                kind = kinds.setdefault((like, each.need.disk_mb > 0), _Kind())
                kind.least = kind.least.least(each.need)
                sort = sorts[like, each.need] = _Sort(kind)
            sort.count += 1
            sort.kind.count += 1
            sort.of_process[each.process_guid] += 1
            self._sorts.append(sort)

    def best(self, number: int, demand: Demand) -> Place | None:
        sort = self._sorts[number]
        if sort.kind.count < ALIKE_MIN:
            return _look_at_all(self.fleet, demand, ())
        spread = self.fleet.spread(demand)
        if not demand.task and sort.of_process[demand.process_guid] >= ALIKE_MIN:
            own = sort.rankings.get(demand.process_guid)
            if own is None:
                own = sort.rankings[demand.process_guid] = Ranking(self.fleet, demand, own=True)
            return own.best(own.least, spread.by_zone, spread.by_slot)
        if len(spread.by_slot) > ELSEWHERE_MAX:
            return _look_at_all(self.fleet, demand, ())
        if not sort.apart:
            return self._best_of_kind(sort, demand, spread)
        if sort.count < ALIKE_MIN:
            return _look_at_all(self.fleet, demand, ())
        ranking = sort.ranking
        if ranking is None:
            ranking = sort.ranking = Ranking(self.fleet, demand, own=False)
        return ranking.best(ranking.least, spread.by_zone, spread.by_slot)

    def _best_of_kind(self, sort: _Sort, demand: Demand, spread: Spread) -> Place | None:
        ranking = sort.kind.ranking
        if ranking is None:
            least = evolve(demand, need=sort.kind.least)
            ranking = sort.kind.ranking = Ranking(self.fleet, least, own=False)
        if sort.size is None:
            sort.size = ranking.sized(demand.need)
        if sort.size is None:
            sort.apart = True
            return _look_at_all(self.fleet, demand, ())
        place = ranking.best(sort.size, spread.by_zone, spread.by_slot)
        sort.apart = ranking.passed_over > PASSED_OVER_MAX
        return place


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
