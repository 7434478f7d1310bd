"""Pipes and terminals of an extra process as asyncio streams, with little in between: who does not read, stops it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

BUFFER_BYTES = 64 * 1024
"""The most that is held for a slow reader is twice this, and what the kernel's pipe holds."""


class _OutputProtocol(asyncio.StreamReaderProtocol):
    """The end of a terminal is an error to the kernel (its other side was closed), to us it is an end."""

    def connection_lost(self, exc: Exception | None) -> None:
        ended = isinstance(exc, OSError) and exc.errno == errno.EIO
        super().connection_lost(None if ended else exc)


async def reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """The stream of what is written to the other end. The descriptor belongs to the transport from now on."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=BUFFER_BYTES)
    transport, _ = await loop.connect_read_pipe(lambda: _OutputProtocol(stream), os.fdopen(fd, "rb", buffering=0))
    return stream, transport


async def writer(fd: int) -> asyncio.StreamWriter:
    """A stream to the other end. The descriptor belongs to it from now on."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(fd, "wb", buffering=0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


def pipes() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Standard input, output and error of a child: our ends and its ends, in this order. Raises OSError."""
    fds = all_or_none(3, lambda: os.pipe2(os.O_CLOEXEC))
    stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = fds
    return (to_stdin, from_stdout, from_stderr), (stdin, stdout, stderr)


def copies(fd: int, count: int) -> tuple[int, ...]:
    """So many more descriptors of the same. Raises OSError, then there is none."""
    return all_or_none(count, lambda: (os.dup(fd),))


def all_or_none(times: int, make: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """The descriptors that are made, so many times. Raises OSError, then there is none."""
    made: tuple[int, ...] = ()
    try:
        for _ in range(times):
            made += make()
    except OSError:
        close(made)
        raise
    return made


def close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def drop(stream: asyncio.StreamWriter) -> None:
    """Close at once. `close` alone would wait for ever for somebody who takes what is still held."""
    if not stream.transport.is_closing() or stream.transport.get_write_buffer_size():
        stream.transport.abort()
