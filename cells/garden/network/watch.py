"""Waiting for links to go: the kernel says so on a netlink socket, some time after the last process of a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from attrs import define, field

from cells.garden.children import in_thread
from cells.garden.network import links

SOL_NETLINK, ADD_MEMBERSHIP, DROP_MEMBERSHIP = 270, 1, 2
GROUP_LINK = 1
MESSAGE_BYTES_MAX = 64 * 1024


@define
class LinkWatch:
    """Wakes whoever waits for a link to be gone. Any message makes all of them look again: there are few.

    It listens only while somebody waits: most links are gone by then, and each that comes makes half a dozen messages.
    """

    timeout_s: float = 2.0
    """After this a link whose namespace somebody else keeps alive is removed by us."""
    _socket: socket.socket | None = field(default=None, init=False)
    _waiting: dict[str, asyncio.Future[None]] = field(factory=dict, init=False)

    def open(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._look)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def gone(self, name: str) -> None:
        """Return when no such link is left. Raises NetworkFailed when it cannot be removed."""
        if not links.exists(name):
            return
        if not self._waiting:
            self._listen(ADD_MEMBERSHIP)
        waiter = self._waiting.setdefault(name, asyncio.get_running_loop().create_future())
        # Looked at again: it may have gone between the first look and the wait.
        if links.exists(name):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.timeout_s):
                    await asyncio.shield(waiter)
        if self._waiting.pop(name, None) is not None and not self._waiting:
            self._listen(DROP_MEMBERSHIP)
        if links.exists(name):
            await in_thread(links.remove, name)

    def _listen(self, change: int) -> None:
        if self._socket is not None:
            self._socket.setsockopt(SOL_NETLINK, change, GROUP_LINK)

    def _look(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, OSError):
            while self._socket.recv(MESSAGE_BYTES_MAX):
                pass
        for name, waiter in list(self._waiting.items()):
            if not links.exists(name) and not waiter.done():
                waiter.set_result(None)
