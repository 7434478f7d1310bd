"""Items of lists that were encoded before. One that has not changed since is not encoded again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar

from attrs import Factory, define, field

from bbs.diego_api import codec
from bbs.store.desired_lrps import StoredLRP

ROOM_BYTES: Final = 64 * 1024 * 1024
"""Of what is kept of one kind, for one BBS: more than 30,000 desired LRPs of the usual size, or 80,000 instances."""
OVERHEAD_BYTES: Final = 400
"""Of keys, versions and the dict, for each."""

Place = TypeVar("Place", bound=Hashable)
Version = TypeVar("Version")


@define
class Encoded(Generic[Place, Version]):
    """What lists told last, at each place, and of which version of what they tell of.

    When there is no room, more is not kept; and all is forgotten once as much was missed as is kept, for that may be of
    what is gone.
    """

    room_bytes: int = ROOM_BYTES
    _kept: dict[Place, tuple[Version, bytes]] = field(factory=dict, init=False, repr=False)
    _bytes: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
    """Since there is no room."""

    def is_empty(self) -> bool:
        """Nothing is kept."""
        return not self._kept

    def get(self, place: Place, version: Version) -> bytes | None:
        """What this version was encoded as; None: it is to be encoded."""
        kept = self._kept.get(place)
        return kept[1] if kept is not None and kept[0] == version else None

    def keep(self, place: Place, version: Version, item: bytes) -> None:
        """Instead of what was told of this place before."""
        before = self._kept.pop(place, None)
        if before is not None:
            self._bytes -= len(before[1]) + OVERHEAD_BYTES
        if self._bytes + len(item) + OVERHEAD_BYTES <= self.room_bytes:
            self._kept[place] = (version, item)
            self._bytes += len(item) + OVERHEAD_BYTES
            return
        self._missed += 1
        if self._missed > len(self._kept):
            self._kept.clear()
            self._bytes = self._missed = 0


View = Callable[[StoredLRP], dict[str, Any]]
"""What of a desired LRP is told, to make a message from. Pure: of what is equal it tells the same."""


@define
class EncodedLRPs:
    """What the lists of desired LRPs told last of each, for each view of it.

    Kept by what is stored, not by its tag alone: a tag comes again when a backup is restored.
    """

    room_bytes: int = ROOM_BYTES
    _encoded: Encoded[tuple[View, str], tuple[bytes, str, int]] = field(
        default=Factory(lambda self: Encoded(self.room_bytes), takes_self=True), init=False
    )

    def listed(self, name: str, key: str, view: View, rows: Iterable[StoredLRP]) -> bytes:
        """The views of these rows as the values of a field."""
        encode = codec.encoder(name, key)
        return codec.repeated(name, key, [self._item(view, encode, row) for row in rows])

    def _item(self, view: View, encode: Callable[[dict[str, Any]], bytes], row: StoredLRP) -> bytes:
        place, tag = (view, row.process_guid), row.modification_tag
        version = (blake2b(row.definition, digest_size=16).digest(), tag.epoch, tag.index)
        item = self._encoded.get(place, version)
        if item is None:
            item = encode(view(row))
            self._encoded.keep(place, version, item)
        return item
