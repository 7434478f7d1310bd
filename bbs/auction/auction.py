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

Needs = tuple[Room, str, frozenset[str], bool, bool]


def choose(fleet: Fleet, demand: Demand, tried: Iterable[str] = ()) -> Assignment:
    """The best cell for one demand, as things are; cells in `tried` are left out. Changes nothing."""
    return _assignment(fleet, demand, _look_at_all(fleet, demand, tried))


def assign(fleet: Fleet, demands: Sequence[Demand]) -> list[Assignment]:
    """A cell for each demand in order. Each is counted in the fleet before the next is looked at."""
    batch = _Batch(fleet, demands)
    assignments = []
    for demand, needs in zip(demands, batch.needs, strict=True):
        place = batch.best(demand, needs)
        assignments.append(_assignment(fleet, demand, place))
        if place is not None:
            fleet.add(place[2], demand)
    return assignments


@define(eq=False)
class _Batch:
    """The demands of one auction, and an order of cells for those of which there are many alike."""

    fleet: Fleet
    demands: Sequence[Demand]
    needs: list[Needs] = field(init=False)
    """Of each demand; equal for those that are alike but for their process."""
    _alike: Counter[Needs] = field(init=False)
    _of_process: Counter[tuple[Needs, ProcessGuid]] = field(init=False)
    _rankings: dict[tuple[Needs, ProcessGuid | None], Ranking] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.needs = [(d.need, d.rootfs, d.placement_tags, d.privileged, d.task) for d in self.demands]
        self._alike = Counter(self.needs)
        guids = [demand.process_guid for demand in self.demands]
        self._of_process = Counter(zip(self.needs, guids, strict=True))

    def best(self, demand: Demand, needs: Needs) -> Place | None:
        if self._alike[needs] < ALIKE_MIN:
            return _look_at_all(self.fleet, demand, ())
        spread = self.fleet.spread(demand)
        if not demand.task and self._of_process[needs, demand.process_guid] >= ALIKE_MIN:
            return self._ranking(needs, demand, demand.process_guid).best(spread.by_zone, {})
        if len(spread.by_slot) > ELSEWHERE_MAX:
            return _look_at_all(self.fleet, demand, ())
        return self._ranking(needs, demand, None).best(spread.by_zone, spread.by_slot)

    def _ranking(self, needs: Needs, demand: Demand, process_guid: ProcessGuid | None) -> Ranking:
        ranking = self._rankings.get((needs, process_guid))
        if ranking is None:
            ranking = Ranking(self.fleet, demand, own=process_guid is not None)
            self._rankings[needs, process_guid] = ranking
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
