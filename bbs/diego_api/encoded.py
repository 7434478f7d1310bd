"""Items of lists that were encoded before. One that has not changed since is not encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final

from attrs import define, field

from bbs.diego_api import codec
from bbs.store.desired_lrps import StoredLRP

ROOM_BYTES: Final = 64 * 1024 * 1024
"""Of what is kept, for one BBS: more than 30,000 desired LRPs of the usual size."""
OVERHEAD_BYTES: Final = 400
"""Of keys, digests and the dict, for each."""
View = Callable[[StoredLRP], dict[str, Any]]
"""What of a desired LRP is told, to make a message from. Pure: of what is equal it tells the same."""
Version = tuple[bytes, str, int]


@define
class EncodedLRPs:
    """What the lists of desired LRPs told last of each, for each view of it.

    Kept by what is stored, not by its tag alone: a tag comes again when a backup is restored. When there is no room,
    more is not kept; and all is forgotten once as much was missed as is kept, for that may be of LRPs that are gone.
    """

    room_bytes: int = ROOM_BYTES
    _kept: dict[tuple[View, str], tuple[Version, bytes]] = field(factory=dict, init=False, repr=False)
    _bytes: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
    """Since there is no room."""

    def listed(self, name: str, key: str, view: View, rows: Iterable[StoredLRP]) -> bytes:
        """As `codec.listed` of the views of these rows."""
        encode = codec.item_encoder(name, key)
        return b"".join([self._item(view, encode, row) for row in rows])

    def _item(self, view: View, encode: Callable[[dict[str, Any]], bytes], row: StoredLRP) -> bytes:
        place, tag = (view, row.process_guid), row.modification_tag
        version = (blake2b(row.definition, digest_size=16).digest(), tag.epoch, tag.index)
        kept = self._kept.get(place)
        if kept is not None and kept[0] == version:
            return kept[1]
        item = encode(view(row))
        self._keep(place, version, item)
        return item

    def _keep(self, place: tuple[View, str], version: Version, item: bytes) -> None:
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
