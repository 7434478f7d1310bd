"""Ways to place: the product's auction, Diego's rules as they are documented, and best fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from attrs import define, evolve, field

from bbs.auction import auction
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.fleet import Fleet
from diego_py.models.identifiers import ProcessGuid


@define(eq=False)
class State:
    """What is where. Kept for every placer alike, and what the figures are made of."""

    cells: Sequence[CellView]
    available: np.ndarray = field(init=False)
    capacity: np.ndarray = field(init=False)
    zone: np.ndarray = field(init=False)
    starting: np.ndarray = field(init=False)
    instances: dict[ProcessGuid, Counter[int]] = field(factory=lambda: defaultdict(Counter), init=False)
    here: list[Counter[ProcessGuid]] = field(init=False)
    """The same by cell."""
    demands: dict[ProcessGuid, Demand] = field(factory=dict, init=False)
    _allowed: dict[frozenset[str], np.ndarray] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        capacity = [(c.capacity.memory_mb, c.capacity.disk_mb, c.capacity.containers) for c in self.cells]
        self.capacity = np.array(capacity, dtype=np.float64)
        self.available = self.capacity.copy()
        names = sorted({cell.zone for cell in self.cells})
        self.zone = np.array([names.index(cell.zone) for cell in self.cells])
        self.starting = np.zeros(len(self.cells))
        self.here = [Counter() for _ in self.cells]

    def take(self, cell: int, demand: Demand) -> None:
        self.available[cell] -= _need(demand)
        self.instances[demand.process_guid][cell] += 1
        self.here[cell][demand.process_guid] += 1
        self.demands[demand.process_guid] = demand

    def forget(self, guid: ProcessGuid) -> list[int]:
        """All instances of an LRP go; the cells that had some."""
        here = self.instances.pop(guid)
        demand = self.demands.pop(guid)
        for cell, count in here.items():
            self.available[cell] += count * _need(demand)
            del self.here[cell][guid]
        return list(here)

    def may(self, demand: Demand) -> np.ndarray:
        wanted = demand.placement_tags
        if wanted not in self._allowed:
            each = [c.placement_tags <= wanted <= c.placement_tags | c.optional_placement_tags for c in self.cells]
            self._allowed[wanted] = np.array(each)
        return np.asarray(self._allowed[wanted] & (self.available >= _need(demand)).all(axis=1))

    def view(self, cell: int) -> CellView:
        room = Room(*(int(amount) for amount in self.available[cell]))
        return evolve(self.cells[cell], available=room, instances=dict(self.here[cell]))


class Placer(Protocol):
    """Places batches on a state of its own."""

    state: State

    def place(self, batch: Sequence[Demand]) -> int:
        """How many of the batch found no cell. Those that did are counted in the state."""

    def settle(self, touched: Sequence[int]) -> None:
        """What was placed runs by now, and these cells have said what they have."""


@define(eq=False)
class Ours:
    """The product."""

    state: State
    fleet: Fleet = field(factory=Fleet, init=False)

    def __attrs_post_init__(self) -> None:
        self.settle(range(len(self.state.cells)))

    def place(self, batch: Sequence[Demand]) -> int:
        places = {cell.cell_id: number for number, cell in enumerate(self.state.cells)}
        assigned = auction.assign(self.fleet, batch)
        for each in assigned:
            if each.cell_id is not None:
                self.state.take(places[each.cell_id], each.demand)
        return sum(each.cell_id is None for each in assigned)

    def settle(self, touched: Sequence[int]) -> None:
        for cell in touched:
            self.fleet.put(self.state.view(cell))


@define(eq=False)
class InARush(Ours):
    """The product, as if very much were on its way from the first instance to the last."""

    def __attrs_post_init__(self) -> None:
        self.fleet.rush = True
        super().__attrs_post_init__()


@define(eq=False)
class Diego:
    """As Diego's auctioneer is documented: by index, then the largest first; zones with the fewest instances, tied ones
    together; a third of each used fraction, a quarter for each that starts, a thousand for each of the same LRP."""

    state: State

    def place(self, batch: Sequence[Demand]) -> int:
        refused = 0
        for demand in sorted(batch, key=lambda demand: (demand.index, -demand.need.memory_mb)):
            cell = self._choose(demand)
            if cell is None:
                refused += 1
            else:
                self.state.take(cell, demand)
                self.state.starting[cell] += 1
        return refused

    def _choose(self, demand: Demand) -> int | None:
        state = self.state
        fits = state.may(demand)
        if not fits.any():
            return None
        here = np.zeros(len(state.cells))
        for cell, count in state.instances[demand.process_guid].items():
            here[cell] = count
        in_zone = np.bincount(state.zone, weights=here)
        fewest = in_zone[state.zone][fits].min()
        used = (state.capacity - state.available + _need(demand)) / state.capacity
        score = used.mean(axis=1) + state.starting * 0.25 + here * 1000
        return int(np.where(fits & (in_zone[state.zone] == fewest), score, np.inf).argmin())

    def settle(self, touched: Sequence[int]) -> None:
        self.state.starting[:] = 0


@define(eq=False)
class BestFit:
    """The fullest cell that still has room: no zones, no spread."""

    state: State

    def place(self, batch: Sequence[Demand]) -> int:
        state, refused = self.state, 0
        for demand in batch:
            fits = state.may(demand)
            left = ((state.available - _need(demand)) / state.capacity).mean(axis=1)
            cell = int(np.where(fits, left, np.inf).argmin())
            if fits[cell]:
                state.take(cell, demand)
            else:
                refused += 1
        return refused

    def settle(self, touched: Sequence[int]) -> None:
        """It looks at room only."""


PLACERS: dict[str, Callable[[State], Placer]] = {
    "diego-py": Ours,
    "in a rush": InARush,
    "Diego's rules": Diego,
    "best fit": BestFit,
}


def _need(demand: Demand) -> np.ndarray:
    return np.array([demand.need.memory_mb, demand.need.disk_mb, demand.need.containers], dtype=np.float64)
