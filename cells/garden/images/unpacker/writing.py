"""The content of a file, from an archive to the file; whole, or the parts between holes."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Content = Callable[[int], bytes]

CHUNK = 256 * 1024
DISK_BLOCK = 4096


def whole(content: Content, fd: int) -> tuple[int, int]:
    """Write all there is. Answers how much that was, and about what it takes on disk. Raises OSError."""
    written = 0
    while data := content(CHUNK):
        _write(fd, data)
        written += len(data)
    return written, -(-written // DISK_BLOCK) * DISK_BLOCK


def parts(content: Content, fd: int, extents: list[tuple[int, int]], size: int) -> int:
    """Write what the extents say, and leave holes up to `size`. Answers about what it takes on disk.

    There must be as much content as the extents are long together.
    """
    disk_bytes = 0
    for offset, length in extents:
        os.lseek(fd, offset, os.SEEK_SET)
        left = length
        while left:
            data = content(min(CHUNK, left))
            assert data, "the reader has checked that there is as much"
            _write(fd, data)
            left -= len(data)
        disk_bytes += (-(-(offset + length) // DISK_BLOCK) - offset // DISK_BLOCK) * DISK_BLOCK
    os.ftruncate(fd, size)
    return disk_bytes


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
