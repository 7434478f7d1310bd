"""What the kernel tells of a packet, as bytes, becomes an event; whatever the packet is, nothing fails."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from cells.garden.network import netlink
from cells.garden.network.events import EgressLogged
from cells.garden.network.guard import changers
from cells.garden.network.packet_log import PAYLOAD, PREFIX, event


def told(packet: bytes) -> EgressLogged | None:
    return event(b"\2\0\0\7" + netlink.attribute(PREFIX, "handle") + netlink.attribute(PAYLOAD, packet))


def ipv4(protocol: int, rest: bytes, options: bytes = b"") -> bytes:
    length = (20 + len(options)) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | length, 0, 0, 0, 0, 64, protocol, 0)
    return head + ip_address("10.0.0.2").packed + ip_address("192.0.2.9").packed + options + rest


def test_tcp_behind_options() -> None:
    found = told(ipv4(6, struct.pack(">HH", 40000, 443), b"\1" * 8))
    assert found == EgressLogged("handle", "tcp", "10.0.0.2", "192.0.2.9", 40000, 443, None, None)


def test_icmpv6() -> None:
    head = struct.pack(">IHBB", 6 << 28, 8, 58, 64)
    packet = head + ip_address("fd00::2").packed + ip_address("2001:db8::1").packed + b"\x80\0"
    assert told(packet) == EgressLogged("handle", "icmpv6", "fd00::2", "2001:db8::1", None, None, 128, 0)


def test_other_protocols_are_numbers() -> None:
    found = told(ipv4(132, b""))
    assert found is not None
    assert (found.protocol, found.destination_port) == ("132", None)


@given(st.binary(max_size=80))
def test_any_packet(packet: bytes) -> None:
    found = told(packet)
    assert found is None or found.handle == "handle"


@given(st.binary(max_size=200))
def test_any_message(data: bytes) -> None:
    assert event(data) is None or data
    assert list(changers(data, "t")) is not None


def test_only_our_table_and_family_count() -> None:
    def changed(family: int, table: str, sender: int) -> bytes:
        body = struct.pack("=B3x", family) + netlink.attribute(1, table)
        return netlink.HEADER.pack(netlink.HEADER.size + len(body), 0x0A02, 0, 1, sender) + body

    data = changed(1, "t", 5) + changed(2, "t", 6) + changed(1, "tt", 7) + changed(1, "t", 8)
    assert list(changers(data, "t")) == [5, 8]
    assert list(changers(data, "t", {5})) == [8]
