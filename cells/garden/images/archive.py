"""Files of an image that lies on the cell: of a directory, or of a tar archive, which is read in place. Blocking.

An archive may be compressed with gzip. Then it is read through once before any file of it is known.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Final, Literal

from attrs import define, field, frozen

from cells.garden import kernel
from cells.garden.images.gzip_file import MAGIC, GzipFile, Notes, NoteTaker
from diego_py.errors import ImageCorrupt, ImageNotAllowed, ImageNotFound, ImageUnsupported

SKIPPED_BYTES: Final = 1024 * 1024
"""How much of an archive is read at once where nothing of it is wanted."""
MEMBERS_MAX: Final = 20_000
"""Entries of a tar archive of an image; it has a few for each layer."""
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK  # Opening a pipe that somebody left there must not wait for a writer.


@frozen
class Extent:
    """Where the bytes of one file are."""

    _pread: Callable[[int, int], bytes]
    """Count, offset; may give less."""
    offset: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` of the file; none at its end."""
        return self._pread(max(0, min(count, self.size - offset)), self.offset + offset)

    def content(self, bytes_max: int, what: str) -> bytes:
        """All of it. Raises ImageCorrupt when it is too long or was cut meanwhile."""
        if self.size > bytes_max:
            raise ImageCorrupt(f"{what} is longer than {bytes_max} bytes", evidence={"bytes": self.size})
        content = b""
        while part := self.read(len(content), self.size):
            content += part
        if len(content) != self.size:
            raise ImageCorrupt(f"{what} ends too early", evidence={"bytes": len(content), "announced": self.size})
        return content


@frozen
class Contents:
    """What an archive has in it, found by reading it through."""

    identity: tuple[int, ...]
    """Of the file that it was found in."""
    places: Mapping[str, tuple[int, int]]
    """Begin and length of each file."""
    notes: Notes | None
    """Of a compressed one: places are in its content."""

    def extents(self, fd: int) -> dict[str, Extent]:
        """The files, in this descriptor of the archive."""
        pread = partial(os.pread, fd) if self.notes is None else GzipFile(fd, self.notes).pread
        return {name: Extent(pread, *place) for name, place in self.places.items()}


@define
class Archive:
    """A context manager; the extents that it found end with it."""

    _fd: int
    contents: Contents | None
    """None: it is a directory."""
    _opened: list[int] = field(factory=list)
    _members: Mapping[str, Extent] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._members = self.contents.extents(self._fd) if self.contents is not None else {}

    def find(self, name: str) -> Extent | None:
        """The file of this name, a path relative to the top. No symlink leads out of the directory."""
        if self.contents is not None:
            return self._members.get(posixpath.normpath(name))
        try:
            fd = kernel.open_in_root(f"/proc/self/fd/{self._fd}", name, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._opened.append(fd)
        found = os.fstat(fd)
        return Extent(partial(os.pread, fd), 0, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (*self._opened, self._fd):
            os.close(fd)


def open_archive(path: str, allowed: Sequence[str], known: Contents | None, heed: Callable[[], None]) -> Archive:
    """The image directory or tar file at an absolute path without `..`, if it is below one of the allowed directories.

    `known` spares looking for what is in it, if it is still the same file. `heed` raises when nobody waits any more.
    Raises ImageNotAllowed, ImageNotFound, ImageUnsupported, ImageCorrupt; OSError when it cannot be read.
    """
    inside = PurePosixPath(path)
    top = next((directory for directory in allowed if inside.is_relative_to(directory)), None)
    if top is None:
        raise ImageNotAllowed(
            f"{path} is in none of the cell's image_dirs", evidence={"path": path, "image_dirs": list(allowed)}
        )
    try:
        fd = kernel.open_in_root(top, str(inside.relative_to(top)), _FLAGS)
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise ImageNotFound(f"there is no {path} on the cell", evidence={"path": path}) from missing
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return Archive(fd, None)
        if stat.S_ISREG(mode):
            if known is None or known.identity != _identity(fd):
                known = _contents(fd, heed)
            return Archive(fd, known)
        raise ImageUnsupported(f"{path} is no directory and no file", evidence={"path": path})
    except BaseException:
        os.close(fd)
        raise


def _identity(fd: int) -> tuple[int, ...]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _contents(fd: int, heed: Callable[[], None]) -> Contents:
    """Read an archive through."""
    identity = _identity(fd)
    if os.pread(fd, len(MAGIC), 0) == MAGIC:
        taker = NoteTaker(fd, heed)
        places = _places(taker, "r|")
        notes = taker.finish()
        size = notes.size
    else:
        with open(fd, "rb", closefd=False) as file:
            places, notes, size = _places(file, "r:"), None, os.fstat(fd).st_size
    if any(offset + length > size for offset, length in places.values()):
        raise ImageCorrupt("the archive ends too early", evidence={"bytes": size})
    return Contents(identity, places, notes)


def _places(file: Any, mode: Literal["r:", "r|"]) -> dict[str, tuple[int, int]]:
    """Where each file of a tar archive is. A link to another file of it counts as that file."""
    found: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=file, mode=mode, bufsize=SKIPPED_BYTES) as tar:
            for number, member in enumerate(tar, start=1):
                if number > MEMBERS_MAX:
                    raise ImageUnsupported(f"the archive has more than {MEMBERS_MAX} entries")
                name = posixpath.normpath(member.name)
                if member.isreg() and not member.issparse():
                    found[name] = (member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
    except tarfile.TarError as malformed:
        told = "the file is no tar archive, plain or compressed with gzip"
        raise ImageUnsupported(told, evidence={"reason": str(malformed)[:500]}) from malformed
    return {**{name: found[target] for name, target in links.items() if target in found}, **found}
