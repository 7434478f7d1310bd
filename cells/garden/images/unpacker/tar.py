"""A reader of tar: ustar, GNU long names, PAX. Strict, where tolerance would let two readers see two archives.

The standard library's reader takes a damaged header in the middle for the end of the archive; this one refuses it.
"""

from __future__ import annotations

import struct

from cells.garden.images.unpacker import sparse
from cells.garden.images.unpacker.entry import DEVICE, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from cells.garden.images.unpacker.fields import MTIME_MAX, decimal, number, text, time
from cells.garden.images.unpacker.refusal import CORRUPT, NAME_BYTES_MAX, TOO_LARGE, UNSUPPORTED, Limits, Refused
from cells.garden.images.unpacker.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
ZEROS = bytes(BLOCK)
PAX_BYTES_MAX = 1024 * 1024
"""Of one extended header."""
XATTR = b"SCHILY.xattr."
HEADER = struct.Struct("100s8s8s8s12s12s8ss100s6s2s32s32s8s8s155s12x")
KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    sparse.TYPE: FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}


class TarReader:
    """The entries of a tar stream in their order. The content of each must be read before the next one is asked for."""

    def __init__(self, stream: Stream, limits: Limits, needs_end: bool) -> None:
        self._stream = stream
        self._limits = limits
        self._needs_end = needs_end
        self._left = 0
        self._padding = 0

    def content(self, size: int) -> bytes:
        """The next bytes of the entry's content; none at its end."""
        if self._left == 0:
            return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise Refused(CORRUPT, "it ends in the content of an entry")
        self._left -= len(data)
        return data

    def entries(self) -> Iterator[Entry]:
        headers = 0
        long_name = long_link = b""
        pax: dict[bytes, bytes] = {}
        while (block := self._header()) is not None:
            headers += 1
            if headers > 4 * self._limits.entries_max:
                raise Refused(TOO_LARGE, f"more than {self._limits.entries_max} entries")
            fields = HEADER.unpack(block)
            kind, size = fields[7], number(fields[4], "size")
            if kind == b"L":
                long_name = self._long(size)
            elif kind == b"K":
                long_link = self._long(size)
            elif kind == b"x":
                pax = self._pax(size)
            elif kind == b"g":
                self._pax(size)  # Defaults for all entries: nobody who makes images or packages uses them for more than
                # a comment, and they would let the first entry speak for all.
            else:
                yield self._entry(block, fields, size, long_name, long_link, pax)
                long_name = long_link = b""
                pax = {}
        if long_name or long_link or pax:
            raise Refused(CORRUPT, "it ends after the extended header of an entry")

    def _header(self) -> bytes | None:
        self._stream.skip(self._left + self._padding)
        self._left = self._padding = 0
        start = self._stream.read(BLOCK)
        if not start:
            if self._needs_end:
                raise Refused(CORRUPT, "its end is missing")
            return None
        block = start + self._stream.exactly(BLOCK - len(start), "a header")
        if block == ZEROS:
            self._stream.drain()
            return None
        total = sum(block[:148]) + sum(block[156:]) + 8 * 32
        if total != number(block[148:156], "checksum"):
            raise Refused(CORRUPT, "a header has a wrong checksum")
        return block

    def _entry(
        self,
        header: bytes,
        fields: tuple[bytes, ...],
        size: int,
        long_name: bytes,
        long_link: bytes,
        pax: dict[bytes, bytes],
    ) -> Entry:
        name, link = text(fields[0]), text(fields[8])
        if fields[9] == b"ustar\0" and fields[15][0]:
            name = text(fields[15]) + b"/" + name
        name = pax.get(sparse.NAME) or pax.get(b"path") or long_name or name
        kind = KINDS.get(fields[7])
        if kind is None:
            raise Refused(UNSUPPORTED, f"entries of type {fields[7]!r}", name)
        if kind == FILE and name.endswith(b"/"):
            kind = DIRECTORY  # As tar of old wrote them.
        entry = Entry(kind, name, number(fields[1], "mode") & 0o7777)
        entry.link = pax.get(b"linkpath") or long_link or link
        entry.uid = decimal(pax[b"uid"]) if b"uid" in pax else number(fields[2], "owner")
        entry.gid = decimal(pax[b"gid"]) if b"gid" in pax else number(fields[3], "group")
        entry.mtime = time(pax[b"mtime"]) if b"mtime" in pax else min(number(fields[5], "time", True), MTIME_MAX)
        entry.xattrs = {key[len(XATTR) :]: value for key, value in pax.items() if key.startswith(XATTR)}
        if kind == FILE:
            entry.size = decimal(pax[b"size"]) if b"size" in pax else size
        self._left, self._padding = entry.size, -entry.size % BLOCK
        if fields[7] == sparse.TYPE or sparse.is_in(pax):
            self._make_holes(entry, header, fields[7], pax)
        return entry

    def _make_holes(self, entry: Entry, header: bytes, kind: bytes, pax: dict[bytes, bytes]) -> None:
        """Read where the file has any, from wherever that is."""
        if entry.kind != FILE or (kind == sparse.TYPE and sparse.is_in(pax)):
            raise Refused(CORRUPT, "an entry is a sparse file and something else", entry.name)
        if kind == sparse.TYPE:
            size, extents = sparse.of_header(header, lambda size: self._stream.exactly(size, "a header"))
        else:
            size, extents = sparse.of_pax(pax, self._exactly)
        sparse.check(size, extents, self._left)
        entry.size, entry.extents = size, extents

    def _exactly(self, size: int) -> bytes:
        """Of the content. Raises Refused when there is less."""
        data = b""
        while len(data) < size:
            part = self.content(size - len(data))
            if not part:
                raise Refused(CORRUPT, "the map of a sparse file is longer than its entry")
            data += part
        return data

    def _long(self, size: int) -> bytes:
        if not 0 < size <= NAME_BYTES_MAX + 1:
            raise Refused(TOO_LARGE, f"a name of {size} bytes; at most {NAME_BYTES_MAX}")
        return text(self._block(size, "a long name"))

    def _pax(self, size: int) -> dict[bytes, bytes]:
        if size > PAX_BYTES_MAX:
            raise Refused(TOO_LARGE, f"an extended header of {size} bytes; at most {PAX_BYTES_MAX}")
        return pax_records(self._block(size, "an extended header"))

    def _block(self, size: int, what: str) -> bytes:
        data = self._stream.exactly(size, what)
        self._stream.skip(-size % BLOCK)
        return data


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n` one after another, the last one of a key counts. Raises Refused for anything else."""
    records: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {key: [] for key in sparse.REPEATED}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        length = data[at:space] if space > 0 else b""
        if not length.isdigit():
            raise Refused(CORRUPT, "an extended header is damaged")
        end = at + int(length)
        key, found, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not found or not key or b"\0" in key:
            raise Refused(CORRUPT, "an extended header is damaged")
        if key in repeated:
            repeated[key].append(value)
        else:
            records[key] = value
        at = end
    records.update((key, b",".join(values)) for key, values in repeated.items() if values)
    return records
