"""Files of an image that lies on the cell: of a directory, or of a tar archive, which is read in place. Blocking."""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Final

from attrs import define, field, frozen

from cells.garden import kernel
from diego_py.errors import ImageCorrupt, ImageNotAllowed, ImageNotFound, ImageUnsupported

MEMBERS_MAX: Final = 20_000
"""Entries of a tar archive of an image; it has a few for each layer."""
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK  # Opening a pipe that somebody left there must not wait for a writer.


@frozen
class Extent:
    """Where the bytes of one file are."""

    fd: int
    offset: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` of the file; none at its end."""
        return os.pread(self.fd, max(0, min(count, self.size - offset)), self.offset + offset)

    def content(self, bytes_max: int, what: str) -> bytes:
        """All of it. Raises ImageCorrupt when it is too long or was cut meanwhile."""
        if self.size > bytes_max:
            raise ImageCorrupt(f"{what} is longer than {bytes_max} bytes", evidence={"bytes": self.size})
        content = self.read(0, self.size)
        if len(content) != self.size:
            raise ImageCorrupt(f"{what} ends too early", evidence={"bytes": len(content), "announced": self.size})
        return content


@define
class Archive:
    """A context manager; the extents that it found end with it."""

    _fd: int
    _members: Mapping[str, Extent] | None
    """None: it is a directory."""
    _opened: list[int] = field(factory=list)

    def find(self, name: str) -> Extent | None:
        """The file of this name, a path relative to the top. No symlink leads out of the directory."""
        if self._members is not None:
            return self._members.get(posixpath.normpath(name))
        try:
            fd = kernel.open_in_root(f"/proc/self/fd/{self._fd}", name, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._opened.append(fd)
        found = os.fstat(fd)
        return Extent(fd, 0, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (*self._opened, self._fd):
            os.close(fd)


def open_archive(path: str, allowed: Sequence[str]) -> Archive:
    """The image directory or tar file at an absolute path without `..`, if it is below one of the allowed directories.

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
            return Archive(fd, _members(fd))
        raise ImageUnsupported(f"{path} is no directory and no file", evidence={"path": path})
    except BaseException:
        os.close(fd)
        raise


def _members(fd: int) -> dict[str, Extent]:
    """Where each file of a tar archive is. A link to another file of it counts as that file."""
    size = os.fstat(fd).st_size
    found: dict[str, Extent] = {}
    links: dict[str, str] = {}
    try:
        with open(fd, "rb", closefd=False) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for number, member in enumerate(tar, start=1):
                if number > MEMBERS_MAX:
                    raise ImageUnsupported(f"the archive has more than {MEMBERS_MAX} entries")
                name = posixpath.normpath(member.name)
                if member.isreg() and not member.issparse():
                    found[name] = Extent(fd, member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
    except tarfile.TarError as malformed:
        told = "the file is no plain tar archive (a compressed one has to be unpacked first)"
        raise ImageUnsupported(told, evidence={"reason": str(malformed)[:500]}) from malformed
    if any(extent.offset + extent.size > size for extent in found.values()):
        raise ImageCorrupt("the archive ends too early", evidence={"bytes": size})
    return {**{name: found[target] for name, target in links.items() if target in found}, **found}
