"""Which cells have which image, for those that are fetched. Pure."""

from __future__ import annotations

from collections.abc import Set

from attrs import define, field

from diego_py.image_reference import IMAGE_SCHEMES, BadReference, held_as

_NOBODY: frozenset[int] = frozenset()


@define(eq=False)
class Holders:
    """By name of an image the slots of the cells that have it, and the reverse."""

    _slots: dict[str, set[int]] = field(factory=dict, init=False)
    _images: dict[int, frozenset[str]] = field(factory=dict, init=False)

    def put(self, slot: int, images: frozenset[str]) -> None:
        """These are the images of a cell now."""
        before = self._images.get(slot, frozenset())
        if before == images:
            return
        for gone in before - images:
            self._slots[gone].remove(slot)
            if not self._slots[gone]:
                del self._slots[gone]
        for new in images - before:
            self._slots.setdefault(new, set()).add(slot)
        if images:
            self._images[slot] = images
        else:
            del self._images[slot]

    def of(self, rootfs: str) -> Set[int]:
        """Who has the image of a rootfs, however it is spelled. Nobody for what is never fetched."""
        if not self._slots or rootfs.partition(":")[0] not in IMAGE_SCHEMES:
            return _NOBODY
        try:
            return self._slots.get(held_as(rootfs) or "", _NOBODY)
        except BadReference:
            return _NOBODY  # no cell can have what names nothing, and whoever gets it says so
