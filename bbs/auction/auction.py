"""The auction: for each demand the best cell, or a reason from every cell. Diego: auctionrunner/scheduler.go. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from bbs.auction.cell_view import Bid, CellView, Demand
from bbs.auction.reasons import ruled_out
from bbs.auction.scoring import score
from diego_py.models.identifiers import CellId


@frozen
class Assignment:
    """The result for one demand: the winner, or None, and every cell's bid."""

    demand: Demand
    cell_id: CellId | None
    bids: tuple[Bid, ...]


def choose(demand: Demand, cells: Sequence[CellView], tried: frozenset[str] = frozenset()) -> Assignment:
    """The best cell for one demand.

    Zones with fewer instances of the process come first, as in Diego; within the zone that has a fitting cell the
    lowest score wins, and the first cell in order where scores are equal. Cells in `tried` are left out.
    """
    bids = []
    for cell in cells:
        bid = ruled_out(cell, demand, tried)
        if bid is None:
            parts = score(cell, demand)
            bid = Bid(cell.cell_id, "fits", cell.available, score=sum(parts.values()), parts=parts)
        bids.append(bid)
    zones = _instances_by_zone(demand, cells)
    fitting = [
        (zones[cell.zone], bid.score, n)
        for n, (cell, bid) in enumerate(zip(cells, bids, strict=True))
        if bid.score is not None
    ]
    if not fitting:
        return Assignment(demand, None, tuple(bids))
    *_, winner = min(fitting)
    bids[winner] = evolve(bids[winner], verdict="won")
    return Assignment(demand, cells[winner].cell_id, tuple(bids))


def assign(demands: Sequence[Demand], cells: Sequence[CellView]) -> list[Assignment]:
    """A cell for each demand in order; each assignment is counted before the next demand is looked at."""
    state = list(cells)
    places = {cell.cell_id: n for n, cell in enumerate(state)}
    assignments = []
    for demand in demands:
        assignment = choose(demand, state)
        assignments.append(assignment)
        if assignment.cell_id is not None:
            place = places[assignment.cell_id]
            state[place] = state[place].with_one_more(demand)
    return assignments


def _instances_by_zone(demand: Demand, cells: Sequence[CellView]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for cell in cells:
        here = 0 if demand.task else cell.instances.get(demand.process_guid, 0)
        counts[cell.zone] = counts.get(cell.zone, 0) + here
    return counts
