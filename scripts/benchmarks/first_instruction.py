"""When the first instruction of a container's process was carried out, seen from the host.

The process creates a file in its root directory. Its root is an overlay whose upper directory is on the host, and the
kernel tells whoever watches that directory, in some ten microseconds: no pipe, no daemon and no network in between, and
the same for every tool. A tool's own pipe would favour the one that has the shortest.
"""

from __future__ import annotations

import json
import os
import select
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field

from cells.garden import kernel

IN_CREATE = 0x100
LOOK_S = 0.0003
EVENT = struct.Struct("iIII")
EVENT_BYTES_MAX = 4096
MARK = "first-instruction"
COMMAND = ("/bin/sh", "-c", f": > /{MARK}; echo R; exec sleep 1000")
"""The same for every tool: the mark, one byte on standard output, and then to stay."""
TIMEOUT_S = 30.0


def names_in(events: bytes) -> list[str]:
    """The names that a read of inotify tells of."""
    names, offset = [], 0
    while offset < len(events):
        *_, length = EVENT.unpack_from(events, offset)
        offset += EVENT.size
        names.append(events[offset : offset + length].rstrip(b"\0").decode())
        offset += length
    return names


def created_in(watches: Sequence[tuple[int, Path]], until_s: float) -> tuple[Path, float]:
    """The next thing that is created in one of the watched directories, and when (perf_counter)."""
    ready, _, _ = select.select([fd for fd, _ in watches], [], [], max(0.0, until_s - time.perf_counter()))
    now_s = time.perf_counter()
    for fd, directory in watches:
        if fd in ready:
            return directory / names_in(os.read(fd, EVENT_BYTES_MAX))[0], now_s
    raise TimeoutError(f"nothing was created in {[str(directory) for _, directory in watches]}")


@define
class NextContainer:
    """Waits, in a thread of its own, for the first instruction of the next container of some gardens."""

    depots: Sequence[Path]
    """Their directories of containers."""
    at_s: float | None = field(default=None, init=False)
    directory: Path | None = field(default=None, init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> NextContainer:
        watches = [(kernel.inotify(str(depot), IN_CREATE), depot) for depot in self.depots]
        self._thread = threading.Thread(target=self._wait, args=[watches], daemon=True)
        self._thread.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:  # else none may ever begin
            self._thread.join(TIMEOUT_S)

    def _wait(self, watches: Sequence[tuple[int, Path]]) -> None:
        until_s = time.perf_counter() + TIMEOUT_S
        self.directory, _ = created_in(watches, until_s)
        state = self.directory / "state.json"
        _await_path(state, until_s)
        upper = Path(json.loads(state.read_text())["volume"], "upper")
        _await_path(upper, until_s)
        inner = kernel.inotify(str(upper), IN_CREATE)
        assert not (upper / MARK).exists(), "the process was faster than the watch"
        _, self.at_s = created_in([(inner, upper)], until_s)
        for fd in (inner, *(fd for fd, _ in watches)):
            os.close(fd)


def _await_path(path: Path, until_s: float) -> None:
    """Return when it is there. Looked at, not watched: it may come by mkdir, by rename or as a subvolume."""
    while not path.exists():
        if time.perf_counter() > until_s:
            raise TimeoutError(f"{path} was not created")
        time.sleep(LOOK_S)
