"""How well a cell suits a demand, in named terms; lower is better. Pure. Diego: rep/resources.go."""

from __future__ import annotations

from bbs.auction.cell_view import CellView, Demand, Room

STARTING_WEIGHT = 0.25
"""Each instance that is still starting on the cell costs as much as a quarter of its capacity (Diego's default)."""
LOCALITY_WEIGHT = 1000.0
"""Each instance of the same process, for a task each task, on the cell outweighs any load (Diego's LocalityOffset)."""
UNASKED_TAG_WEIGHT = 10.0
"""Each optional tag of the cell that the demand does not ask for outweighs any load, not the spread of one process:
such cells stay free for who asks."""


def score(cell: CellView, demand: Demand) -> dict[str, float]:
    """The terms of the score after the demand was placed there; their sum decides."""
    after = cell.available.less(demand.need)
    terms = {
        "load": load(cell.capacity, after),
        "starting": cell.starting * STARTING_WEIGHT,
        "unasked_tags": len(cell.optional_placement_tags - demand.placement_tags) * UNASKED_TAG_WEIGHT,
    }
    if demand.task:
        return {**terms, "tasks": cell.tasks * LOCALITY_WEIGHT}
    return {**terms, "same_process": cell.instances.get(demand.process_guid, 0) * LOCALITY_WEIGHT}


def load(capacity: Room, available: Room) -> float:
    """The mean used fraction of memory, disk and containers, 0 to 1."""
    fractions = [
        used_fraction(capacity.memory_mb, available.memory_mb),
        used_fraction(capacity.disk_mb, available.disk_mb),
        used_fraction(capacity.containers, available.containers),
    ]
    return sum(fractions) / len(fractions)


def used_fraction(capacity: int, available: int) -> float:
    """How much of `capacity` is used; a cell without any of it counts as empty."""
    return (capacity - available) / capacity if capacity > 0 else 0.0
