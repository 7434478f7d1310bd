"""Requests to whoever a workload names: judged when connecting, redirects in our hands, failures in our words."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import IO, Any, Final

import aiohttp
from attrs import define, field
from yarl import URL

from cells.executor.transfers.settings import TransferSettings
from cells.garden.images import challenge, reach
from diego_py.errors import DownloadFailed, TransferNotAllowed, TransferTimedOut, TransferUnreachable

CONNECT_TIMEOUT_S: Final = 10.0
REDIRECTS_MAX: Final = 10
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
HEADER_BYTES_MAX: Final = 32 * 1024
READ_BYTES: Final = 256 * 1024
REASON_CHARACTERS_MAX: Final = 500


@define
class Peer:
    """The other end of one transfer. An asynchronous context manager; its connections end with it."""

    settings: TransferSettings
    _direct: aiohttp.ClientSession = field(init=False, repr=False)
    """To whom the operator named."""
    _judged: aiohttp.ClientSession = field(init=False, repr=False)
    """To everybody else."""
    _refused: list[str] = field(factory=list, init=False, repr=False)
    """What the addresses were that the request under way did not connect to."""

    async def __aenter__(self) -> Peer:
        self._direct = self._session(aiohttp.TCPConnector())
        self._judged = self._session(aiohttp.TCPConnector(socket_factory=self._public_socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._direct.close()
        await self._judged.close()

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self.settings.silence_s
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "diego-py", "Accept-Encoding": "identity"},
            auto_decompress=False,
            timeout=silence,
            read_bufsize=READ_BYTES,
            max_field_size=HEADER_BYTES_MAX,
        )

    @asynccontextmanager
    async def get(self, text: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of the redirects, whatever its status. Reading its body needs `border`.

        User and password of the URL go to its own host and nowhere else: no redirect may have any. Raises
        TransferNotAllowed, TransferUnreachable, TransferTimedOut, DownloadFailed.
        """
        url = URL(text)
        for _ in range(REDIRECTS_MAX):
            async with self._asked("GET", url, headers) as response:
                if response.status not in REDIRECTS:
                    yield response
                    return
                url = _target(url, response)
        raise DownloadFailed(f"{url.host} redirects more than {REDIRECTS_MAX} times", evidence=at(url))

    @asynccontextmanager
    async def post(
        self, text: str, headers: Mapping[str, str], body: IO[bytes]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a file, whatever its status. A redirect is an answer. Raises as `get` does."""
        async with self._asked("POST", URL(text), headers, body) as response:
            yield response

    @asynccontextmanager
    async def _asked(
        self, method: str, url: URL, headers: Mapping[str, str], body: IO[bytes] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with self.border(url):
            response = await self._send(method, url, headers, body)
        async with response:
            yield response

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], body: IO[bytes] | None
    ) -> aiohttp.ClientResponse:
        """Raises TransferNotAllowed."""
        if url.scheme not in ("http", "https") or not url.host:
            raise TransferNotAllowed(f"{url.scheme}: is no kind of URL that the cell opens", evidence=at(url))
        if not reach.may_be_asked(url, self.settings.patterns):
            raise _not_allowed(url, "not one that the cell's config names")
        if reach.is_named(url, self.settings.patterns):
            return await self._direct.request(method, url, headers=headers, data=body, allow_redirects=False)
        if kind := reach.reason_against(url.host, self.settings.denied):  # Of an address. Names are judged below.
            raise _not_allowed(url, kind)
        self._refused.clear()
        try:
            return await self._judged.request(method, url, headers=headers, data=body, allow_redirects=False)
        except aiohttp.InvalidURL as failed:
            raise _not_allowed(url, "written in a way that not everybody reads alike") from failed
        except aiohttp.ClientConnectorError as failed:
            if self._refused and not isinstance(failed, aiohttp.ClientSSLError):  # Else another answered.
                raise _not_allowed(url, self._refused[0]) from failed
            raise

    def _public_socket(self, to: reach.AddrInfo) -> socket.socket:
        """The last word before a connection. What it says is lost when another address of the name fails otherwise."""
        try:
            return reach.public_socket(to, self.settings.denied)
        except reach.NotPublic as refused:
            self._refused.append(refused.kind)
            raise

    @contextmanager
    def border(self, url: URL) -> Iterator[None]:
        """The border to aiohttp's client: its exceptions become ours."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError) as refused:
            raise _unreachable(url, f"connect to {refused.host}:{refused.port}", _reason(refused)) from refused
        except TimeoutError as silent:
            evidence = {**at(url), "limit_s": self.settings.silence_s}
            raise TransferTimedOut(f"{url.host} sent nothing for too long", evidence=evidence) from silent
        except (aiohttp.ClientError, ConnectionError) as lost:
            raise _unreachable(url, f"the connection to {url.host} broke", str(lost)) from lost


def at(url: URL) -> dict[str, Any]:
    """A URL as failures tell it: without user, password, query and fragment, which may be secrets."""
    return {"url": str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else url.scheme}


def _target(url: URL, response: aiohttp.ClientResponse) -> URL:
    try:
        target = url.join(URL(response.headers["Location"], encoded=True))
        allowed = challenge.may_follow(url, target)
    except (KeyError, ValueError) as malformed:
        raise DownloadFailed(f"{url.host} redirects to no address", evidence=at(url)) from malformed
    if not allowed:
        told = f"{url.host} redirects to {target.scheme}://{target.host}, which is not followed"
        raise DownloadFailed(told, evidence=at(url))
    return target


def _not_allowed(url: URL, kind: str) -> TransferNotAllowed:
    """The address itself is not told: what names mean inside is not for everybody."""
    told = f"the address of {url.host} is {kind}; the cell goes there only when its config names the host"
    return TransferNotAllowed(told, evidence={**at(url), "address": kind})


def _unreachable(url: URL, told: str, reason: str) -> TransferUnreachable:
    reason = reason[:REASON_CHARACTERS_MAX]
    return TransferUnreachable(f"{told}: {reason}", evidence={**at(url), "reason": reason})


def _reason(refused: aiohttp.ClientError) -> str:
    if isinstance(refused, aiohttp.ClientConnectorCertificateError):
        return str(refused.certificate_error)
    if isinstance(refused, aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorDNSError):
        return str(refused.os_error.strerror or refused.os_error)
    if isinstance(refused, aiohttp.ClientConnectorError) and refused.errno:
        return os.strerror(refused.errno)
    return str(refused)
