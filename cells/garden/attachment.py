"""Input for a container's own process, and its output as it comes: what `attach` is.

Output is the log: any number may follow it, nobody who is slow holds anybody up, and nothing is lost when the cell is
away. Input goes through the socket of the monitor. It cannot be ended: the monitor would take the end of any client,
that of this process at its restart too, for the end of the input.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

from attrs import define

from cells.garden.box import Box
from cells.garden.spec import LogLine
from diego_py.errors import IllegalTransition

PACKET_BYTES = 8192
"""The monitor reads so much at once, and the rest of a larger packet would be lost."""


@define(eq=False)
class Attachment:
    """One client of a container's own process. Close it; the process does not notice."""

    output: AsyncIterator[LogLine]
    """What it writes from the moment this is first asked, line by line, until it ends."""
    _input: socket.socket | None

    async def write(self, data: bytes) -> bool:
        """Give it input; returns when the monitor has it. False when the process is gone.

        Input of several clients is mixed in packets. Raises IllegalTransition for a container without input.
        """
        if self._input is None:
            raise IllegalTransition("give input to a container that was created without")
        loop = asyncio.get_running_loop()
        try:
            for start in range(0, len(data), PACKET_BYTES):
                await loop.sock_sendall(self._input, data[start : start + PACKET_BYTES])
        except (ConnectionError, TimeoutError):
            return False
        return True

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None

    async def __aenter__(self) -> Attachment:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def attach(box: Box, output: AsyncIterator[LogLine]) -> Attachment:
    """Raises IllegalTransition when its process has ended."""
    if box.ended.done():
        raise IllegalTransition(f"attach to a container that is {box.state}")
    return Attachment(output, _connect(box) if box.record.stdin else None)


def _connect(box: Box) -> socket.socket:
    """Through a descriptor of the directory: a socket's path has room for 107 characters."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(box.directory.bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/attach")
        connection.shutdown(socket.SHUT_RD)  # The monitor would send us the output, and wait for us to take it.
        connection.setblocking(False)
    except OSError as refused:
        connection.close()
        raise IllegalTransition(f"attach to {box.handle}: its monitor is gone") from refused
    finally:
        os.close(directory)
    return connection
