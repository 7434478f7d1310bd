"""Which images the store has, by the names that they were asked for by. Pure."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from diego_py.image_reference import RegistryImage, digest_name, held_as, parse

NAMES_MAX = 50
NAME_CHARACTERS_MAX = 512
"""A longer one is not told."""


@define
class HeldImages:
    """Names of images, the one used last at the end, each with the highest layer that it stood for then."""

    _tops: dict[str, str] = field(factory=dict, init=False)

    def used(self, rootfs: str, top: str, digest: str = "") -> None:
        """The image that `rootfs` names was used. `digest`, if it is known, is what the tag stands for."""
        reference = parse(rootfs)
        names = [held_as(rootfs)]
        if isinstance(reference, RegistryImage) and digest and not reference.digest:
            names.insert(0, digest_name(reference, digest))
        for name in names:
            if name is not None and len(name) <= NAME_CHARACTERS_MAX:
                self._tops.pop(name, None)
                self._tops[name] = top
        while len(self._tops) > NAMES_MAX:
            del self._tops[next(iter(self._tops))]

    def names(self, stored: Collection[str]) -> tuple[str, ...]:
        """Those of which the highest layer is still stored, the one used last first."""
        return tuple(name for name, top in reversed(self._tops.items()) if top in stored)
