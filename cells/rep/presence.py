"""What this cell says of itself, whatever runs on it."""

from __future__ import annotations

from attrs import define, evolve

from cells.executor.backend import ContainerBackend
from diego_py.models.cell import CellPresence, RootfsProvider

ROOTFS_SCHEME = "preloaded"


@define
class Presence:
    """The part that never changes, and the rootfs names, which may."""

    fixed: CellPresence
    garden: ContainerBackend

    def reached_at(self, url: str) -> None:
        """Say where the rep answers, once that is known."""
        self.fixed = evolve(self.fixed, url=url)

    def now(self, draining: bool) -> CellPresence:
        """As of now: rootfses may be added while the cell runs."""
        provider = RootfsProvider(name=ROOTFS_SCHEME, properties=tuple(self.garden.rootfs_names()))
        return evolve(self.fixed, rootfs_provider_list=(provider,), draining=draining)
