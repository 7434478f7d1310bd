"""Writing to a container's log beside its monitor: whole lines, each marked, in the form that the monitor writes.

Both append, and a write is one step to the kernel, so lines never mix. The monitor counts only what it wrote itself, so
a log that came to its greatest size by us is emptied: whoever appends goes on at its new end.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from attrs import define, field

from cells.garden.logs import MARK

PART_BYTES = 8 * 1024
"""A longer line is written in parts."""
WRITE_BYTES = 16 * 1024
"""Lines are written in steps of about this size: short ones take many times their own length."""
MODE = 0o600


@define
class Writer:
    """The lines of one stream of one process. `mark` is empty for lines that are dropped."""

    path: Path
    mark: str
    bytes_max: int
    """Of the whole log."""
    _rest: bytearray = field(factory=bytearray, init=False)

    def feed(self, data: bytes, at: datetime) -> None:
        """Write the lines that are whole now; what is not waits for more."""
        if not self.mark:
            return
        self._rest += data
        *whole, rest = bytes(self._rest).split(b"\n")
        written = bytearray()
        for line in whole:
            self._add(written, line, at, b"F")
            if len(written) >= WRITE_BYTES:
                self._append(written)
                written.clear()
        while len(rest) >= PART_BYTES:
            self._add(written, rest[:PART_BYTES], at, b"P")
            rest = rest[PART_BYTES:]
        self._rest = bytearray(rest)
        self._append(written)

    def finish(self, at: datetime) -> None:
        """Write what did not end with a line's end."""
        if self._rest:
            self.feed(b"\n", at)

    def write_line(self, text: str, at: datetime) -> None:
        """Write a text as one line, whatever is in it."""
        self.feed(" ".join(text.splitlines()).encode(errors="replace") + b"\n", at)

    def _add(self, written: bytearray, line: bytes, at: datetime, flag: bytes) -> None:
        while len(line) > PART_BYTES:
            self._add(written, line[:PART_BYTES], at, b"P")
            line = line[PART_BYTES:]
        time = at.isoformat(timespec="microseconds").replace("+00:00", "000+00:00")
        written += b"%s %s %s %s\n" % (time.encode(), self.mark.encode(), flag, line)

    def _append(self, written: bytearray) -> None:
        """Raises nothing: a log that cannot be written (a full disk) must not end the process that writes to it."""
        if not written:
            return
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError:
            return
        try:
            if os.fstat(fd).st_size + len(written) > self.bytes_max:
                os.ftruncate(fd, 0)
            os.write(fd, written)
        except OSError:
            pass
        finally:
            os.close(fd)


def mark(stream: str, number: int, source: str) -> str:
    """What stands for the stream: which one, of which process, and whose lines those are."""
    return MARK.join((stream, str(number), quote(source, safe="/-._")))
