"""Requests to the kernel's network, by hand: several in one system call, and every one of them answered.

For what is done at each start: a library costs more time than the kernel does, a helper program ten times as much.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

ROUTE = 0
NETFILTER = 12

REQUEST = 0x1
ACK = 0x4
EXCLUSIVE = 0x200
CREATE = 0x400

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

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


def have_room(connected: socket.socket, bytes_max: int = 8 * 1024 * 1024) -> None:
    """Let much be sent, or be waiting to be read, at once; beyond the limit for those without rights."""
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        connected.setsockopt(socket.SOL_SOCKET, option, bytes_max)


def send(connected: socket.socket, *messages: Message) -> None:
    """Send requests and read all their answers. Raises the first refusal, as OSError. Blocks while the kernel works.

    The kernel works within our call: when it returns, all answers are there, and the next caller finds none of them.
    """
    data, expected = b"", 0
    for number, (kind, flags, body) in enumerate(messages):
        data += HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body
        expected += bool(flags & ACK)
    connected.send(data)
    codes = list(_answers(connected))
    refused = next((code for code in codes if code), errno.EPROTO if len(codes) < expected else 0)
    if refused:
        raise OSError(refused, os.strerror(refused))


def waiting(connected: socket.socket) -> Iterator[bytes | None]:
    """What waits to be read, one receipt after another; None where there was no room for more. Raises OSError."""
    while True:
        try:
            data = connected.recv(ANSWER_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as failed:
            if failed.errno != errno.ENOBUFS:
                raise
            yield None
            continue
        yield data


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sender and body of each message in what was received at once."""
    while len(data) >= HEADER.size:
        length, kind, _, _, sender = HEADER.unpack_from(data)
        yield kind, sender, data[HEADER.size : length]
        data = data[max(HEADER.size, length + -length % 4) :]


def attributes(data: bytes) -> dict[int, bytes]:
    """What is in a body after its head, by kind; of several of a kind the last."""
    found = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        found[kind & ~NESTED] = data[ATTRIBUTE.size : length]
        data = data[max(ATTRIBUTE.size, length + -length % 4) :]
    return found


def _answers(connected: socket.socket) -> Iterator[int]:
    """An errno for each request that was answered, 0 for one that was carried out."""
    with contextlib.suppress(BlockingIOError):
        while True:
            data = connected.recv(ANSWER_BYTES_MAX, socket.MSG_DONTWAIT)
            while data:
                length, kind, *_ = HEADER.unpack_from(data)
                if kind == ERROR:
                    yield -CODE.unpack_from(data, HEADER.size)[0]
                data = data[length + -length % 4 :]
