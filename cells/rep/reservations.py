"""The books of the cell: capacity, what is taken and by whom. Reserving is one step; nothing is ever taken twice."""

from __future__ import annotations

from attrs import define, field

from diego_py.errors import InsufficientResources, Outcome
from diego_py.models.cell import CellCapacity
from diego_py.models.work import AvailableResources
from diego_py.models.workload import Resources


@define
class Reservations:
    """What each handle has reserved. The final word on this cell's resources is spoken here."""

    capacity: CellCapacity
    _taken: dict[str, Resources] = field(factory=dict, init=False)
    _memory_mb: int = field(default=0, init=False)
    _disk_mb: int = field(default=0, init=False)
    """What all of them have taken."""
    _sequence: int = field(default=0, init=False)

    def reserve(self, handle: str, need: Resources) -> None:
        """Take what one instance needs, all or nothing.

        Raises InsufficientResources with need and have. Must not be called for a handle that has a reservation.
        """
        have = self.available()
        wanted = AvailableResources(memory_mb=need.memory_mb, disk_mb=need.disk_mb, containers=1)
        lacking = [
            name
            for name in ("memory_mb", "disk_mb", "containers")
            if getattr(wanted, name) > max(0, getattr(have, name)) and getattr(wanted, name) > 0
        ]
        if lacking:
            placement = {"need": _figures(wanted), "have": _figures(have), "lacks": lacking}
            told = f"not enough {', '.join(lacking)}"
            raise InsufficientResources(told, outcome=Outcome.NOT_STARTED, placement=placement)
        self.adopt(handle, need)

    def adopt(self, handle: str, need: Resources) -> None:
        """Enter what a container that runs already takes, whether or not the capacity still covers it."""
        assert handle not in self._taken
        self._taken[handle] = need
        self._memory_mb += need.memory_mb
        self._disk_mb += need.disk_mb
        self.next_sequence()

    def release(self, handle: str) -> None:
        """Give back what `handle` took. Idempotent."""
        if (taken := self._taken.pop(handle, None)) is not None:
            self._memory_mb -= taken.memory_mb
            self._disk_mb -= taken.disk_mb
            self.next_sequence()

    def available(self) -> AvailableResources:
        """Capacity less every reservation; negative where adopted containers exceed a capacity that was lowered."""
        return AvailableResources(
            memory_mb=self.capacity.memory_mb - self._memory_mb,
            disk_mb=self.capacity.disk_mb - self._disk_mb,
            containers=self.capacity.containers - len(self._taken),
        )

    @property
    def sequence(self) -> int:
        """Rises with every change and every report."""
        return self._sequence

    def next_sequence(self) -> int:
        """A sequence number that no report has had."""
        self._sequence += 1
        return self._sequence


def _figures(resources: AvailableResources) -> dict[str, int]:
    return {name: getattr(resources, name) for name in ("memory_mb", "disk_mb", "containers")}
