"""Letting the process of a created container begin, as `runc start` does, without starting another runc for it.

The process of the runtime waits to open a fifo for writing. Somebody opens it for reading: it writes one byte, closes
it, and becomes the user's program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from itertools import repeat
from pathlib import Path

from cells.garden.activity import RUNTIME_NAME
from cells.garden.monitor import gone
from cells.garden.processes import Process, stat

READ_BYTES = 16
LOOK_S = 0.0005
"""Between two looks whether the program was executed; it takes about twice as long."""


async def release(fifo: Path, init: Process) -> bool:
    """Return when the program was executed; False when the process died before. Raises OSError without a fifo."""
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
    if not said:
        return False
    fifo.unlink(missing_ok=True)  # The sign, for runc and for our own recovery, that it began.
    for pause_s in repeat(LOOK_S):
        if not _becoming(init):
            break
        await asyncio.sleep(pause_s)
    return True


def _becoming(init: Process) -> bool:
    """It is not the user's program yet. Whoever took it for that would ask runc which signals it catches.

    The kernel gives it the name of the program first, then forgets the signal handlers, and only then it has a command
    line again. A dead one has none either.
    """
    found = stat(init.pid)
    if found is None or found.state in "ZX":
        return False
    with contextlib.suppress(OSError):
        home = Path(f"/proc/{init.pid}")
        return (home / "comm").read_text().startswith(RUNTIME_NAME) or not (home / "cmdline").read_bytes()
    return False
