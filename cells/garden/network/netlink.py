"""Requests to the kernel's network, by hand: several in one system call, and every one of them answered.

For what is done at each start: a library costs more time than the kernel does, a helper program ten times as much.
"""

from __future__ import annotations

import os
import socket
import struct

ROUTE = 0
NETFILTER = 12

REQUEST = 0x1
ACK = 0x4
EXCLUSIVE = 0x200
CREATE = 0x400

NESTED = 0x8000
ERROR = 2
ANSWER_BYTES_MAX = 64 * 1024
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
CODE = struct.Struct("=i")

Message = tuple[int, int, bytes]
"""Kind, flags and body of one request."""


def attribute(kind: int, value: bytes | int | str) -> bytes:
    """A number takes four bytes, a text ends with a zero byte; the next attribute begins at a multiple of four."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | NESTED, b"".join(attributes))


def message(kind: int, body: bytes, flags: int = ACK) -> Message:
    """One request. Without ACK nothing is answered but a refusal."""
    return kind, REQUEST | flags, body


def connection(protocol: int) -> socket.socket:
    """A socket to the network namespace that the calling thread is in, for as long as it is open."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)


def send(connected: socket.socket, *messages: Message) -> None:
    """Send requests and read their answers. Raises the first refusal, as OSError. Blocks while the kernel works."""
    data, expected = b"", 0
    for number, (kind, flags, body) in enumerate(messages):
        data += HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body
        expected += bool(flags & ACK)
    connected.send(data)
    while expected > 0:
        expected -= _answers(connected.recv(ANSWER_BYTES_MAX))


def _answers(data: bytes) -> int:
    """How many requests were carried out."""
    done = 0
    while data:
        length, kind, *_ = HEADER.unpack_from(data)
        if kind == ERROR:
            (code,) = CODE.unpack_from(data, HEADER.size)
            if code:
                raise OSError(-code, os.strerror(-code))
            done += 1
        data = data[length + -length % 4 :]
    return done
