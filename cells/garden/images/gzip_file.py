"""A gzip file that is read from any place: one pass over it takes notes, and reading goes on from one. Blocking."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from diego_py.errors import ImageCorrupt

MAGIC: Final = b"\x1f\x8b"
WINDOW_BITS: Final = 31
"""A gzip header, and the largest window."""
READ_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 1024 * 1024
SPACING_BYTES_MIN: Final = 4 * 1024 * 1024
NOTES_MAX: Final = 256
"""Each has some 40 KiB. Of a large file they lie further apart."""


@frozen
class Note:
    """The decompressor as it is when so much was read and so much came out."""

    read: int
    given: int
    state: zlib._Decompress = field(repr=False)
    fresh: bool
    """Nothing of a member was read."""


@define
class Cursor:
    """Reads on from a note."""

    _fd: int
    _read: int = 0
    given: int = 0
    _state: zlib._Decompress = field(factory=lambda: zlib.decompressobj(WINDOW_BITS))
    _fresh: bool = True

    @classmethod
    def of(cls, fd: int, note: Note) -> Cursor:
        return cls(fd, note.read, note.given, note.state.copy(), note.fresh)

    def note(self) -> Note:
        return Note(self._read, self.given, self._state.copy(), self._fresh)

    def next(self) -> bytes:
        """Some bytes; none at the end. Raises ImageCorrupt."""
        while packed := os.pread(self._fd, READ_BYTES, self._read):
            if self._fresh:  # Behind a member there may be padding.
                padding = len(packed) - len(packed.lstrip(b"\0"))
                self._read, packed = self._read + padding, packed[padding:]
                if not packed:
                    continue
            try:
                content = self._state.decompress(packed, CHUNK_BYTES)
            except zlib.error as damaged:
                raise ImageCorrupt("the archive's gzip stream is damaged", evidence={"at": self._read}) from damaged
            self._fresh = False
            self._read += len(packed) - len(self._state.unused_data or self._state.unconsumed_tail)
            self.given += len(content)
            if self._state.eof:
                self._state, self._fresh = zlib.decompressobj(WINDOW_BITS), True
            if content:
                return content
        if not self._fresh:
            raise ImageCorrupt("the archive's gzip stream ends too early", evidence={"at": self._read})
        return b""


@frozen
class Notes:
    """Of one whole file."""

    notes: tuple[Note, ...]
    size: int
    """Bytes of content."""

    def before(self, offset: int) -> Note:
        """The last one that is not behind it."""
        return max((note for note in self.notes if note.given <= offset), key=lambda note: note.given)


@define
class NoteTaker:
    """Reads once from begin to end, as a file does."""

    _fd: int
    _heed: Callable[[], None]
    """Raises when nobody waits any more."""
    _cursor: Cursor = field(init=False)
    _notes: list[Note] = field(init=False)
    _spacing: int = field(default=SPACING_BYTES_MIN, init=False)
    _ready: bytes = field(default=b"", init=False)

    def __attrs_post_init__(self) -> None:
        self._cursor = Cursor(self._fd)
        self._notes = [self._cursor.note()]

    def read(self, count: int) -> bytes:
        """So many bytes; fewer at the end only. Raises ImageCorrupt, and what `heed` does."""
        parts = []
        while count:
            if not self._ready and not self._next():
                break
            parts.append(self._ready[:count])
            self._ready = self._ready[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def _next(self) -> bool:
        self._heed()
        if self._cursor.given - self._notes[-1].given >= self._spacing:
            self._notes.append(self._cursor.note())
            if len(self._notes) > NOTES_MAX:
                self._notes, self._spacing = self._notes[::2], self._spacing * 2
        self._ready = self._cursor.next()
        return bool(self._ready)

    def finish(self) -> Notes:
        """What was noted, once all is read."""
        while self._next():
            pass
        return Notes(tuple(self._notes), self._cursor.given)


@define
class GzipFile:
    """The content as it can be read from any place, best from one after another."""

    _fd: int
    _notes: Notes
    _cursor: Cursor | None = None
    _chunk: bytes = b""

    def pread(self, count: int, offset: int) -> bytes:
        """Up to so many bytes; none at the end. Raises ImageCorrupt when the file was changed meanwhile."""
        begin = self._cursor.given - len(self._chunk) if self._cursor is not None else 0
        note = self._notes.before(offset)
        if self._cursor is None or offset < begin or note.given > self._cursor.given:
            self._cursor, self._chunk = Cursor.of(self._fd, note), b""
        while offset >= self._cursor.given:
            self._chunk = self._cursor.next()
            if not self._chunk:
                return b""
        begin = self._cursor.given - len(self._chunk)
        return self._chunk[offset - begin :][:count]
