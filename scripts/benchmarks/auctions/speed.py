"""How long a placement takes: sizes of fleet and batch, mixes of constraints, and the yardstick beside each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import asdict, frozen

from bbs.auction import auction, reasons
from bbs.auction.cell_view import CellView, Demand
from scripts.benchmarks.auctions import fleets
from scripts.benchmarks.auctions.floor import Floor
from scripts.benchmarks.figures import Figures, Spread, table

CELLS = (10, 100, 1_000, 7_500)
BATCHES = (1, 100, 10_000)
ROOM_SHARE = 100
"""A batch has at most this many demands for each cell: what does not fit at all is a mix of its own."""
CALLS_MIN = 50
FLOOR_PLACEMENTS = 100
WARM_UP_CALLS = 10


@frozen
class Case:
    cells: int
    batch: int
    mix: str

    def name(self) -> str:
        return f"{self.cells:,} cells, batch of {self.batch:,}, {self.mix}"


def measure(
    rounds: int, sizes: Sequence[int], rng: random.Random, progress: Callable[[str, int, int], None]
) -> tuple[str, dict[str, Any]]:
    """The table and every figure: microseconds a placement (least - greatest), and times the yardstick in the round."""
    figures = Figures()
    views = {size: fleets.cells(size) for size in sizes}
    cases = [
        Case(size, batch, mix)
        for size in sizes
        for batch in BATCHES
        for mix in fleets.MIXES
        if batch <= ROOM_SHARE * size
    ]
    for number in range(rounds):
        figures.begin_round()
        for case in rng.sample(cases, len(cases)):
            _measure_one(case, views[case.cells], figures)
        for size in sizes:
            _measure_reasons(size, views[size], figures)
        progress("round", number + 1, rounds)
    return _text(cases, sizes, figures), {"cases": [asdict(case) for case in cases], "rounds": figures.rounds}


def _measure_one(case: Case, views: Sequence[CellView], figures: Figures) -> None:
    batch = fleets.demands(case.mix, case.batch)
    fleet = fleets.fleet_of(views)
    for _ in range(WARM_UP_CALLS):
        auction.choose(fleet, batch[0])
    calls = max(1, CALLS_MIN // case.batch)
    used_s = 0.0
    for _ in range(calls):
        began_s = time.process_time()
        assigned = auction.assign(fleet, batch)
        used_s += time.process_time() - began_s
        for each in assigned:
            if each.cell_id is not None:
                fleet.take_back(fleet.slots[each.cell_id], each.demand)
    figures.add(case.name(), used_s / calls / case.batch * 1e6)
    figures.add(f"floor: {case.name()}", _floor_us(views, batch))


def _floor_us(views: Sequence[CellView], batch: Sequence[Demand]) -> float:
    floor = Floor(views)
    batch = [batch[number % len(batch)] for number in range(FLOOR_PLACEMENTS)]
    masks = {demand.placement_tags: floor.mask(demand) for demand in batch}
    states = {demand.process_guid: (np.zeros(len(views)), np.zeros(fleets.ZONES)) for demand in batch}
    began_s = time.process_time()
    for demand in batch:
        floor.place(demand, masks[demand.placement_tags], *states[demand.process_guid])
    return (time.process_time() - began_s) / len(batch) * 1e6


def _measure_reasons(size: int, views: Sequence[CellView], figures: Figures) -> None:
    """What is paid only by who asks, or is refused."""
    fleet = fleets.fleet_of(views)
    (demand,) = fleets.demands("none fits", 1)
    began_s = time.process_time()
    for _ in range(CALLS_MIN):
        reasons.explain(fleet, demand).told()
    figures.add(f"reasons: {size:,} cells", (time.process_time() - began_s) / CALLS_MIN * 1e6)
    began_s = time.process_time()
    for view in views[:CALLS_MIN]:
        fleet.put(view)
    figures.add(f"report: {size:,} cells", (time.process_time() - began_s) / min(CALLS_MIN, size) * 1e6)


def _text(cases: Sequence[Case], sizes: Sequence[int], figures: Figures) -> str:
    told: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        spread, ratio = figures.spread(case.name()), figures.ratio(case.name(), f"floor: {case.name()}")
        row = told.setdefault((f"{case.cells:,}", f"{case.batch:,}"), [])
        row.append(f"{_us(spread)}, {ratio.median:.2f}")
    rows = [[*key, *row] for key, row in told.items()]
    head = ["cells", "batch", *fleets.MIXES]
    other = [
        [f"{size:,}", _us(figures.spread(f"reasons: {size:,} cells")), _us(figures.spread(f"report: {size:,} cells"))]
        for size in sizes
    ]
    return table(head, rows) + "\n\n" + table(["cells", "reasons of a refusal, µs", "a cell's report, µs"], other)


def _us(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.least:.1f} - {spread.greatest:.1f})"
