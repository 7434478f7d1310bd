"""What a container has in the cell's nft table, put in and taken out by netlink: what is done at each start and end."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_pton

from attrs import frozen

from cells.garden.network import netlink, nft_rules
from cells.garden.network.egress import Match, Openings
from cells.garden.network.nft_rules import DATA, DELETE_ELEMENT, ELEMENT, HEADER, KEY, NEW_ELEMENT, NFTABLES, VALUE
from cells.garden.spec import EgressRule, Network

BATCH_BEGIN, BATCH_END = 16, 17
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
"""The kernel's own numbers: linux/netfilter/nfnetlink.h and nf_tables.h."""

INTERFACE_BYTES = 16

OUT, AMONG, LOG = "out_", "among_", "log_"
"""Beginnings of the names of a container's chains: before its interface."""


@frozen
class Elements:
    """What the table holds for one container: whose address its link uses, where its ports lead, what it may reach."""

    interface: str
    network: Network
    handle: str = ""
    egress: tuple[EgressRule, ...] = ()


@frozen
class Table:
    """Where elements go."""

    name: str
    log_group: int
    """NFLOG group that packets are told to."""


def added(table: Table, elements: Elements, openings: Openings) -> list[netlink.Message]:
    """Requests of a transaction. What is there already is left as it is, but rules would be there twice."""
    requests = [netlink.message(NEW_ELEMENT, body, netlink.CREATE) for body in _bodies(table.name, elements, True)]
    return requests + _opened(table, elements, openings)


def deleted(table: Table, elements: Elements, openings: Openings) -> list[netlink.Message]:
    """Requests of a transaction, which succeeds when nothing is there, as long as there is the table."""
    # Adding first makes the removal of what is not there no error.
    requests = [netlink.message(NEW_ELEMENT, body, netlink.CREATE) for body in _bodies(table.name, elements, True)]
    requests += [netlink.message(DELETE_ELEMENT, body, 0) for body in _bodies(table.name, elements, False)]
    return requests + _closed(table.name, elements, openings)


def replaced(table: Table, elements: Elements, before: Openings, after: Openings) -> list[netlink.Message]:
    """Requests of a transaction that changes what a container may reach."""
    return _closed(table.name, elements, before) + _opened(table, elements, after)


def transact(connected: socket.socket, requests: Sequence[netlink.Message]) -> None:
    """Carry out all of them or none. Raises OSError. Blocks."""
    begin = netlink.message(BATCH_BEGIN, struct.pack(">BBH", AF_UNSPEC, 0, NFTABLES), flags=0)
    end = netlink.message(BATCH_END, struct.pack(">BBH", AF_UNSPEC, 0, NFTABLES), flags=0)
    # One answer for all: a thousand would not fit into a socket's buffer. A refusal is always answered.
    *others, (kind, flags, body) = requests
    netlink.send(connected, begin, *others, (kind, flags | netlink.ACK, body), end)


def _bodies(table: str, elements: Elements, with_data: bool) -> list[bytes]:
    """Values are in network byte order, each part of a compound one filled up to four bytes."""
    network = elements.network
    address, interface = inet_pton(AF_INET, network.address), _interface(elements)
    published = [
        _element(struct.pack(">H", port.host_port), _value(address, port.container_port) if with_data else b"")
        for port in network.ports
    ]
    bodies = [_body(table, "sources", [_element(interface + address)])]
    if network.address6 is not None:
        bodies.append(_body(table, "sources6", [_element(interface + inet_pton(AF_INET6, network.address6))]))
    return [*bodies, _body(table, "published", published)] if published else bodies


def _value(address: bytes, port: int) -> bytes:
    return netlink.attribute(VALUE, address + struct.pack(">HH", port, 0))


def _opened(table: Table, elements: Elements, openings: Openings) -> list[netlink.Message]:
    """Chains before the rules that lead to them, and both before the element that leads to the first."""
    rules, name = nft_rules.Rules(table.name), elements.interface
    requests: list[netlink.Message] = []
    if openings.logs:
        requests.append(nft_rules.new_chain(table.name, LOG + name))
        requests += rules.tell(LOG + name, elements.handle, table.log_group)
    for prefix, chain_map, matches in _ways(openings):
        requests.append(nft_rules.new_chain(table.name, prefix + name))
        for match in matches:
            requests += rules.allow(prefix + name, match, LOG + name)
        requests.append(netlink.message(NEW_ELEMENT, _way(table.name, chain_map, prefix, elements), netlink.CREATE))
    return requests


def _closed(table: str, elements: Elements, openings: Openings) -> list[netlink.Message]:
    """The other way round; each thing is made first if it is not there."""
    requests: list[netlink.Message] = []
    for prefix, chain_map, _ in _ways(openings):
        chain, way = prefix + elements.interface, _way(table, chain_map, prefix, elements)
        requests += [nft_rules.new_chain(table, chain), netlink.message(NEW_ELEMENT, way, netlink.CREATE)]
        requests.append(netlink.message(DELETE_ELEMENT, _way(table, chain_map, "", elements), 0))
        requests += nft_rules.delete_chain(table, chain)
    if openings.logs:
        chain = LOG + elements.interface
        requests += [nft_rules.new_chain(table, chain), *nft_rules.delete_chain(table, chain)]
    return requests


def _ways(openings: Openings) -> list[tuple[str, str, tuple[Match, ...]]]:
    """For each chain the container has: how its name begins, the map that leads there, what is in it."""
    ways = [(OUT, "egress", openings.outside), (AMONG, "among", openings.among)]
    return [way for way in ways if way[2]]


def _way(table: str, chain_map: str, prefix: str, elements: Elements) -> bytes:
    """The element by which packets of the container's link get to its chain; without a prefix its key alone."""
    value = nft_rules.jump(prefix + elements.interface) if prefix else b""
    return _body(table, chain_map, [_element(_interface(elements), value)])


def _interface(elements: Elements) -> bytes:
    return elements.interface.encode().ljust(INTERFACE_BYTES, b"\0")


def _body(table: str, name: str, elements: list[bytes]) -> bytes:
    names = netlink.attribute(LIST_TABLE, table) + netlink.attribute(LIST_SET, name)
    return HEADER + names + netlink.nest(LIST_ELEMENTS, *elements)


def _element(key: bytes, data: bytes = b"") -> bytes:
    parts = [netlink.nest(KEY, netlink.attribute(VALUE, key))]
    if data:
        parts.append(netlink.nest(DATA, data))
    return netlink.nest(ELEMENT, *parts)
