"""What a container wrote: conmon's log, one line `TIME STREAM F|P TEXT` each (P: the line goes on in the next).

Of launched processes we write it ourselves (`log_writing`); they are told apart by what stands for the stream.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from attrs import define, field, frozen

from cells.garden import kernel
from cells.garden.spec import LogLine
from diego_py.errors import PoolExhausted

TAIL_BYTES = 256 * 1024
CHUNK_BYTES = 64 * 1024
TAIL_LINES = 20
TAIL_LINE_BYTES = 1024
LINE_BYTES_MAX = 256 * 1024
"""A longer line is given in parts."""
MARK = ":"
"""Between a stream, a number of its writer and what marks its lines: `stdout:7:APP`. The monitor writes `stdout`."""


@define
class Parser:
    """Bytes of the file in, whole lines out; what is not finished waits for more."""

    _rest: bytes = b""
    _parts: dict[str, list[str]] = field(factory=dict)
    _sizes: dict[str, int] = field(factory=dict)
    _times: dict[str, datetime] = field(factory=dict)

    def feed(self, data: bytes) -> Iterator[LogLine]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for raw in whole:
            words = raw.decode(errors="replace").split(" ", 3)
            at = _time(words[0])
            if len(words) < 3 or at is None:
                continue  # The file was cut in the middle of a line, at its beginning or when it was started afresh.
            writer, flag, text = words[1], words[2], words[3] if len(words) == 4 else ""
            parts = self._parts.setdefault(writer, [])
            parts.append(text)
            self._sizes[writer] = self._sizes.get(writer, 0) + len(text)
            self._times[writer] = at
            if flag != "P" or self._sizes[writer] > LINE_BYTES_MAX:
                yield self._line(writer)

    def unfinished(self) -> list[LogLine]:
        """Lines whose end was not written, as far as they go: the last words of many a program that fails."""
        return [self._line(writer) for writer in list(self._parts)]

    def _line(self, writer: str) -> LogLine:
        stream, _, mark = writer.partition(MARK)
        number, _, source = mark.partition(MARK)
        self._sizes.pop(writer)
        text = "".join(self._parts.pop(writer))
        return LogLine(self._times.pop(writer), stream, text, unquote(source) if number else "")


def tail(path: Path, lines: int) -> list[LogLine]:
    """The last lines of a log, of its last 256 KiB; none when there is no log."""
    found, _, parser = _read_tail(path, lines)
    return _last([*found, *parser.unfinished()], lines)


def tail_text(path: Path) -> tuple[str, ...]:
    """The last 20 lines as text, each at most 1 KiB."""
    return tuple(line.text.encode()[:TAIL_LINE_BYTES].decode(errors="replace") for line in tail(path, TAIL_LINES))


def _read_tail(path: Path, lines: int) -> tuple[list[LogLine], int, Parser]:
    """The lines, where the file ended, and the parser with what was not finished there."""
    parser = Parser()
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            found = list(parser.feed(file.read()))
            return _last(found, lines), file.tell(), parser
    except FileNotFoundError:
        return [], 0, parser


def _last(found: list[LogLine], lines: int) -> list[LogLine]:
    return found[max(0, len(found) - lines) :]


def follow(path: Path, lines: int | None, ended: asyncio.Future[Any] | None) -> AsyncGenerator[LogLine, None]:
    """The last lines (None: all), then each new one as it is written, until `ended` and the log is read.

    `ended` None: only what is there. Raises PoolExhausted when no more logs can be followed at a time.
    """
    return _there(path, lines) if ended is None else _followed(path, lines, ended)


async def _there(path: Path, lines: int | None) -> AsyncGenerator[LogLine, None]:
    for piece in [tail(path, lines)] if lines is not None else _Reader(path).pieces(last=True):
        for line in piece:
            yield line
        await asyncio.sleep(0)


async def _followed(path: Path, lines: int | None, ended: asyncio.Future[Any]) -> AsyncGenerator[LogLine, None]:
    reader = _Reader(path)
    if lines is not None:
        found, offset, parser = _read_tail(path, lines)
        reader = _Reader(path, offset, parser)
        for line in found:
            yield line
    over = False
    while True:
        watch = _watch(path)
        if watch is None:
            return
        try:
            inode = _inode(path)
            while inode is not None and _inode(path) == inode:
                over = over or ended.done()
                for piece in reader.pieces(last=over):
                    for line in piece:
                        yield line
                    await asyncio.sleep(0)
                if over:
                    return
                await watch.changed(ended)
        finally:
            watch.close()
        # conmon started the file afresh at its greatest size.
        reader = _Reader(path)
        if over or not path.exists():
            return
        over = ended.done()


@define
class _Reader:
    """How far a file was read."""

    path: Path
    offset: int = 0
    parser: Parser = field(factory=Parser)

    def pieces(self, last: bool) -> Iterator[list[LogLine]]:
        """What was written since, up to now; `last`: nothing will be any more.

        In pieces: a log has megabytes, and others want their turn in between.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            if size < self.offset:  # Begun afresh by who writes for launched processes.
                self.offset, self.parser = 0, Parser()
            file.seek(self.offset)
            while chunk := file.read(min(CHUNK_BYTES, size - self.offset)):
                self.offset += len(chunk)
                yield list(self.parser.feed(chunk))
        if last:
            yield self.parser.unfinished()


def _watch(path: Path) -> _Watch | None:
    """None when there is no such file. Raises PoolExhausted."""
    try:
        return _Watch(kernel.inotify(str(path), kernel.IN_MODIFY | kernel.IN_ATTRIB | kernel.IN_DELETE_SELF))
    except FileNotFoundError:
        return None
    except OSError as refused:
        evidence = {"pool": "inotify", "errno": errno.errorcode.get(refused.errno or 0, "?")}
        raise PoolExhausted("follow one more log", evidence=evidence) from refused


@frozen
class _Watch:
    """Readable when the file grew, or is another now."""

    _fd: int

    async def changed(self, ended: asyncio.Future[Any]) -> None:
        """Return at the next change or when `ended` is done."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()

        def written_once() -> None:
            if not written.done():
                written.set_result(None)

        loop.add_reader(self._fd, written_once)
        try:
            await asyncio.wait([written, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._fd)
        if written.done():
            os.read(self._fd, CHUNK_BYTES)

    def close(self) -> None:
        os.close(self._fd)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _time(text: str) -> datetime | None:
    """conmon writes nanoseconds; a datetime has microseconds."""
    moment, dot, rest = text.partition(".")
    digits = rest[:9]
    try:
        parsed = datetime.fromisoformat(moment + dot + digits[:6] + rest[9:])
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo else None
