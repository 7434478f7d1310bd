"""A container's one link: a point-to-point veth pair, no bridge; the host's end answers as the gateway.

Every host end carries the same gateway address; a /32 route leads to each container. The inside is configured over a
netlink socket that a worker thread opens after entering the namespace, so no process is started.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cells.garden import kernel
from cells.garden.network.firewall import LINK_GROUP
from diego_py.errors import NetworkFailed

INSIDE_NAME = "eth0"
HOST_BITS = 32
LOOPBACK_INDEX = 1
ROUTE_SCOPE_LINK = 253
RTNH_F_ONLINK = 4


@frozen
class Link:
    """What to connect: the host's interface name, the container's address and the gateway's, the packet size."""

    name: str
    address: str
    gateway: str
    mtu: int


def connect(link: Link, init_pid: int) -> None:
    """Make the pair, its inside end in the network namespace of a process. Raises NetworkFailed. Blocks: use a thread.

    Removing the namespace (the end of the container) removes all of it.
    """
    try:
        namespace = os.open(f"/proc/{init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _outside(link, namespace)
            _inside(link, namespace)
        finally:
            os.close(namespace)
    except NetlinkError as refused:
        name = errno.errorcode.get(refused.code, str(refused.code))
        raise NetworkFailed(f"connect {link.name}", evidence={"errno": name, "address": link.address}) from refused
    except OSError as refused:
        name = errno.errorcode.get(refused.errno or 0, "?")
        raise NetworkFailed(f"connect {link.name}", evidence={"errno": name, "address": link.address}) from refused


def _outside(link: Link, namespace: int) -> None:
    with IPRoute() as host:
        peer = {"ifname": INSIDE_NAME, "net_ns_fd": namespace, "mtu": link.mtu}
        host.link("add", ifname=link.name, kind="veth", peer=peer, mtu=link.mtu, group=LINK_GROUP)
        index = socket.if_nametoindex(link.name)
        settings = Path("/proc/sys/net/ipv4/conf", link.name)
        # The host reaches published ports by 127.0.0.1 too: without this the kernel takes such packets for martians.
        (settings / "route_localnet").write_text("1")
        (settings / "forwarding").write_text("1")
        _without_ipv6(link.name)
        host.addr("add", index=index, address=link.gateway, prefixlen=HOST_BITS)
        host.link("set", index=index, state="up")
        host.route("add", dst=f"{link.address}/{HOST_BITS}", oif=index, scope=ROUTE_SCOPE_LINK, prefsrc=link.gateway)


def _without_ipv6(name: str) -> None:
    """No address of its own on the host's end, and no waiting for duplicates of it."""
    path = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    if path.exists():
        path.write_text("1")


def _inside(link: Link, namespace: int) -> None:
    with _entered(namespace):
        inside = IPRoute()
        index = socket.if_nametoindex(INSIDE_NAME)
    with inside:
        inside.link("set", index=LOOPBACK_INDEX, state="up")
        inside.addr("add", index=index, address=link.address, prefixlen=HOST_BITS)
        inside.link("set", index=index, state="up")
        inside.route("add", dst="default", gateway=link.gateway, oif=index, flags=RTNH_F_ONLINK)


@contextmanager
def _entered(namespace: int) -> Iterator[None]:
    """The calling thread, and no other, is in the network namespace meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(namespace, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(home, kernel.CLONE_NEWNET)
    finally:
        os.close(home)


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
