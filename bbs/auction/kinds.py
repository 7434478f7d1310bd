"""Kinds of cells: a fleet has thousands of cells and few kinds, so constraints are judged once a kind. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import define, field, frozen

from bbs.auction.cell_view import CellView, Demand

DETAIL_CHARACTERS_MAX = 200

Value = TypeVar("Value", bound=Hashable)


@frozen
class Kind:
    """All that decides whether a cell comes into question, but for its room."""

    rootfs_providers: frozenset[tuple[str, frozenset[str]]]
    placement_tags: frozenset[str]
    optional_placement_tags: frozenset[str]
    privileged: bool
    disk_limits: bool
    volume_drivers: frozenset[str]
    draining: bool

    @classmethod
    def of(cls, cell: CellView) -> Kind:
        providers = frozenset(cell.rootfs_providers.items())
        return cls(
            rootfs_providers=providers,
            placement_tags=cell.placement_tags,
            optional_placement_tags=cell.optional_placement_tags,
            privileged=cell.privileged,
            disk_limits=cell.disk_limits,
            volume_drivers=cell.volume_drivers,
            draining=cell.draining,
        )

    def refusal(self, demand: Demand) -> tuple[str, str] | None:
        """Verdict and detail of a kind that cannot take the demand, None if it can.

        The order is Diego's filter order: rootfs, volume drivers, placement tags, then resources
        (auctionrunner/zone.go); privileged and disk limits, which Diego does not ask about, are before the resources.
        """
        if self.draining:
            return "draining", "the cell is being emptied"
        if not self._offers(demand.rootfs):
            return "rootfs", f"does not offer {demand.rootfs[:DETAIL_CHARACTERS_MAX]}"
        if absent := demand.volume_drivers - self.volume_drivers:
            return "volume_drivers", f"lacks the volume drivers {_listed(absent)}"
        if missing := self.placement_tags - demand.placement_tags:
            return "placement_tags", f"takes only work tagged {_listed(missing)}"
        if foreign := demand.placement_tags - self.placement_tags - self.optional_placement_tags:
            return "placement_tags", f"lacks the tags {_listed(foreign)}"
        if demand.privileged and not self.privileged:
            return "privileged", "makes no privileged containers"
        if demand.need.disk_mb > 0 and not self.disk_limits:
            return "disk_limit", "holds no container to a disk limit"
        return None

    def unasked_tags(self, demand: Demand) -> int:
        """How many optional tags it has that the demand does not ask for."""
        return len(self.optional_placement_tags - demand.placement_tags)

    def _offers(self, rootfs: str) -> bool:
        scheme, _, name = rootfs.partition(":")
        return any(offered == scheme and (not names or name in names) for offered, names in self.rootfs_providers)


@define
class Numbered(Generic[Value]):
    """Small numbers for values in use; a number is free again when nobody uses its value any more."""

    values: list[Value | None] = field(factory=list)
    _numbers: dict[Value, int] = field(factory=dict, init=False)
    _uses: list[int] = field(factory=list, init=False)
    _free: list[int] = field(factory=list, init=False)

    def take(self, value: Value) -> int:
        """The number of a value that has one user more."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = self._free.pop() if self._free else self._grown()
            self.values[number] = value
        self._uses[number] += 1
        return number

    def leave(self, number: int) -> None:
        """One user of a value less."""
        self._uses[number] -= 1
        if self._uses[number] == 0:
            value = self.values[number]
            assert value is not None
            del self._numbers[value]
            self.values[number] = None
            self._free.append(number)

    def reserve(self) -> int:
        """A number that no value ever has."""
        return self._grown()

    def _grown(self) -> int:
        self.values.append(None)
        self._uses.append(0)
        return len(self.values) - 1


def _listed(tags: frozenset[str]) -> str:
    told = ", ".join(sorted(tags))
    return told if len(told) <= DETAIL_CHARACTERS_MAX else told[: DETAIL_CHARACTERS_MAX - 1] + "…"
