"""The client side of a hop: ids and budget go down, timings come up, and a failure is raised as the chain it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from attrs import define, evolve, field, frozen

from diego_py import chain
from diego_py.call import Call, Hop
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
        """
        began = Hop(peer.hop, peer.id, op or f"{method} {path}", call.clock.monotonic(), call.clock.now())
        try:
            async with self._open(call, peer, method, path, body, extra) as response:
                content = await response.read()
            if response.status >= 300:
                raise self._failure(began, call, response.status, content)
        except DiegoError as error:
            error.frame = error.frame or began.frame(error, call.clock.monotonic())
            began.elapsed_ms = error.frame.elapsed_ms
            _attach(call, began)
            raise
        _attach(call, headers.remote_hops(response.headers.get(headers.SERVER_TIMING, ""), began.began_s, call))
        return Answer(response.status, response.headers, content)

    @asynccontextmanager
    async def stream(
        self, call: Call, peer: Peer, path: str, extra: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """A GET whose 2xx body is read as it comes, without a deadline after the head. Errors as `request`."""
        began = Hop(peer.hop, peer.id, f"GET {path}", call.clock.monotonic(), call.clock.now())
        url = peer.url + path
        try:
            async with self._connected().get(url, headers={**headers.downstream(call), **(extra or {})}) as response:
                if response.status >= 300:
                    raise self._failure(began, call, response.status, await response.read())
                yield response.content
        except aiohttp.ClientConnectorError as refused:
            error = HopUnreachable(f"connect to {peer.url}", outcome=Outcome.NOT_STARTED)
            error.frame = began.frame(error, call.clock.monotonic())
            raise error from refused

    @asynccontextmanager
    async def _open(
        self, call: Call, peer: Peer, method: str, path: str, body: bytes | None, extra: Mapping[str, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The border to aiohttp's client: its exceptions become ours."""
        sent = {**headers.downstream(call), **(extra or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=max(0.05, call.remaining_ms() / 1000), sock_connect=CONNECT_TIMEOUT_S)
        session = self._connected()
        try:
            async with session.request(method, peer.url + path, data=body, headers=sent, timeout=timeout) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as refused:
            reason = refused.strerror if isinstance(refused, aiohttp.ClientConnectorError) else "timed out"
            raise HopUnreachable(f"connect to {peer.url}: {reason}", outcome=Outcome.NOT_STARTED) from refused
        except TimeoutError as timeout_:
            raise BudgetSpent(
                f"no answer from {peer.url} within {call.budget.total_ms:.0f} ms", outcome=Outcome.UNKNOWN
            ) from timeout_
        except (aiohttp.ClientError, ConnectionError) as lost:
            raise ConnectionLost(f"connection to {peer.url} broke", outcome=Outcome.UNKNOWN) from lost

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, limit_per_host=self.connections_per_host_max, keepalive_timeout=KEEPALIVE_S
            )
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
            )
        return self._session

    def _failure(self, began: Hop, call: Call, status: int, content: bytes) -> DiegoError:
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
    except msgspec.DecodeError as malformed:
        raise ValueError("the body is not JSON") from malformed
    if not isinstance(document, dict):
        raise ValueError("the body is not an object")
    return document
