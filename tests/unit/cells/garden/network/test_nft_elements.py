"""Requests as bytes: what the kernel is told, and how its answers are read."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from cells.garden.network import netlink, nft_elements
from cells.garden.network.egress import Openings
from cells.garden.network.nft_elements import Elements, Table
from cells.garden.spec import Network, PortForward

TABLE = Table("t", 0)
ELEMENTS = Elements("cl7", Network("10.1.0.9", "192.0.2.1", (PortForward(80, 61001),)))


def test_attributes_are_filled_up_to_four_bytes() -> None:
    assert netlink.attribute(3, "ab") == struct.pack("=HH", 7, 3) + b"ab\0\0"
    assert netlink.attribute(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    assert netlink.nest(1, netlink.attribute(2, b"")) == struct.pack("=HHHH", 8, 1 | netlink.NESTED, 4, 2)


def test_added_elements_name_source_and_destination() -> None:
    (kind, flags, source), (_, _, published) = nft_elements.added(TABLE, ELEMENTS, Openings())
    assert (kind, flags) == (0x0A0C, netlink.REQUEST | netlink.CREATE)
    assert b"cl7".ljust(16, b"\0") + bytes([10, 1, 0, 9]) in source
    assert struct.pack(">H", 61001) in published
    assert bytes([10, 1, 0, 9, 0, 80, 0, 0]) in published


def test_deleted_elements_are_named_by_their_keys() -> None:
    bodies = [body for _, _, body in nft_elements.deleted(TABLE, ELEMENTS, Openings())]
    assert len(bodies) == 4
    assert bytes([10, 1, 0, 9, 0, 80, 0, 0]) in bodies[1]
    assert bytes([10, 1, 0, 9, 0, 80, 0, 0]) not in bodies[3]


def test_without_ports_there_is_one_request() -> None:
    assert len(nft_elements.added(TABLE, Elements("cl7", Network("10.1.0.9", "192.0.2.1")), Openings())) == 1


def answer(code: int) -> bytes:
    return netlink.HEADER.pack(20, netlink.ERROR, 0, 0, 0) + struct.pack("=i", code)


def test_the_first_refusal_is_raised() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        kernel.send(answer(0) + answer(-errno.EEXIST) + answer(-errno.ENOENT))
        with pytest.raises(FileExistsError):
            netlink.send(ours, *[netlink.message(1, b"")] * 3)


def test_a_request_without_an_answer_is_no_success() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        kernel.send(answer(0))
        with pytest.raises(OSError, match="Protocol error"):
            netlink.send(ours, *[netlink.message(1, b"")] * 2)


def test_every_request_is_answered() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        kernel.send(answer(0))
        kernel.send(answer(0))
        netlink.send(ours, *[netlink.message(1, b"")] * 2, netlink.message(17, b"", flags=0))
