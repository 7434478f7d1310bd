"""One thing that an archive says shall exist."""

from __future__ import annotations

FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO, DEVICE = "file", "directory", "symlink", "hardlink", "fifo", "device"


class Entry:
    """The reader's `content` gives the bytes of a file, a chunk a call, and knows how many there are."""

    __slots__ = ("extents", "gid", "kind", "link", "mode", "mtime", "name", "size", "uid", "xattrs")

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
        self.extents: list[tuple[int, int]] | None = None
        """Of a file with holes: begin and length of each part whose bytes `content` gives. None: it gives all of it."""
