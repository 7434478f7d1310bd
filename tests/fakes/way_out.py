"""What is between a cell and the world in tests: an authority of one's own, a proxy, a server of few words."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


def authority(directory: Path, name: str) -> Path:
    """A certificate for `name` (`DNS:…`, `IP:…`) that is its own authority, with its key beside it."""
    pem = directory / "both.pem"
    subject = ["-subj", "/CN=test", "-addext", f"subjectAltName={name}", "-days", "2", "-nodes"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", f"{pem}.key"]
    subprocess.run(["openssl", "req", "-x509", *key, *subject, "-out", str(pem)], check=True, capture_output=True)
    return pem


def serves(pem: Path) -> ssl.SSLContext:
    """TLS of a server with this certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, f"{pem}.key")
    return tls


@asynccontextmanager
async def proxy(to: str, asked: list[str], status: bytes = b"200 OK") -> AsyncIterator[str]:
    """Leads every connection to `to`, for CONNECT and for plain requests; its URL. `asked` gets what it was asked for.

    With another status than 200 it leads nowhere.
    """

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.match(rb"(\S+) (\S+) ", head)
        assert found is not None
        asked.append(found[2].decode())
        if not status.startswith(b"200"):
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection(*to.split(":"))
        if found[1] == b"CONNECT":
            writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def saying(words: bytes, then: asyncio.Event | None = None) -> AsyncIterator[str]:
    """A server that says the same to everybody, waits for an event, and hangs up; its HOST:PORT."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(words)
        if then is not None:
            await then.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
