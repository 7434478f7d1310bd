"""A HopServer on a real loopback socket, and what tests of it ask."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import aiohttp
from attrs import define, field

from diego_py.http.listener import HttpListener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import HopServer, Route
from diego_py.http.standard_routes import StandardRoutes
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger

HOST = "127.0.0.1"
BODY_BYTES_MAX = 1_000
IN_FLIGHT_MAX = 2


@define
class Served:
    """A listener that serves, its log, and a client of it."""

    port: int
    server: HopServer
    session: aiohttp.ClientSession
    log: StringIO = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name in the log."""
        events = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [event for event in events if event["event"] == name]

    async def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> "Answered":
        """One request; header names have underscores for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, self.url + path, data=body, headers=named, skip_auto_headers=["Content-Type"]
        ) as response:
            return Answered(response.status, response.headers, await response.read())

    async def send_raw(self, request: bytes) -> "Answered":
        """Bytes as they are, on a connection of their own, and what came back until it was closed."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(request)
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answered(int(first.split(" ")[1]), headers, body)


@define
class Answered:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@asynccontextmanager
async def serving(routes: Sequence[Route]) -> AsyncIterator[Served]:
    """`routes` and the standard ones on a free port."""
    log = StringIO()
    server = HopServer(
        hop="bbs",
        id="bbs-1",
        clock=SystemClock(),
        log=logger("bbs", "bbs-1", log),
        metrics=ServerMetrics(),
        in_flight_max=IN_FLIGHT_MAX,
        body_bytes_max=BODY_BYTES_MAX,
        default_budget_ms=5_000,
    )
    standard = StandardRoutes(server.metrics, {}).routes()
    listener = HttpListener(server.application([*routes, *standard]), HOST, 0, grace_s=0.1)
    await listener.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Served(listener.port, server, session, log)
    finally:
        await listener.stop()
