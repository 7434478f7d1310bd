"""HTTP without sockets: the real clients and the real handlers, and between them messages that the seed may spoil."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web
from attrs import define, field
from multidict import CIMultiDict, MultiDict

from diego_py.http.client import HopClient, Told
from diego_py.http.headers import IDEMPOTENCY_KEY
from diego_py.http.server import JSON, HopServer, Route
from tests.simulation.faults import LATE_S_MAX, Faults
from tests.simulation.loop import SimulatedLoop, SimulatedProcess

RESET_S: Final = 0.05
CLIENT: Final = "http://client"
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


@define(eq=False)
class Received:
    """An answer as a client reads it, also while it is still being written."""

    status: int
    headers: Mapping[str, str]
    pieces: deque[bytes | BaseException]
    """What came and was not read yet. An empty piece is the end."""
    faults: Faults
    news: asyncio.Event = field(factory=asyncio.Event)

    @classmethod
    def whole(cls, status: int, headers: Mapping[str, str], body: bytes, faults: Faults) -> Received:
        return cls(status, headers, deque((body, b"") if body else (b"",)), faults)

    @property
    def content(self) -> Received:
        return self

    def came(self, piece: bytes | BaseException) -> None:
        self.pieces.append(piece)
        self.news.set()

    async def iter_any(self) -> AsyncIterator[bytes]:
        while True:
            while not self.pieces:
                self.news.clear()
                await self.news.wait()
            piece = self.pieces.popleft()
            if isinstance(piece, BaseException):
                raise piece
            if not piece:
                return
            if len(piece) > 1 and self.faults.strikes("cut_half_way"):
                yield piece[: int(self.faults.random.random() * len(piece))]
                raise aiohttp.ClientPayloadError("the answer broke off")
            yield piece


class _Writer:
    output_size = 0


@define(eq=False)
class Streaming:
    """What a handler writes an answer to that it sends piece by piece: as much of aiohttp's as responses use."""

    begin: Callable[[Received], None]
    faults: Faults
    received: Received | None = None
    length: int | None = None
    output_size: int = 0

    def enable_chunking(self) -> None:
        """Pieces are pieces."""

    def send_headers(self) -> None:
        """They were sent."""

    async def write_headers(self, status_line: str, headers: Mapping[str, str]) -> None:
        self.received = Received(int(status_line.split()[1]), headers, deque(), self.faults)
        self.begin(self.received)

    async def write(self, piece: bytes) -> None:
        assert self.received is not None
        self.received.came(piece)

    async def write_eof(self, piece: bytes = b"") -> None:
        assert self.received is not None
        if piece:
            self.received.came(piece)
        self.received.came(b"")


@define(eq=False)
class SimulatedRequest:
    """As much of aiohttp's request as handlers use."""

    method: str
    path: str
    path_qs: str
    headers: CIMultiDict[str]
    query: MultiDict[str]
    body: bytes
    match_info: dict[str, str] = field(factory=dict)
    content_type: str = JSON
    transport: None = None
    writer: _Writer = field(factory=_Writer)
    keep_alive: bool = True
    version: aiohttp.HttpVersion = aiohttp.HttpVersion11
    _payload_writer: Streaming | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Nobody listens to the signals of an application."""

    async def read(self) -> bytes:
        return self.body


@define
class Network:
    """Who listens where."""

    loop: SimulatedLoop
    faults: Faults
    listeners: dict[str, SimulatedListener] = field(factory=dict)
    cut_off: set[str] = field(factory=set)
    """Addresses that nothing gets to and nothing comes from, until healed."""

    def send(
        self, base: str, request: SimulatedRequest, answer: asyncio.Future[Received] | None, travel_s: float
    ) -> None:
        """Have a message arrive some time from now. Without `answer` nobody waits for what becomes of it."""
        self.loop.call_later(travel_s, self._arrive, base, request, answer, context=Context())

    def _arrive(self, base: str, request: SimulatedRequest, answer: asyncio.Future[Received] | None) -> None:
        listener = self.listeners.get(base)
        if listener is not None and base not in self.cut_off:
            listener.deliver(request, answer)
        elif answer is not None and not answer.done():
            answer.set_exception(aiohttp.ConnectionTimeoutError("nobody answers"))


@define(eq=False)
class SimulatedListener:
    """One process's address in the network, for as long as it lives."""

    network: Network
    process: SimulatedProcess
    url: str
    server: HopServer
    routes: Sequence[Route]
    port: int = 80
    _served: dict[tuple[str, str], Serve] = field(factory=dict, init=False)
    _waiting: dict[asyncio.Future[Received], None] = field(factory=dict, init=False)

    async def start(self) -> None:
        self.network.listeners[self.url] = self
        self.process.last_words.append(self._gone)

    async def stop(self) -> None:
        self._gone()

    def deliver(self, request: SimulatedRequest, answer: asyncio.Future[Received] | None) -> None:
        """Have the process work on a request; its connection is reset when the process dies."""
        if answer is not None:
            self._waiting[answer] = None
        self.process.begin(self._serve(request, answer))

    async def _serve(self, request: SimulatedRequest, answer: asyncio.Future[Received] | None) -> None:
        """An answer that is written piece by piece is on its way once the handler returns, or before."""
        faults = self.network.faults

        def begin(received: Received) -> None:
            if answer is not None and not answer.done():
                answer.set_result(received)

        request._payload_writer = Streaming(begin, faults)
        response: Any = await self._handler(request)(request)  # type: ignore[arg-type]
        if request._payload_writer.received is None:
            begin(Received.whole(response.status, response.headers, bytes(response.body or b""), faults))
        if answer is not None:
            self._waiting.pop(answer, None)

    def _handler(self, request: SimulatedRequest) -> Serve:
        for route in self.routes:
            found = route.method == request.method and _pattern(route.path).fullmatch(request.path)
            if found:
                request.match_info = found.groupdict()
                key = (route.method, route.path)
                if key not in self._served:
                    self._served[key] = self.server.serve(route)
                return self._served[key]
        raise AssertionError(f"no route {request.method} {request.path}")

    def _gone(self) -> None:
        if self.network.listeners.get(self.url) is self:
            del self.network.listeners[self.url]
        waiting, self._waiting = self._waiting, {}
        for answer in waiting:
            if not answer.done():
                answer.set_exception(aiohttp.ServerDisconnectedError())
            elif not answer.cancelled() and answer.exception() is None:
                answer.result().came(aiohttp.ClientPayloadError("the answer broke off"))


