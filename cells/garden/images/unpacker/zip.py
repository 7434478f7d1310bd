"""The entries of a zip archive, by its central directory, as the standard library reads it."""

from __future__ import annotations

import encodings.cp437
import stat
import zipfile
import zlib

from cells.garden.images.unpacker.entry import DIRECTORY, FILE, SYMLINK, Entry
from cells.garden.images.unpacker.refusal import (
    CORRUPT,
    NAME_BYTES_MAX,
    TOO_LARGE,
    UNSAFE,
    UNSUPPORTED,
    Limits,
    Refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

CODEC = encodings.cp437  # Loaded now: what needs it is the name of an entry, and then it is too late.

UNIX = 3
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, IndexError)


class ZipReader:
    """The entries in the order of the directory."""

    def __init__(self, fd: int, limits: Limits) -> None:
        """Nothing is read yet: the directory is the archive's own word, for a confined process only."""
        self._fd = fd
        self._limits = limits
        self._content: IO[bytes] | None = None
        self._read = 0

    def content(self, size: int) -> bytes:
        """The next bytes of the entry's content; none at its end. Raises Refused when its checksum is wrong."""
        assert self._content is not None
        try:
            data = self._content.read(size)
        except BROKEN as broken:
            raise Refused(CORRUPT, "the content of an entry is damaged") from broken
        self._read += len(data)
        if self._read > self._limits.bytes_max:
            raise Refused(TOO_LARGE, f"more than {self._limits.bytes_max} bytes unpacked")
        return data

    def entries(self) -> Iterator[Entry]:
        self._archive = self._open()
        packed = sum(info.compress_size for info in self._archive.filelist)
        unpacked = sum(info.file_size for info in self._archive.filelist)
        limits = self._limits
        if unpacked > limits.ratio_free_bytes and unpacked > limits.ratio_max * packed:
            raise Refused(TOO_LARGE, f"more than {limits.ratio_max} times as large as its compressed form")
        for info in self._archive.filelist:
            yield self._entry(info)

    def _open(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(open(self._fd, "rb", closefd=False))  # noqa: SIM115
        except NotImplementedError as unknown:
            raise Refused(UNSUPPORTED, "this version of the zip format") from unknown
        except BROKEN as broken:
            raise Refused(CORRUPT, "its directory is damaged") from broken
        if len(archive.filelist) > self._limits.entries_max:
            raise Refused(TOO_LARGE, f"more than {self._limits.entries_max} entries")
        return archive

    def _entry(self, info: zipfile.ZipInfo) -> Entry:
        name = info.filename.encode("utf-8", "surrogateescape")
        if info.flag_bits & 1:
            raise Refused(UNSUPPORTED, "encrypted entries", name)
        mode = info.external_attr >> 16 if info.create_system == UNIX else 0
        kind = _kind(mode, name)
        entry = Entry(kind, name, stat.S_IMODE(mode) or (0o755 if kind == DIRECTORY else 0o644))
        if kind == DIRECTORY:
            return entry
        try:
            self._content = self._archive.open(info)
        except NotImplementedError as unknown:
            raise Refused(UNSUPPORTED, f"compression method {info.compress_type}", name) from unknown
        except (RuntimeError, *BROKEN) as broken:
            raise Refused(CORRUPT, "the header of an entry is damaged", name) from broken
        entry.size = info.file_size
        if kind == SYMLINK:
            if info.file_size > NAME_BYTES_MAX:
                raise Refused(TOO_LARGE, f"a link of {info.file_size} bytes; at most {NAME_BYTES_MAX}", name)
            entry.link = self.content(NAME_BYTES_MAX + 1)
        return entry


def _kind(mode: int, name: bytes) -> str:
    kind = stat.S_IFMT(mode)
    if name.endswith(b"/") or kind == stat.S_IFDIR:
        return DIRECTORY
    if kind == stat.S_IFLNK:
        return SYMLINK
    if kind in (0, stat.S_IFREG):
        return FILE
    raise Refused(UNSAFE, "devices, pipes and sockets are not taken", name)
