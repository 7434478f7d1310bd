"""A next hop that answers any bytes the test wants, or none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from attrs import define, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@define
class RawPeer:
    """What it was asked, and where it listens."""

    url: str
    heads: list[dict[str, str]] = field(factory=list)


def saying(answer: bytes, reset: bool = False) -> Script:
    """Send these bytes, then close the connection, or reset it."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if reset:
            writer.transport.abort()

    return script


def http(status: int, body: bytes, *headers: str) -> bytes:
    """An HTTP answer of the right length."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def silent(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


@asynccontextmanager
async def raw_peer(script: Script) -> AsyncIterator[RawPeer]:
    """Every connection is read up to the end of its first request; then comes the script."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            peer.heads.append(await _read_request(reader))
            await script(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer = RawPeer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await server.wait_closed()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port


async def _read_request(reader: asyncio.StreamReader) -> dict[str, str]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    head = dict(line.split(": ", 1) for line in lines) | {"first line": first}
    head["body"] = (await reader.readexactly(int(head.get("Content-Length", 0)))).decode("latin-1")
    return head