@define(eq=False)
class SimulatedSession:
    """As much of aiohttp's client session as the hop client uses."""

    network: Network
    home: str

    def request(self, method: str, url: str, **options: Any) -> Exchange:
        return Exchange(self, method, url, options)

    async def close(self) -> None:
        """There are no connections."""


@define(eq=False)
class Exchange:
    """One request and its answer."""

    session: SimulatedSession
    method: str
    url: str
    options: dict[str, Any]

    async def __aenter__(self) -> Received:
        async with asyncio.timeout(self.options["timeout"].total):
            return await self._exchanged()

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    async def _exchanged(self) -> Received:
        """What was sent arrives whether or not its sender still waits, or lives."""
        network = self.session.network
        fate = network.faults.message()
        cut = self.url.index("/", len("http://"))
        base, target = self.url[:cut], self.url[cut:]
        network.loop.note(f"{self.method} {self.url} {fate.fault}")
        answer: asyncio.Future[Received] = network.loop.create_future()
        if fate.fault == "refused" or self.session.home in network.cut_off:
            await asyncio.sleep(fate.travel_s)
            raise aiohttp.ConnectionTimeoutError("nobody answers")
        if fate.fault == "reset":
            network.loop.call_later(RESET_S, _reset, answer)
        elif fate.fault != "lost":
            network.send(base, self._request(target), answer, fate.travel_s)
        if fate.fault == "duplicated" and self._may_come_twice():
            network.send(base, self._request(target), None, network.faults.random.random() * LATE_S_MAX)
        received = await answer
        if fate.fault == "reply_lost" or self.session.home in network.cut_off:
            raise aiohttp.ServerDisconnectedError
        if fate.fault != "late":
            await asyncio.sleep(fate.travel_s)
        return received

    def _sent(self) -> bytes:
        data = self.options["data"]
        if isinstance(data, Told):
            data.sent()
            return data.body
        return data or b""

    def _may_come_twice(self) -> bool:
        """Between BBS and cells everything, of clients what has a key: nobody promises anything for the rest."""
        return self.session.home != CLIENT or IDEMPOTENCY_KEY in self.options["headers"]

    def _request(self, target: str) -> SimulatedRequest:
        path, _, query = target.partition("?")
        return SimulatedRequest(
            self.method,
            path,
            target,
            CIMultiDict(self.options["headers"]),
            MultiDict(parse_qsl(query)),
            self._sent(),
        )


def _reset(answer: asyncio.Future[Received]) -> None:
    if not answer.done():
        answer.set_exception(aiohttp.ServerDisconnectedError())


class SimulatedHopClient(HopClient):
    """The real client of hops, on the simulated network."""

    def __init__(self, network: Network, home: str) -> None:
        super().__init__()
        self._session = SimulatedSession(network, home)  # type: ignore[assignment]


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
