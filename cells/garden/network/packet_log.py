"""Packets that egress rules with `log` let through, as the kernel tells of them (NFLOG), each with its container."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import zlib
from collections.abc import Callable
from ipaddress import ip_address

from attrs import define, field

from cells.garden.network import netlink
from cells.garden.network.events import EgressLogged
from cells.garden.network.nft_rules import LOG_BYTES
from diego_py.errors import NetworkFailed

ULOG = 4
PACKET, CONFIGURE = ULOG << 8 | 0, ULOG << 8 | 1
COMMAND, MODE, THRESHOLD = 1, 2, 5
BIND, COPY_PACKET = 1, 2
PAYLOAD, PREFIX = 9, 10
"""The kernel's own numbers: linux/netfilter/nfnetlink_log.h."""
HEADER_BYTES = 4
GROUPS = 65_536
TRIES = 64
IPV4_BYTES, IPV6_BYTES = 20, 40
PROTOCOL_NAME = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
ICMP = ("icmp", "icmpv6")


@define
class PacketLog:
    """Reads one group. Each cell of a host has one of its own, and gets the next one when somebody else has that."""

    tell: Callable[[EgressLogged], None]
    group: int = field(default=0, init=False)
    _socket: socket.socket | None = field(default=None, init=False)

    def open(self, table: str) -> None:
        """Take a group; its number begins with what the table's name gives, so that it mostly stays the same.

        Raises NetworkFailed.
        """
        connected = netlink.connection(netlink.NETFILTER)
        try:
            self.group = _take_group(connected, zlib.crc32(table.encode()) % GROUPS)
        except OSError as refused:
            connected.close()
            name = errno.errorcode.get(refused.errno or 0, "?")
            raise NetworkFailed("listen for logged packets", evidence={"errno": name}) from refused
        connected.setblocking(False)
        self._socket = connected
        asyncio.get_running_loop().add_reader(connected.fileno(), self._read)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        for data in netlink.waiting(self._socket):
            if data is None:
                continue  # More came than we could read: those are not told of, as those beyond the rate are not.
            for kind, _, body in netlink.messages(data):
                if kind == PACKET and (told := event(body)) is not None:
                    self.tell(told)


def _take_group(connected: socket.socket, first: int) -> int:
    """Raises OSError when none of those tried is free: the kernel says that only their owner may change them."""
    last = OSError(errno.EPERM, os.strerror(errno.EPERM))
    for group in ((first + step) % GROUPS for step in range(TRIES)):
        head = struct.pack(">BBH", socket.AF_UNSPEC, 0, group)
        bind = netlink.attribute(COMMAND, struct.pack("=B", BIND))
        try:
            netlink.send(connected, netlink.message(CONFIGURE, head + bind))
        except OSError as refused:
            if refused.errno not in (errno.EPERM, errno.EBUSY):
                raise
            last = refused
            continue
        mode = netlink.attribute(MODE, struct.pack(">IBx", LOG_BYTES, COPY_PACKET))
        at_once = netlink.attribute(THRESHOLD, struct.pack(">I", 1))
        netlink.send(connected, netlink.message(CONFIGURE, head + mode + at_once))
        return group
    raise last


def event(body: bytes) -> EgressLogged | None:
    """A message as what it tells; None for a packet that is not IP."""
    found = netlink.attributes(body[HEADER_BYTES:])
    packet, prefix = found.get(PAYLOAD, b""), found.get(PREFIX, b"")
    ends = _ends(packet)
    if ends is None:
        return None
    number, source, destination, rest = ends
    protocol = PROTOCOL_NAME.get(number, str(number))
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in ("tcp", "udp") and len(rest) >= 4:
        ports = struct.unpack_from(">HH", rest)
    icmp = (rest[0], rest[1]) if protocol in ICMP and len(rest) >= 2 else (None, None)
    return EgressLogged(
        handle=prefix.rstrip(b"\0").decode(errors="replace"),
        protocol=protocol,
        source=str(ip_address(source)),
        destination=str(ip_address(destination)),
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=icmp[0],
        icmp_code=icmp[1],
    )


def _ends(packet: bytes) -> tuple[int, bytes, bytes, bytes] | None:
    """Protocol, source and destination address, and what follows the header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= IPV4_BYTES:
        return packet[9], packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4 :]
    if version == 6 and len(packet) >= IPV6_BYTES:
        return packet[6], packet[8:24], packet[24:40], packet[IPV6_BYTES:]
    return None
