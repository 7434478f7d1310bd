"""The nouns of the auction: what an instance needs, what a cell offers, and what came of comparing them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from diego_py.models.identifiers import CellId, ProcessGuid

MEMORY_MB = "memory_mb"
DISK_MB = "disk_mb"
CONTAINERS = "containers"


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

    def lacks(self, need: Room) -> dict[str, dict[str, int]]:
        """What is short of `need`, with the amount needed and the amount there."""
        short = {}
        for name in (MEMORY_MB, DISK_MB, CONTAINERS):
            wanted, there = getattr(need, name), max(0, getattr(self, name))  # more may be on its way than fits
            if wanted > there:
                short[name] = {"need": wanted, "have": there}
        return short


@frozen
class Demand:
    """What one instance needs of a cell. A limit of 0 means unlimited and costs nothing, as in Diego."""

    process_guid: ProcessGuid
    index: int
    rootfs: str
    need: Room
    placement_tags: frozenset[str] = frozenset()
    privileged: bool = False
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
    placement_tags: frozenset[str] = frozenset()
    optional_placement_tags: frozenset[str] = frozenset()
    privileged: bool = False
    """Takes demands that are privileged, beside others."""
    draining: bool = False
    starting: int = 0
    """Instances on their way to RUNNING there."""
    instances: Mapping[ProcessGuid, int] = field(factory=dict)
    """How many instances of each process it has or is about to have."""
    tasks: int = 0
    """How many tasks it has or is about to have."""

    def with_one_more(self, demand: Demand) -> CellView:
        """This cell once it was given `demand`."""
        fuller = evolve(self, available=self.available.less(demand.need), starting=self.starting + 1)
        if demand.task:
            return evolve(fuller, tasks=self.tasks + 1)
        count = self.instances.get(demand.process_guid, 0) + 1
        return evolve(fuller, instances={**self.instances, demand.process_guid: count})


@frozen
class Bid:
    """What one cell said to one demand: a score (lower is better), or why it is ruled out."""

    cell_id: CellId
    verdict: str
    """won, fits, or the reason: no_fit, rootfs, placement_tags, privileged, draining, tried."""
    have: Room
    score: float | None = None
    parts: Mapping[str, float] = field(factory=dict)
    """The terms of the score."""
    lacks: Mapping[str, Mapping[str, int]] = field(factory=dict)
    detail: str = ""

    def told(self) -> dict[str, Any]:
        """The bid as the failure document and the dry run show it."""
        have = {MEMORY_MB: self.have.memory_mb, DISK_MB: self.have.disk_mb, CONTAINERS: self.have.containers}
        told: dict[str, Any] = {"cell": self.cell_id, "verdict": self.verdict, "have": have}
        if self.score is not None:
            told |= {"score": round(self.score, 4), "parts": {k: round(v, 4) for k, v in self.parts.items()}}
        if self.lacks:
            told["lacks"] = {name: dict(amounts) for name, amounts in self.lacks.items()}
        if self.detail:
            told["detail"] = self.detail
        return told
