"""What this cell says of itself, whatever runs on it."""

from __future__ import annotations

import contextlib

from attrs import define, evolve, field

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
    _preloaded: tuple[str, ...] = field(default=(), init=False)
    """As they were when they could last be listed."""

    def reached_at(self, url: str) -> None:
        """Say where the rep answers, once that is known."""
        self.fixed = evolve(self.fixed, url=url)

    def now(self, draining: bool) -> CellPresence:
        """As of now: rootfses may be added while the cell runs, and garden knows its runtime once it has started.

        A directory of them that cannot be read for a while is no reason to be taken for lost; who asks for one is told.
        """
        with contextlib.suppress(OSError):
            self._preloaded = tuple(self.garden.rootfs_names())
        preloaded = RootfsProvider(name=PRELOADED, properties=self._preloaded)
        others = [RootfsProvider(name=scheme) for scheme in self.image_schemes]
        return evolve(
            self.fixed,
            rootfs_provider_list=(preloaded, *others),
            images=tuple(self.garden.held_images()),
            privileged=self.garden.makes_privileged(),
            disk_limits=self.garden.limits_disk(),
            draining=draining,
        )
