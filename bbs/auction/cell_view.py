"""The nouns of the auction: what an instance needs, what a cell offers, and what came of comparing them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from diego_py.models.identifiers import CellId, ProcessGuid

MEMORY_MB = "memory_mb"
DISK_MB = "disk_mb"
CONTAINERS = "containers"
RESOURCES = (MEMORY_MB, DISK_MB, CONTAINERS)


@frozen
class Room:
    """An amount of what cells have: megabytes of memory and disk, and a number of containers."""

    memory_mb: int
    disk_mb: int
    containers: int

    def less(self, other: Room) -> Room:
        return Room(
            self.memory_mb - other.memory_mb, self.disk_mb - other.disk_mb, self.containers - other.containers
        )

    def least(self, other: Room) -> Room:
        """The lesser one of each."""
        return Room(
            min(self.memory_mb, other.memory_mb),
            min(self.disk_mb, other.disk_mb),
            min(self.containers, other.containers),
        )

    def lacks(self, need: Room) -> dict[str, dict[str, int]]:
        """What is short of `need`, with the amount needed and the amount there."""
        short = {}
        for name in RESOURCES:
            wanted, there = getattr(need, name), max(0, getattr(self, name))  # more may be on its way than fits
            if wanted > there:
                short[name] = {"need": wanted, "have": there}
        return short

    def told(self) -> dict[str, int]:
        return {MEMORY_MB: self.memory_mb, DISK_MB: self.disk_mb, CONTAINERS: self.containers}


@frozen
class Demand:
    """What one instance needs of a cell. A limit of 0 means unlimited and costs nothing, as in Diego."""

    process_guid: ProcessGuid
    index: int
    rootfs: str
    need: Room
    placement_tags: frozenset[str] = frozenset()
    privileged: bool = False
    volume_drivers: frozenset[str] = frozenset()
    """Of the volumes that it mounts."""
    task: bool = False
    """Of a task: it goes where the fewest tasks are, in whichever zone."""


@frozen
class CellView:
    """A cell as the auction sees it: stated capacity less what is reserved there or on its way."""

    cell_id: CellId
    zone: str
    capacity: Room
    available: Room
    rootfs_providers: Mapping[str, frozenset[str]]
    """Scheme → names offered; an empty set means any name of that scheme."""
    images: frozenset[str] = frozenset()
    """Names of images that need not be fetched there."""
    placement_tags: frozenset[str] = frozenset()
    optional_placement_tags: frozenset[str] = frozenset()
    privileged: bool = False
    """Takes demands that are privileged, beside others."""
    volume_drivers: frozenset[str] = frozenset()
    disk_limits: bool = True
    """Takes demands with a disk limit, beside others."""
    draining: bool = False
    starting: int = 0
    """Instances on their way to RUNNING there."""
    instances: Mapping[ProcessGuid, int] = field(factory=dict)
    """How many instances of each process it has or is about to have."""
    tasks: int = 0
    """How many tasks it has or is about to have."""


@frozen
class Assignment:
    """The result for one demand: the winner with its score, or None when nothing fits."""

    demand: Demand
    cell_id: CellId | None
    score: float | None = None


@frozen
class Bid:
    """What one cell said to one demand: a score (lower is better), or why it is ruled out."""

    cell_id: CellId
    zone: str
    verdict: str
    """won, fits, or the reason: no_fit, tried, draining, and what the kind of cell does not have (Kind.refusal)."""
    have: Room
    score: float | None = None
    parts: Mapping[str, float] = field(factory=dict)
    """The terms of the score."""
    in_zone: int = 0
    """Instances of the process in the zone of the cell. Zones with fewer come first, whatever the score."""
    lacks: Mapping[str, Mapping[str, int]] = field(factory=dict)
    detail: str = ""

    def told(self) -> dict[str, Any]:
        """The bid as the failure document and the dry run show it."""
        told: dict[str, Any] = {
            "cell": self.cell_id,
            "zone": self.zone,
            "verdict": self.verdict,
            "have": self.have.told(),
        }
        if self.score is not None:
            parts = {name: round(part, 4) for name, part in self.parts.items()}
            told |= {"score": round(self.score, 4), "parts": parts, "in_zone": self.in_zone}
        if self.lacks:
            told["lacks"] = {name: dict(amounts) for name, amounts in self.lacks.items()}
        if self.detail:
            told["detail"] = self.detail
        return told
