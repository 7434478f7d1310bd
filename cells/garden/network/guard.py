"""Watching over the cell's firewall table: the kernel says on a netlink socket who changed what, and we put it back.

Without it a `nft flush ruleset` by somebody would leave all containers open until the cell starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator, Set
from socket import socket

from attrs import define, field

from cells.garden.network import netlink
from cells.garden.network.events import FirewallNotRestored, FirewallRestored, Tell
from cells.garden.network.firewall import Firewall
from cells.garden.network.nft_rules import FAMILY_INET, NFTABLES
from diego_py.errors import NetworkFailed

SOL_NETLINK, ADD_MEMBERSHIP = 270, 1
GROUP_NFTABLES = 7
ROOM_BYTES = 32 * 1024 * 1024
"""A table of many containers that is put back comes as one burst."""
FAMILY = struct.Struct("=B3x")

PAUSE_S = 1.0
"""Between two restores, that two who both want the table do not keep the machine busy; the first one is at once."""
PAUSE_MAX_S = 30.0
"""The pause doubles up to this while the table cannot be put back."""


@define
class Guard:
    """Looks after one table for as long as it is open."""

    firewall: Firewall
    tell: Tell
    _socket: socket | None = field(default=None, init=False)
    _seen: set[int] = field(factory=set, init=False)
    """The kernel's numbers of the sockets that changed our table, ours and others'."""
    _lost: bool = field(default=False, init=False)
    """Messages were: anything may have happened."""
    _mending: asyncio.Future[tuple[None]] | None = field(default=None, init=False)
    _due: asyncio.Event = field(factory=asyncio.Event, init=False)

    def open(self) -> None:
        """From now on changes are noticed. Raises OSError."""
        self._socket = netlink.connection(netlink.NETFILTER)
        self._socket.setblocking(False)
        netlink.have_room(self._socket, ROOM_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP_NFTABLES)
        self.firewall.loaded = self._loaded
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._look)
        self._mending = asyncio.gather(self._mend())

    async def close(self) -> None:
        """Let go; a restore under way is finished first."""
        mending, self._mending = self._mending, None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if mending is not None:
            mending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await mending

    def _look(self) -> None:
        self._read()
        self._judge()

    def _loaded(self, pid: int) -> None:
        """Our own nft has changed the table, and is told of in what waits to be read. It may have been a flood."""
        self._read()
        self._seen.discard(pid)
        self._lost = False
        self._judge()

    def _judge(self) -> None:
        """While our own nft is at work we do not know which of the changes are its: then `_loaded` judges."""
        if not self.firewall.loading and (self._lost or self._seen - {self.firewall.port}):
            self._due.set()

    def _read(self) -> None:
        if self._socket is None:
            return
        for data in netlink.waiting(self._socket):
            if data is None:
                self._lost = True
                continue
            self._seen |= set(changers(data, self.firewall.policy.table, {*self._seen, self.firewall.port}))

    async def _mend(self) -> None:
        pause_s = PAUSE_S
        while True:
            await self._due.wait()
            reason = "messages were lost" if self._lost else "somebody changed the table"
            self._due.clear()
            self._seen.clear()
            self._lost = False
            try:
                await self.firewall.restore()
            except NetworkFailed as failed:
                self._due.set()
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                self.tell(FirewallNotRestored(reason, dict(failed.evidence or {})))
            else:
                pause_s = PAUSE_S
                self.tell(FirewallRestored(reason))
            await asyncio.sleep(pause_s)


def changers(data: bytes, table: str, known: Set[int] = frozenset()) -> Iterator[int]:
    """Of messages of the kernel's nftables group: who changed something in the table, by number of the socket.

    Those of whom that is `known` are not looked at: nearly all messages are of our own changes.
    """
    ours = table.encode() + b"\0"
    if ours not in data:  # Another cell's.
        return
    for kind, port, body in netlink.messages(data):
        if port in known or kind >> 8 != NFTABLES:
            continue
        if len(body) < FAMILY.size or FAMILY.unpack_from(body)[0] != FAMILY_INET:
            continue
        # The table's name is attribute 1 of whatever is in a table, and of the table itself.
        if netlink.attributes(body[FAMILY.size :]).get(1) == ours:
            yield port
