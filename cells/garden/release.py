"""Letting the process of a created container begin, as `runc start` and `crun start` do, without starting another one.

The process of the runtime waits at a fifo. That of runc waits until somebody opens it for reading, writes one byte, and
becomes the user's program; that of crun waits until somebody writes one byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from itertools import chain, repeat
from pathlib import Path

from cells.garden.monitor import gone
from cells.garden.processes import Process, stat
from cells.garden.runtimes import Release

READ_BYTES = 16
FIRST_HALF = b"runc:["
"""How runc names a process of a container until it executes the user's program."""
EXECUTED_S = 1.0
"""A program may give itself that name; then this long."""
LOOKS_S = (0.0005, 0.0005, 0.001, 0.002)
"""Between looks whether the program was executed, which takes about a millisecond; the last one is repeated."""


async def release(fifo: Path, init: Process, how: Release) -> bool:
    """Return when the program was executed; False when the process died before. Raises OSError without a fifo."""
    runtime = _program(init)
    if not (await _read(fifo, init) if how == "read" else _write(fifo)):
        return False
    fifo.unlink(missing_ok=True)  # The sign, for the runtime and for our own recovery, that it began.
    for pause_s in chain(LOOKS_S, repeat(LOOKS_S[-1])):
        if not _becoming(init, runtime):
            break
        await asyncio.sleep(pause_s)
    return True


async def executed(process: Process) -> None:
    """Return when an extra process that the runtime has started is the user's program, or dead.

    The runtime returns a little earlier. A signal in between is lost: Go takes it, and gives it back to a thread that
    `execve` ends.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + EXECUTED_S
    for pause_s in chain(LOOKS_S, repeat(LOOKS_S[-1])):
        if not _is_first_half(process) or loop.time() >= until_s:
            return
        await asyncio.sleep(pause_s)


async def _read(fifo: Path, init: Process) -> bool:
    loop = asyncio.get_running_loop()
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    written: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not written.done():
            written.set_result(None)

    loop.add_reader(fd, readable)
    try:
        async with asyncio.TaskGroup() as group:
            death = group.create_task(gone(init))
            await asyncio.wait([written, death], return_when=asyncio.FIRST_COMPLETED)
            death.cancel()
        said = b""
        with contextlib.suppress(BlockingIOError):  # Nobody wrote: it died. A program that ended at once did write.
            said = os.read(fd, READ_BYTES)
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return bool(said)


def _write(fifo: Path) -> bool:
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as refused:
        if refused.errno == errno.ENXIO:  # Nobody waits there: it died.
            return False
        raise
    with open(fd, "wb", buffering=0) as waiting:
        waiting.write(b"\0")
    return True


def _program(init: Process) -> tuple[int, int] | None:
    """Which file the process executes; None when it is dead."""
    with contextlib.suppress(OSError):
        found = os.stat(f"/proc/{init.pid}/exe")
        return found.st_dev, found.st_ino
    return None


def _is_first_half(process: Process) -> bool:
    """As `_becoming`, for a process that was never seen before it began."""
    found = stat(process.pid)
    if found is None or found.state in "ZX" or found.started != process.started:
        return False
    with contextlib.suppress(OSError):
        about = Path(f"/proc/{process.pid}")
        return (about / "comm").read_bytes().startswith(FIRST_HALF) or not (about / "cmdline").read_bytes()
    return False


def _becoming(init: Process, runtime: tuple[int, int] | None) -> bool:
    """It is not the user's program yet. Whoever took it for that would ask the runtime which signals it catches.

    The kernel gives it the file of the program first, then forgets the signal handlers, and only then it has a command
    line again. A dead one has none either.
    """
    found = stat(init.pid)
    if found is None or found.state in "ZX":
        return False
    with contextlib.suppress(OSError):
        return _program(init) == runtime or not Path(f"/proc/{init.pid}/cmdline").read_bytes()
    return False
