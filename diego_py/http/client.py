"""The client side of a hop: ids and budget go down, timings come up, and a failure is raised as the chain it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from attrs import define, evolve, field, frozen

from diego_py import chain
from diego_py.call import ANSWER_MARGIN_MS, Call, Hop
from diego_py.errors import BadAnswer, BudgetSpent, ConnectionLost, DiegoError, HopUnreachable, Outcome
from diego_py.http import headers

CONNECT_TIMEOUT_S = 3.0
KEEPALIVE_S = 60.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024


@frozen
class Answer:
    """A 2xx answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Peer:
    """The next hop: the name of its kind in the chain, its own id, and where it listens."""

    hop: str
    id: str
    url: str


class Told(aiohttp.BytesPayload):
    """A JSON body that says when it was sent."""

    def __init__(self, body: bytes, sent: Callable[[], None]) -> None:
        super().__init__(body, content_type="application/json")
        self.body, self.sent = body, sent

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await super().write_with_length(writer, content_length)
        self.sent()


@define
class HopClient:
    """Sends requests to other hops. Mutating calls are never retried here: only the outermost caller may do that."""

    connections_per_host_max: int = 128
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        call: Call,
        peer: Peer,
        method: str,
        path: str,
        body: bytes | None = None,
        op: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request within the call's budget and return its 2xx answer.

        Raises the rebuilt chain of a failure document, or the frame that the peer could not make itself:
        HopUnreachable (it never got the request), ConnectionLost or BudgetSpent (outcome unknown), BadAnswer.
        When there is no time left to ask, BudgetSpent has no frame yet: that of our own hop.
        """
        _require_time(call, peer)
        began = Hop(peer.hop, peer.id, op or f"{method} {path}", call.clock.monotonic(), call.clock.now())
        timeout = aiohttp.ClientTimeout(total=call.remaining_ms() / 1000, sock_connect=CONNECT_TIMEOUT_S)
        try:
            with _border(call, peer):
                async with self._send(call, method, peer.url + path, body, extra, timeout) as response:
                    content = await _read(response)
            if response.status >= 300:
                raise _failure(began, call, response.status, content)
        except DiegoError as error:
            error.frame = error.frame or began.frame(error, call.clock.monotonic())
            began.elapsed_ms = error.frame.elapsed_ms
            _attach(call, began)
            raise
        _attach(call, headers.remote_hops(response.headers.get(headers.SERVER_TIMING, ""), began.began_s, call))
        return Answer(response.status, response.headers, content)

    @asynccontextmanager
    async def stream(
        self,
        call: Call,
        peer: Peer,
        path: str,
        extra: Mapping[str, str] | None = None,
        body: Told | None = None,
        op: str | None = None,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """A GET, or with a body a POST, whose 2xx body is read as it comes, without a deadline after the head.

        Errors as `request`.
        """
        method = "GET" if body is None else "POST"
        _require_time(call, peer)
        began = Hop(peer.hop, peer.id, op or f"{method} {path}", call.clock.monotonic(), call.clock.now())
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        async with AsyncExitStack() as opened:
            try:
                with _border(call, peer):
                    async with asyncio.timeout(call.remaining_ms() / 1000):
                        sent = self._send(call, method, peer.url + path, body, extra, timeout)
                        response = await opened.enter_async_context(sent)
                        content = b"" if response.status < 300 else await _read(response)
                if response.status >= 300:
                    raise _failure(began, call, response.status, content)
            except DiegoError as error:
                error.frame = error.frame or began.frame(error, call.clock.monotonic())
                raise
            try:
                yield response.content
            except aiohttp.ClientError as broken:
                lost = ConnectionLost(f"connection to {peer.url} broke", outcome=Outcome.UNKNOWN)
                lost.frame = began.frame(lost, call.clock.monotonic())
                raise lost from broken

    def _send(
        self,
        call: Call,
        method: str,
        url: str,
        body: bytes | Told | None,
        extra: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        sent = {**headers.downstream(call), **(extra or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        return self._connected().request(method, url, data=body, headers=sent, timeout=timeout, allow_redirects=False)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, limit_per_host=self.connections_per_host_max, keepalive_timeout=KEEPALIVE_S
            )
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
            )
        return self._session


UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, UnicodeError)
"""The last one is what Python's resolver says of `http://a..b`."""


@contextmanager
def _border(call: Call, peer: Peer) -> Iterator[None]:
    """The border to aiohttp's client: its exceptions become ours."""
    try:
        yield
    except UNREACHABLE as refused:
        raise HopUnreachable(f"connect to {peer.url}: {_reason(refused)}", outcome=Outcome.NOT_STARTED) from refused
    except TimeoutError as late:
        told = f"no answer from {peer.url} within {call.budget.total_ms:.0f} ms"
        raise BudgetSpent(told, outcome=Outcome.UNKNOWN) from late
    except aiohttp.ClientResponseError as nonsense:
        raise BadAnswer(f"{peer.url} does not speak HTTP", outcome=Outcome.UNKNOWN) from nonsense
    except (aiohttp.ClientError, ConnectionError) as lost:
        raise ConnectionLost(f"connection to {peer.url} broke", outcome=Outcome.UNKNOWN) from lost


def _reason(refused: Exception) -> str:
    """The kernel's or the resolver's words; those of asyncio repeat the address."""
    if isinstance(refused, aiohttp.ClientConnectorDNSError):
        return str(refused.strerror)
    if isinstance(refused, aiohttp.ClientConnectorError) and refused.errno:
        return os.strerror(refused.errno)
    return "timed out" if isinstance(refused, TimeoutError) else "no such address"


def _require_time(call: Call, peer: Peer) -> None:
    """A request whose budget is spent on arrival is not sent."""
    if call.remaining_ms() <= ANSWER_MARGIN_MS:
        raise BudgetSpent(f"no time left to ask {peer.hop} {peer.id}", outcome=Outcome.NOT_STARTED)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises BadAnswer when it is too long to be an answer of ours."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > ANSWER_BYTES_MAX:
            raise BadAnswer(f"the answer is longer than {ANSWER_BYTES_MAX} bytes", outcome=Outcome.UNKNOWN)
    return bytes(content)


def _failure(began: Hop, call: Call, status: int, content: bytes) -> DiegoError:
    try:
        return chain.rebuild(_mapping(content))
    except ValueError as malformed:
        error = BadAnswer(f"status {status} without a failure document", outcome=Outcome.UNKNOWN)
        error.frame = evolve(began.frame(error, call.clock.monotonic()), status=status)
        error.__cause__ = malformed
        return error


def _attach(call: Call, remote: Hop | None) -> None:
    """Count the peer's time as below us; what is left of the request, the network, stays our own."""
    if remote is not None and call.here is not None:
        call.here.children.append(remote)


def _mapping(content: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as malformed:
        raise ValueError("the body is not JSON") from malformed
    if not isinstance(document, dict):
        raise ValueError("the body is not an object")
    return document
