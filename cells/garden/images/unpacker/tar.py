"""A reader of tar: ustar, GNU long names, PAX. Strict, where tolerance would let two readers see two archives.

The standard library's reader takes a damaged header in the middle for the end of the archive; this one refuses it.
"""

from __future__ import annotations

import struct

from cells.garden.images.unpacker.entry import DEVICE, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from cells.garden.images.unpacker.refusal import CORRUPT, NAME_BYTES_MAX, TOO_LARGE, UNSUPPORTED, Limits, Refused
from cells.garden.images.unpacker.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
ZEROS = bytes(BLOCK)
PAX_BYTES_MAX = 1024 * 1024
"""Of one extended header."""
MTIME_MAX = 1 << 34
XATTR = b"SCHILY.xattr."
HEADER = struct.Struct("100s8s8s8s12s12s8ss100s6s2s32s32s8s8s155s12x")
KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
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
            kind, size = fields[7], _number(fields[4], "size")
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
                yield self._entry(fields, size, long_name, long_link, pax)
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
        if total != _number(block[148:156], "checksum"):
            raise Refused(CORRUPT, "a header has a wrong checksum")
        return block

    def _entry(
        self, fields: tuple[bytes, ...], size: int, long_name: bytes, long_link: bytes, pax: dict[bytes, bytes]
    ) -> Entry:
        name, link = _text(fields[0]), _text(fields[8])
        if fields[9] == b"ustar\0" and fields[15][0]:
            name = _text(fields[15]) + b"/" + name
        name = pax.get(b"path") or long_name or name
        if any(key.startswith(b"GNU.sparse.") for key in pax) or fields[7] == b"S":
            raise Refused(UNSUPPORTED, "sparse files", name)
        kind = KINDS.get(fields[7])
        if kind is None:
            raise Refused(UNSUPPORTED, f"entries of type {fields[7]!r}", name)
        if kind == FILE and name.endswith(b"/"):
            kind = DIRECTORY  # As tar of old wrote them.
        entry = Entry(kind, name, _number(fields[1], "mode") & 0o7777)
        entry.link = pax.get(b"linkpath") or long_link or link
        entry.uid = _decimal(pax[b"uid"]) if b"uid" in pax else _number(fields[2], "owner")
        entry.gid = _decimal(pax[b"gid"]) if b"gid" in pax else _number(fields[3], "group")
        entry.mtime = _time(pax[b"mtime"]) if b"mtime" in pax else min(_number(fields[5], "time", True), MTIME_MAX)
        entry.xattrs = {key[len(XATTR) :]: value for key, value in pax.items() if key.startswith(XATTR)}
        if kind == FILE:
            entry.size = _decimal(pax[b"size"]) if b"size" in pax else size
            self._left, self._padding = entry.size, -entry.size % BLOCK
        return entry

    def _long(self, size: int) -> bytes:
        if not 0 < size <= NAME_BYTES_MAX + 1:
            raise Refused(TOO_LARGE, f"a name of {size} bytes; at most {NAME_BYTES_MAX}")
        return _text(self._block(size, "a long name"))

    def _pax(self, size: int) -> dict[bytes, bytes]:
        if size > PAX_BYTES_MAX:
            raise Refused(TOO_LARGE, f"an extended header of {size} bytes; at most {PAX_BYTES_MAX}")
        return pax_records(self._block(size, "an extended header"))

    def _block(self, size: int, what: str) -> bytes:
        data = self._stream.exactly(size, what)
        self._stream.skip(-size % BLOCK)
        return data


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n` one after another. Raises Refused for anything else."""
    records: dict[bytes, bytes] = {}
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
        records[key] = value
        at = end
    return records


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, what: str, signed: bool = False) -> int:
    """Octal digits, or a big number with the first bit set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if value < 0 and signed:
            return 0
    else:
        digits = field.strip(b" \0")
        if b"\0" in digits:
            digits = digits.split(b"\0", 1)[0].strip(b" ")
        if any(digit not in b"01234567" for digit in digits):
            raise Refused(CORRUPT, f"a header's {what} is no number")
        value = int(digits, 8) if digits else 0
    if not 0 <= value < 1 << 63:
        raise Refused(CORRUPT, f"a header's {what} is out of range")
    return value


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise Refused(CORRUPT, "a number of an extended header is none")
    return int(text)


def _time(text: bytes) -> int:
    """Seconds; those before 1970 are 0."""
    whole = text.split(b".", 1)[0]
    if whole.startswith(b"-"):
        return 0
    return min(_decimal(whole), MTIME_MAX)
