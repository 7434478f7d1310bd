"""A network that can fail: forwards one listener's connections to another, until told to cut, hold or refuse them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import define, field

from tests.chain.awaited import until_true

CHUNK_BYTES = 64 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@define
class Proxy:
    """Between two hops. As a context manager it listens on a port of loopback, or on the unix socket `path`."""

    target: Connect
    path: Path | None = None
    hold_what: bytes = b""
    """A chunk from the caller with these bytes waits for `let_go`."""
    held: asyncio.Event = field(factory=asyncio.Event)
    """Something waits now, or did."""
    let_go: asyncio.Event = field(factory=asyncio.Event)
    port: int = field(default=0, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)
    _open: set[asyncio.StreamWriter] = field(factory=set, init=False)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go.set()
        await self.refuse()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections, again if it refused them."""
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._forward, self.path)
            return
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections any more, and break those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        await self.cut()

    async def cut(self) -> None:
        """Break every connection that is open now, in both directions."""
        broken = set(self._open)
        for writer in broken:
            writer.transport.abort()
        await until_true("the connections are broken", lambda: not broken & self._open)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            there_reader, there_writer = await self.target()
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(there_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer, self.hold_what))
                group.create_task(self._pump(there_reader, writer, b""))
        finally:
            for end in (writer, there_writer):
                end.transport.abort()
                self._open.discard(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold_what: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if hold_what and hold_what in chunk:
                    self.held.set()
                    await self.let_go.wait()
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()


def to_port(port: Callable[[], int]) -> Connect:
    """Asked at each connection: a process that was started again may have another port."""
    return lambda: asyncio.open_connection("127.0.0.1", port())


def to_socket(path: Path) -> Connect:
    return lambda: asyncio.open_unix_connection(path)
