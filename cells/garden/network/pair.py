"""A container's one link: a point-to-point veth pair, no bridge; the host's end answers as the gateway.

Every host end carries the same gateway address; a /32 route leads to each container. The inside is configured over a
netlink socket that is opened within the namespace, so no process is started. Imported by the zygote: no libraries here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_aton, inet_pton
from typing import NamedTuple

from cells.garden import kernel
from cells.garden.network import netlink

LINK_GROUP = 0xD1E60
"""Interface group of every container link of every cell of the host: how one cell knows another's containers."""

INSIDE_NAME = "eth0"
HOST_BITS, HOST_BITS_6 = 32, 128
LINK_LOCAL = "fe80::1"
NO_ADDRESS_OF_ITS_OWN = "1"
LOOPBACK_INDEX = 1

NEW_LINK, NEW_ADDRESS, NEW_ROUTE = 16, 20, 24
NAME, MTU, LINK_INFO, GROUP, NET_NS = 3, 4, 18, 27, 28
INFO_KIND, INFO_DATA, VETH_PEER = 1, 2, 1
ADDRESS, ADDRESS_LOCAL = 1, 2
ROUTE_DESTINATION, ROUTE_INTERFACE, ROUTE_GATEWAY, ROUTE_SOURCE = 1, 4, 5, 7
TABLE_MAIN, PROTOCOL_STATIC, KIND_UNICAST, SCOPE_LINK = 254, 4, 1, 253
UP, ON_LINK, NO_DUPLICATES = 1, 4, 2
NEW = netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE
"""The kernel's own numbers: linux/rtnetlink.h, if_link.h, if_addr.h and veth.h."""


class Link(NamedTuple):
    """What to connect: the host's interface name, the container's address and the gateway's, the packet size."""

    name: str
    address: str
    gateway: str
    mtu: int
    address6: str | None = None
    """IPv6 too; then there is a gateway of that kind."""
    gateway6: str = ""


def connect(link: Link, pid: int) -> None:
    """Make the pair, its inside end in the network namespace of a process. Raises OSError. Blocks.

    Removing the namespace (the end of the container) removes all of it.
    """
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _outside(link, namespace)
        _inside(link, namespace)
    finally:
        os.close(namespace)


def _outside(link: Link, namespace: int) -> None:
    with netlink.connection(netlink.ROUTE) as host:
        netlink.send(host, _make_pair(link, namespace))
        index = socket.if_nametoindex(link.name)
        settings = Path("/proc/sys/net/ipv4/conf", link.name)
        # The host reaches published ports by 127.0.0.1 too: without this the kernel takes such packets for martians.
        (settings / "route_localnet").write_text("1")
        (settings / "forwarding").write_text("1")
        _settle_ipv6(link)
        here = netlink.attribute(ROUTE_SOURCE, inet_aton(link.gateway))
        there = netlink.attribute(ROUTE_DESTINATION, inet_aton(link.address))
        netlink.send(
            host,
            _have_address(index, link.gateway),
            _go_up(index),
            _have_route(index, there + here, bits=HOST_BITS, scope=SCOPE_LINK),
        )
        if link.address6 is not None:
            there = netlink.attribute(ROUTE_DESTINATION, inet_pton(AF_INET6, link.address6))
            netlink.send(
                host,
                # Who asks for a neighbour on behalf of others does so with an address of the link.
                _have_address(index, LINK_LOCAL),
                _have_address(index, link.gateway6),
                _have_route(index, there, bits=HOST_BITS_6, family=AF_INET6),
            )


def _make_pair(link: Link, namespace: int) -> netlink.Message:
    inside = _interface() + _named(INSIDE_NAME, link.mtu) + netlink.attribute(NET_NS, namespace)
    pair = netlink.nest(INFO_DATA, netlink.attribute(VETH_PEER, inside))
    kind = netlink.nest(LINK_INFO, netlink.attribute(INFO_KIND, "veth"), pair)
    outside = _interface() + _named(link.name, link.mtu) + netlink.attribute(GROUP, LINK_GROUP)
    return netlink.message(NEW_LINK, outside + kind, NEW)


def _settle_ipv6(link: Link) -> None:
    """No address of its own on the host's end, and no waiting for duplicates of it."""
    settings = Path("/proc/sys/net/ipv6/conf", link.name)
    if link.address6 is not None:
        (settings / "addr_gen_mode").write_text(NO_ADDRESS_OF_ITS_OWN)
        (settings / "accept_ra").write_text("0")
    elif settings.exists():
        (settings / "disable_ipv6").write_text("1")


def _inside(link: Link, namespace: int) -> None:
    with _entered(namespace):
        inside = netlink.connection(netlink.ROUTE)
        index = socket.if_nametoindex(INSIDE_NAME)
    with inside:
        netlink.send(
            inside,
            _go_up(LOOPBACK_INDEX),
            _have_address(index, link.address),
            _go_up(index),
            _have_route(index, netlink.attribute(ROUTE_GATEWAY, inet_aton(link.gateway)), flags=ON_LINK),
        )
        if link.address6 is not None:
            way = netlink.attribute(ROUTE_GATEWAY, inet_pton(AF_INET6, link.gateway6))
            netlink.send(
                inside,
                _have_address(index, link.address6),
                _have_route(index, way, flags=ON_LINK, family=AF_INET6),
            )


def _interface(index: int = 0, flags: int = 0) -> bytes:
    """struct ifinfomsg; of the flags those are changed that are set."""
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


def _named(name: str, mtu: int) -> bytes:
    return netlink.attribute(NAME, name) + netlink.attribute(MTU, mtu)


def _go_up(index: int) -> netlink.Message:
    return netlink.message(NEW_LINK, _interface(index, UP))


def _have_address(index: int, address: str) -> netlink.Message:
    """An IPv6 address is used at once: nobody else is on the link who might have it."""
    family, bits, flags = (AF_INET6, HOST_BITS_6, NO_DUPLICATES) if ":" in address else (AF_INET, HOST_BITS, 0)
    own = (netlink.attribute(kind, inet_pton(family, address)) for kind in (ADDRESS, ADDRESS_LOCAL))
    return netlink.message(NEW_ADDRESS, struct.pack("=BBBBI", family, bits, flags, 0, index) + b"".join(own), NEW)


def _have_route(
    index: int, ways: bytes, bits: int = 0, scope: int = 0, flags: int = 0, family: int = AF_INET
) -> netlink.Message:
    """Without bits the default route."""
    head = struct.pack(
        "=BBBBBBBBI", family, bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, KIND_UNICAST, flags
    )
    return netlink.message(NEW_ROUTE, head + ways + netlink.attribute(ROUTE_INTERFACE, index), NEW)


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
