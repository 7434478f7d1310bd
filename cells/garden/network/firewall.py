"""One nft table per cell: fixed chains over sets and maps; a container is a few elements, added in one transaction.

A packet's way is a lookup, however many containers there are. Closed by default: a container reaches no address of the
host, no other container of any cell, and none of the denied networks; it is reached only through published ports.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from attrs import define, field

from cells.garden import children
from cells.garden.network import netlink, nft_elements
from cells.garden.network.nft_elements import Elements
from diego_py.chain import clip
from diego_py.errors import NetworkFailed, RuntimeMissing

LINK_GROUP = 0xD1E60
"""Interface group of every container link of every cell of the host: how one cell knows another's containers."""

TIMEOUT_S = 20.0


@define
class Firewall:
    """The table of one cell."""

    table: str
    nft_path: str
    prefix: str
    containers: str
    """The cell's container addresses, as CIDR."""
    deny_networks: tuple[str, ...]
    _connected: socket.socket | None = field(default=None, init=False)
    """Kept open: closing one waits until the kernel has disposed of every element that was deleted, some 10 ms."""
    _turn: threading.Lock = field(factory=threading.Lock, init=False)

    async def prepare(self, adopted: Iterable[Elements]) -> None:
        """Make the table, or renew it, holding exactly the elements of `adopted`: one transaction, nothing drops.

        Raises NetworkFailed.
        """
        await self._transact("prepare", ruleset(self) + "".join(self._element(each) for each in adopted))

    async def add(self, elements: Elements) -> None:
        """Raises NetworkFailed."""
        await children.in_thread(self._change, "add elements", nft_elements.added(self.table, elements))

    async def remove(self, elements: Elements) -> None:
        """Idempotent. Raises NetworkFailed."""
        # Adding first makes the removal of what is not there no error, in the same transaction.
        both = nft_elements.added(self.table, elements) + nft_elements.deleted(self.table, elements)
        await children.in_thread(self._change, "remove elements", both)

    async def remove_table(self) -> None:
        """Take the whole table away. Idempotent. Raises NetworkFailed."""
        await self._transact("remove table", f"add table inet {self.table}\ndelete table inet {self.table}\n")

    def close(self) -> None:
        """Let go of the kernel; the table stays."""
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    def _element(self, elements: Elements) -> str:
        network = elements.network
        lines = f'add element inet {self.table} sources {{ "{elements.interface}" . {network.address} }}\n'
        if network.ports:
            pairs = ", ".join(f"{port.host_port} : {network.address} . {port.container_port}" for port in network.ports)
            lines += f"add element inet {self.table} published {{ {pairs} }}\n"
        return lines

    def _change(self, what: str, requests: list[netlink.Message]) -> None:
        """A transaction without nft, which would take ten times as long to start as the kernel takes to do it."""
        try:
            with self._turn:
                if self._connected is None:
                    self._connected = netlink.connection(netlink.NETFILTER)
                nft_elements.transact(self._connected, requests)
        except OSError as refused:
            name = errno.errorcode.get(refused.errno or 0, "?")
            raise NetworkFailed(f"firewall: {what}", evidence={"errno": name, "table": self.table}) from refused

    async def _transact(self, what: str, script: str) -> None:
        argv = children.bound_to_us([self.nft_path, "-f", "-"], ["net_admin"])
        try:
            finished = await children.run(argv, stdin=script.encode(), timeout_s=TIMEOUT_S)
        except (TimeoutError, RuntimeMissing) as cause:
            raise NetworkFailed(f"firewall: {what}", evidence={"nft": self.nft_path}) from cause
        if finished.status != 0:
            raise NetworkFailed(
                f"firewall: {what}", evidence={"status": finished.status, "stderr": clip(finished.stderr)}
            )


def ruleset(firewall: Firewall) -> str:
    """The table without its containers, as a script that may be run over an older one. Pure.

    Chains are declared before they are flushed (a flush of what is not there fails), and flushed before they are
    filled. Established connections come first everywhere; what is left is the first packet of a flow.
    """
    table, ours, cidr = firewall.table, f'"{firewall.prefix}*"', firewall.containers
    to_host = _refuse(f"iifname {ours}")
    between = _refuse(f"iifgroup {LINK_GROUP} oifgroup {LINK_GROUP}")
    # Overlapping networks are no error to us, but they are to nft.
    denied = ", ".join(str(network) for network in collapse_addresses(map(IPv4Network, firewall.deny_networks)))
    deny = _refuse(f"iifname {ours} ip daddr {{ {denied} }}") if denied else ""
    chains = ("spoofing", "to_published", "host_to_published", "to_host", "through", "from_behind")
    flush = "".join(f"flush chain inet {table} {chain}\n" for chain in chains)
    return f"""\
table inet {table} {{
  set sources {{ type ifname . ipv4_addr; }}
  map published {{ type inet_service : ipv4_addr . inet_service; }}
  chain spoofing {{ type filter hook prerouting priority -300; policy accept; }}
  chain to_published {{ type nat hook prerouting priority -100; policy accept; }}
  chain host_to_published {{ type nat hook output priority -100; policy accept; }}
  chain to_host {{ type filter hook input priority 0; policy accept; }}
  chain through {{ type filter hook forward priority 0; policy accept; }}
  chain from_behind {{ type nat hook postrouting priority 100; policy accept; }}
}}
{flush}flush set inet {table} sources
flush map inet {table} published
table inet {table} {{
  chain spoofing {{
    iifname {ours} meta nfproto ipv6 drop
    iifname {ours} ip daddr 127.0.0.0/8 drop
    iifname {ours} meta nfproto ipv4 iifname . ip saddr != @sources drop
  }}
  chain to_published {{
    iifgroup {LINK_GROUP} accept
    fib daddr type local dnat ip to tcp dport map @published
  }}
  chain host_to_published {{
    fib daddr type local dnat ip to tcp dport map @published
  }}
  chain to_host {{
    iifname {ours} ct state established,related accept
{to_host}  }}
  chain through {{
    iifname {ours} ct state established,related accept
    oifname {ours} ct state established,related accept
{between}    iifname {ours} ct state invalid drop
{deny}    oifname {ours} ct status dnat accept
    oifname {ours} drop
  }}
  chain from_behind {{
    oifname {ours} ip saddr 127.0.0.0/8 masquerade
    ip saddr {cidr} oifname != {ours} masquerade
  }}
}}
"""


def _refuse(match: str) -> str:
    """Rules that tell the container at once. TCP gets a reset: an ICMP error comes back while the kernel still sends
    the first packet, is taken for a passing trouble then, and the program waits a second for nothing.
    """
    return f"    {match} meta l4proto tcp reject with tcp reset\n    {match} reject with icmpx admin-prohibited\n"
