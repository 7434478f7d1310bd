"""Letting the process of a created container begin, as `runc start` does, without starting another runc for it.

The process waits to open a fifo for writing. Somebody opens it for reading: it writes one byte and executes the user's
program, at which its end of the fifo is closed. So the end of the fifo says that the program has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from cells.garden.monitor import gone
from cells.garden.processes import Process

READ_BYTES = 16


async def release(fifo: Path, init: Process) -> bool:
    """Return when the program was executed; False when the process died before. Raises OSError without a fifo."""
    loop = asyncio.get_running_loop()
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    executed: asyncio.Future[None] = loop.create_future()
    said = bytearray()

    def readable() -> None:
        chunk = os.read(fd, READ_BYTES)
        said.extend(chunk)
        if not chunk and not executed.done():
            executed.set_result(None)

    loop.add_reader(fd, readable)
    try:
        async with asyncio.TaskGroup() as group:
            death = group.create_task(gone(init))
            await asyncio.wait([executed, death], return_when=asyncio.FIRST_COMPLETED)
            death.cancel()
        with contextlib.suppress(BlockingIOError):  # A program that has ended already: its byte may still be in there.
            said.extend(os.read(fd, READ_BYTES))
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    if said:
        fifo.unlink(missing_ok=True)  # The sign, for runc and for our own recovery, that it began.
    return bool(said)
