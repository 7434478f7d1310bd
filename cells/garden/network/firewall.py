"""One nft table per cell: its containers put in and taken out, each by one transaction, and the whole of it put back.

The table belongs to this object alone: what somebody else changed in it is overwritten. See `ruleset` for what it says.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve, field

from cells.garden import children
from cells.garden.network import netlink, nft_elements
from cells.garden.network.egress import Openings, openings
from cells.garden.network.nft_elements import Elements
from cells.garden.network.ruleset import Policy, script
from diego_py.chain import clip
from diego_py.errors import DiegoError, NetworkFailed, RuntimeMissing

TIMEOUT_S = 20.0
AT_ONCE_BYTES_MAX = 4096
"""So small a change takes the kernel less time than it takes us to have a thread wait for it: a tenth of a ms."""


@define
class Firewall:
    """The table of one cell, and what has to be in it."""

    policy: Policy
    nft_path: str
    loaded: Callable[[int], None] = field(default=lambda pid: None, init=False)
    """Called when nft, of that process id, has changed the table for us."""
    loading: bool = field(default=False, init=False)
    """Such an nft is at work."""
    port: int = field(default=0, init=False)
    """The kernel's number of the socket by which we change the table; 0 before the first change."""
    _containers: dict[str, Elements] = field(factory=dict, init=False)
    """By interface."""
    _connected: socket.socket | None = field(default=None, init=False)
    """Kept open: closing one waits until the kernel has disposed of every element that was deleted, some 10 ms."""
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    """Whoever changes the table or what has to be in it holds this: else a restore would write what was."""

    async def prepare(self, adopted: Iterable[Elements]) -> None:
        """Make the table, or renew it, holding exactly the elements of `adopted`: one transaction, nothing drops.

        Raises NetworkFailed.
        """
        async with self._turn:
            self._containers = {each.interface: each for each in adopted}
            await self._load()

    async def restore(self) -> None:
        """Put back the whole table as it has to be, whatever is there. Raises NetworkFailed."""
        async with self._turn:
            await self._load()

    async def add(self, elements: Elements) -> None:
        """Raises NetworkFailed."""
        async with self._turn:
            self._containers[elements.interface] = elements
            requests = nft_elements.added(self.policy.where, elements, self._openings(elements))
            await self._change("add elements", requests)

    async def set_egress(self, elements: Elements) -> None:
        """Change what a container may reach. Connections that are open stay so. Raises NetworkFailed."""
        async with self._turn:
            before = self._containers.get(elements.interface, evolve(elements, egress=()))
            self._containers[elements.interface] = elements
            was, becomes = self._openings(before), self._openings(elements)
            if was == becomes:
                return
            try:
                await self._change("set egress", nft_elements.replaced(self.policy.where, elements, was, becomes))
            except DiegoError:
                self._containers[elements.interface] = before
                raise

    async def remove(self, elements: Elements) -> None:
        """Idempotent; a table that is not there is put back without them. Raises NetworkFailed."""
        async with self._turn:
            # What was added counts: its rules may have changed since.
            known = self._containers.pop(elements.interface, elements)
            requests = nft_elements.deleted(self.policy.where, known, self._openings(known))
            await self._change("remove elements", requests)

    def close(self) -> None:
        """Let go of the kernel; the table stays."""
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    def _openings(self, elements: Elements) -> Openings:
        return openings(elements.egress, self.policy.networks)

    async def _change(self, what: str, requests: Sequence[netlink.Message]) -> None:
        """A transaction. When it is refused the table is not as we left it, and is put back with the change in it."""
        try:
            if sum(len(body) for _, _, body in requests) <= AT_ONCE_BYTES_MAX:
                self._transact(requests)
            else:
                await children.in_thread(self._transact, requests)
        except OSError as refused:
            name = errno.errorcode.get(refused.errno or 0, "?")
            try:
                await self._load()
            except NetworkFailed as failed:
                raise NetworkFailed(
                    f"firewall: {what}", evidence={"errno": name, "table": self.policy.table}
                ) from failed

    def _transact(self, requests: Sequence[netlink.Message]) -> None:
        """Without nft, which would take ten times as long to start as the kernel takes to do it."""
        if self._connected is None:
            self._connected = netlink.connection(netlink.NETFILTER)
            netlink.have_room(self._connected)
            self._connected.bind((0, 0))
            self.port = self._connected.getsockname()[0]
        nft_elements.transact(self._connected, requests)

    async def _load(self) -> None:
        """Put the whole table, as it has to be, in the place of whatever is there. Raises NetworkFailed."""
        text = script(self.policy, self._containers.values())
        argv = children.bound_to_us([self.nft_path, "-f", "-"], ["net_admin"])
        pid = 0
        self.loading = True
        try:
            finished = await children.run(argv, stdin=text.encode(), timeout_s=TIMEOUT_S)
            pid = finished.pid
        except (TimeoutError, RuntimeMissing) as cause:
            raise NetworkFailed("firewall: prepare", evidence={"nft": self.nft_path}) from cause
        finally:
            self.loading = False
            self.loaded(pid)
        if finished.status != 0:
            evidence = {"status": finished.status, "stderr": clip(finished.stderr)}
            raise NetworkFailed("firewall: prepare", evidence=evidence)
