"""The yardstick: every placement is one plain numpy pass over all cells. No kept order, no reasons, no bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import define, field

from bbs.auction.cell_view import CellView, Demand


@define(eq=False)
class Floor:
    """The least that a full look at every cell can take, with zones and constraints already turned into masks."""

    cells: Sequence[CellView]
    available: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)
    base: np.ndarray = field(init=False)
    zone: np.ndarray = field(init=False)

    def __attrs_post_init__(self) -> None:
        room = [(c.available.memory_mb, c.available.disk_mb, c.available.containers) for c in self.cells]
        capacity = [(c.capacity.memory_mb, c.capacity.disk_mb, c.capacity.containers) for c in self.cells]
        self.available = np.array(room, dtype=np.float64).T.copy()
        self.weights = 1 / (3 * np.array(capacity, dtype=np.float64).T.copy())
        self.base = 1 - (self.available * self.weights).sum(axis=0)
        names = sorted({cell.zone for cell in self.cells})
        self.zone = np.array([names.index(cell.zone) for cell in self.cells])

    def mask(self, demand: Demand) -> np.ndarray:
        """Where constraints let the demand go: not part of what is measured."""
        wanted = demand.placement_tags
        return np.array(
            [c.placement_tags <= wanted <= c.placement_tags | c.optional_placement_tags for c in self.cells]
        )

    def place(self, demand: Demand, mask: np.ndarray, here: np.ndarray, in_zone: np.ndarray) -> int | None:
        """Score every cell, take the best, count it there."""
        need, (memory, disk, containers), weights = demand.need, self.available, self.weights
        fits = (memory >= need.memory_mb) & (disk >= need.disk_mb) & (containers >= need.containers) & mask
        score = self.base + weights[0] * need.memory_mb + weights[1] * need.disk_mb + weights[2] * need.containers
        score += here
        crowd = in_zone[self.zone]
        best = int(np.where(fits, crowd * 1e9 + score, np.inf).argmin())
        if not fits[best]:
            return None
        memory[best] -= need.memory_mb
        disk[best] -= need.disk_mb
        containers[best] -= need.containers
        self.base[best] += weights[0][best] * need.memory_mb + 0.25
        here[best] += 1000
        in_zone[self.zone[best]] += 1
        return best
