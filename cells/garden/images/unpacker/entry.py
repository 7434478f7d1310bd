"""One thing that an archive says shall exist."""

from __future__ import annotations

FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO, DEVICE = "file", "directory", "symlink", "hardlink", "fifo", "device"


class Entry:
    """`content` gives the bytes of a file, a chunk a call; the reader knows how many there are."""

    __slots__ = ("gid", "kind", "link", "mode", "mtime", "name", "size", "uid", "xattrs")

    def __init__(self, kind: str, name: bytes, mode: int) -> None:
        self.kind = kind
        self.name = name
        self.mode = mode
        self.uid = 0
        self.gid = 0
        self.mtime: int | None = None
        self.size = 0
        self.link = b""
        self.xattrs: dict[bytes, bytes] = {}
