"""What this cell says of itself, whatever runs on it."""

from __future__ import annotations

from attrs import define, evolve

from cells.executor.backend import ContainerBackend
from diego_py.models.cell import CellPresence, RootfsProvider

PRELOADED = "preloaded"


@define
class Presence:
    """The part that never changes, and what garden says."""

    fixed: CellPresence
    garden: ContainerBackend
    image_schemes: tuple[str, ...] = ()
    """Kinds of images that the cell fetches, whatever their names."""

    def reached_at(self, url: str) -> None:
        """Say where the rep answers, once that is known."""
        self.fixed = evolve(self.fixed, url=url)

    def now(self, draining: bool) -> CellPresence:
        """As of now: rootfses may be added while the cell runs, and garden knows its runtime once it has started."""
        preloaded = RootfsProvider(name=PRELOADED, properties=tuple(self.garden.rootfs_names()))
        others = [RootfsProvider(name=scheme) for scheme in self.image_schemes]
        return evolve(
            self.fixed,
            rootfs_provider_list=(preloaded, *others),
            images=tuple(self.garden.held_images()),
            privileged=self.garden.makes_privileged(),
            disk_limits=self.garden.limits_disk(),
            draining=draining,
        )
