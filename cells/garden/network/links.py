"""The host's ends of containers' links: which there are, removing one, and what all of them need of the host."""

from __future__ import annotations

import socket
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from diego_py.errors import NetworkFailed


def exists(name: str) -> bool:
    """Asked of the kernel's list: the entry in /sys goes only after the message that the link went."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def remove(name: str) -> None:
    """Remove a link whose namespace did not take it away. Idempotent. Raises NetworkFailed. Blocks for 20 ms."""
    try:
        with IPRoute() as host:
            host.link("del", index=socket.if_nametoindex(name))
    except (OSError, NetlinkError) as refused:
        if exists(name):
            raise NetworkFailed(f"remove link {name}") from refused


def ours(prefix: str) -> list[str]:
    """The host's links whose names are `prefix` and a number."""
    return [name for _, name in socket.if_nameindex() if name.startswith(prefix) and name[len(prefix) :].isdigit()]


def mtu_towards(address: str) -> int:
    """The packet size of the interface that has the host's address; 1500 when none has."""
    with IPRoute() as host:
        for found in host.get_addr(address=address):
            links = host.get_links(found["index"])
            if links and links[0]["ifi_type"] == 1:
                return int(links[0].get_attr("IFLA_MTU"))
    return 1500


def forward_packets() -> None:
    """Let the host route between containers' links and its own. Raises NetworkFailed."""
    path = Path("/proc/sys/net/ipv4/ip_forward")
    try:
        if path.read_text().strip() != "1":
            path.write_text("1")
    except OSError as refused:
        raise NetworkFailed("let this host forward packets") from refused


def forward_packets_6() -> None:
    """The same for IPv6, and the host's own links go on listening to routers. Raises NetworkFailed."""
    settings = Path("/proc/sys/net/ipv6/conf")
    try:
        if (settings / "all/forwarding").read_text().strip() == "1":
            return
        for link in settings.iterdir():
            # A host that forwards ignores routers unless it is told not to.
            if (link / "accept_ra").read_text().strip() == "1":
                (link / "accept_ra").write_text("2")
        (settings / "all/forwarding").write_text("1")
    except OSError as refused:
        raise NetworkFailed("let this host forward IPv6 packets") from refused
