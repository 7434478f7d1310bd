"""Entries of files with holes in each of GNU tar's four ways, also with maps that no program would write."""

from __future__ import annotations

import struct
import tarfile

Extents = list[tuple[int, int]]
WAYS = ("old", "0.0", "0.1", "1.0")


def entry(
    way: str, extents: Extents, size: int, stored: bytes, name: str = "sparse", count: int | None = None
) -> bytes:
    """One entry: `count` is how many parts it says there are, if that is not the truth."""
    if way == "old":
        return _old(extents, size, stored, name)
    count = len(extents) if count is None else count
    sizes = b",".join(b"%d,%d" % extent for extent in extents)
    before = b""
    if way == "0.0":
        pairs = [pair for at, long in extents for pair in ((b"offset", b"%d" % at), (b"numbytes", b"%d" % long))]
        records = [(b"size", b"%d" % size), (b"numblocks", b"%d" % count), *pairs]
    elif way == "0.1":
        records = [(b"size", b"%d" % size), (b"numblocks", b"%d" % count), (b"map", sizes), (b"name", name.encode())]
    else:
        records = [(b"major", b"1"), (b"minor", b"0"), (b"name", name.encode()), (b"realsize", b"%d" % size)]
        before = b"".join(b"%d\n" % number for number in (count, *(number for pair in extents for number in pair)))
        before += bytes(-len(before) % 512)
    return with_records([(b"GNU.sparse." + key, value) for key, value in records], before + stored, name)


def with_records(records: list[tuple[bytes, bytes]], content: bytes, name: str = "f") -> bytes:
    """A file with an extended header of these records."""
    told = b"".join(record(key, value) for key, value in records)
    return _header(b"x", len(told), "pax") + _padded(told) + _header(b"0", len(content), name) + _padded(content)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    digits = len(str(length))
    while len(str(length + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (length + digits, key, value)


def _old(extents: Extents, size: int, stored: bytes, name: str) -> bytes:
    pairs = [number(offset) + number(length) for offset, length in extents]
    header = bytearray(_header(b"S", len(stored), name))
    header[257:265] = b"ustar  \0"
    header[345:512] = bytes(167)
    header[386:482] = b"".join(pairs[:4]).ljust(96, b"\0")
    header[482] = len(pairs) > 4
    header[483:495] = number(size)
    more, at = b"", 4
    while at < len(pairs):
        block = b"".join(pairs[at : at + 21]).ljust(504, b"\0")
        at += 21
        more += block + bytes((at < len(pairs),)) + bytes(7)
    return signed(header) + more + _padded(stored)


def number(value: int) -> bytes:
    """As GNU tar writes numbers of 12 bytes, negative ones too."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\x80" if value >= 0 else b"\xff") + value.to_bytes(11, "big", signed=True)


def signed(header: bytearray) -> bytes:
    """With the checksum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _header(kind: bytes, size: int, name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return struct.pack("512s", info.tobuf(tarfile.USTAR_FORMAT))


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)
