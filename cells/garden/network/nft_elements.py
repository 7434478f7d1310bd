"""A container's elements of the cell's nft table, added and deleted by netlink: what is done at each start and end."""

from __future__ import annotations

import socket
import struct
from socket import AF_UNSPEC, inet_aton

from attrs import frozen

from cells.garden.network import netlink
from cells.garden.spec import Network

NFTABLES = 10
FAMILY_INET = 1
BATCH_BEGIN, BATCH_END = 16, 17
NEW_ELEMENT, DELETE_ELEMENT = NFTABLES << 8 | 12, NFTABLES << 8 | 14
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT, KEY, DATA, VALUE = 1, 1, 2, 1
"""The kernel's own numbers: linux/netfilter/nfnetlink.h and nf_tables.h."""

INTERFACE_BYTES = 16


@frozen
class Elements:
    """What the table holds for one container: which address its link may use, and where its ports lead."""

    interface: str
    network: Network


def added(table: str, elements: Elements) -> list[netlink.Message]:
    """Requests of a transaction. To add what is there already changes nothing."""
    flags = netlink.ACK | netlink.CREATE
    return [netlink.message(NEW_ELEMENT, body, flags) for body in _bodies(table, elements, with_data=True)]


def deleted(table: str, elements: Elements) -> list[netlink.Message]:
    """Requests of a transaction, which fails as a whole if an element is not there."""
    return [netlink.message(DELETE_ELEMENT, body) for body in _bodies(table, elements, with_data=False)]


def transact(connected: socket.socket, requests: list[netlink.Message]) -> None:
    """Carry out all of them or none. Raises OSError. Blocks."""
    begin = netlink.message(BATCH_BEGIN, struct.pack(">BBH", AF_UNSPEC, 0, NFTABLES), flags=0)
    end = netlink.message(BATCH_END, struct.pack(">BBH", AF_UNSPEC, 0, NFTABLES), flags=0)
    netlink.send(connected, begin, *requests, end)


def _bodies(table: str, elements: Elements, with_data: bool) -> list[bytes]:
    """Values are in network byte order, each part of a compound one filled up to four bytes."""
    address = inet_aton(elements.network.address)
    source = elements.interface.encode().ljust(INTERFACE_BYTES, b"\0") + address
    published = [
        _element(struct.pack(">H", port.host_port), address + struct.pack(">HH", port.container_port, 0), with_data)
        for port in elements.network.ports
    ]
    bodies = [_body(table, "sources", [_element(source, b"", False)])]
    return [*bodies, _body(table, "published", published)] if published else bodies


def _body(table: str, name: str, elements: list[bytes]) -> bytes:
    names = netlink.attribute(LIST_TABLE, table) + netlink.attribute(LIST_SET, name)
    return struct.pack(">BBH", FAMILY_INET, 0, 0) + names + netlink.nest(LIST_ELEMENTS, *elements)


def _element(key: bytes, data: bytes, with_data: bool) -> bytes:
    parts = [netlink.nest(KEY, netlink.attribute(VALUE, key))]
    if with_data:
        parts.append(netlink.nest(DATA, netlink.attribute(VALUE, data)))
    return netlink.nest(ELEMENT, *parts)
