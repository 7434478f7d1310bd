"""Streams of zstd as its library writes them, and frames as only somebody with bad intentions does."""

from __future__ import annotations

import struct
import sys

if sys.version_info >= (3, 14):
    from compression.zstd import compress
else:
    from backports.zstd import compress

BLOCK_BYTES_MAX = 128 * 1024
RLE, LAST = 0b010, 0b001


def skippable(content: bytes = b"not for you", number: int = 0) -> bytes:
    """A frame that decoders pass over; there are 16 kinds of it."""
    return struct.pack("<II", 0x184D2A50 + number, len(content)) + content


def with_window(log: int, content: bytes = b"x") -> bytes:
    """A frame that asks for a window of 2^log bytes, up to 41, for a content of one repeated byte."""
    block = ((len(content) << 3) | RLE | LAST).to_bytes(3, "little") + content[:1]
    return b"\x28\xb5\x2f\xfd" + bytes((0, (log - 10) << 3)) + block


def of_zeros(size: int) -> bytes:
    """The densest there is: four bytes for 128 KiB."""
    blocks, rest = divmod(size, BLOCK_BYTES_MAX)
    full = ((BLOCK_BYTES_MAX << 3) | RLE).to_bytes(3, "little") + b"\0"
    last = ((rest << 3) | RLE | LAST).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + bytes((0, 10 << 3)) + full * blocks + last


__all__ = ["compress", "of_zeros", "skippable", "with_window"]
