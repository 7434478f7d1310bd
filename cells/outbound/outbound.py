"""Requests to whoever a tenant named: judged when connecting, by a proxy if there is one, redirects not followed.

What goes wrong is told by kind, as a `Trouble`; which error that is, the caller says.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from types import TracebackType
from typing import IO, Final

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from cells.outbound import reach

HEADER_BYTES_MAX: Final = 32 * 1024
"""One header; storage behind registries has long signed addresses."""
READ_BYTES: Final = 256 * 1024
REASON_CHARACTERS_MAX: Final = 500
PROXY_DENIES: Final = 407
NOT_READ_ALIKE: Final = "written in a way that not everybody reads alike"


class Kind(Enum):
    """What went wrong."""

    NOT_ALLOWED = auto()
    """Nothing was sent: `reason` is what the address is."""
    AUTHORITIES = auto()
    """Nothing was sent: the operator's file of authorities cannot be read."""
    PROXY = auto()
    """The proxy would not; `status` is its answer."""
    CONNECT = auto()
    """There was no connection to `peer`; `reason` has the words of the kernel, the resolver or OpenSSL."""
    SILENCE = auto()
    """Nothing came for too long."""
    NONSENSE = auto()
    """What came is no HTTP."""
    BROKEN = auto()
    """The connection broke."""


@frozen
class Trouble:
    """Why there is no answer, or no more of it."""

    kind: Kind
    reason: str = ""
    peer: str = ""
    """HOST:PORT."""
    status: int = 0


@frozen(kw_only=True)
class Ways:
    """How hosts are reached."""

    named: Callable[[URL], bool]
    """Whether the operator named it: it may be at any address then, and is reached directly."""
    denied: tuple[reach.Network, ...] = ()
    """What counts as not public besides what the world agrees on."""
    proxy: str = ""
    """By which everybody is reached who is not named; then it is the proxy that judges addresses of names."""
    ca_file: str = ""
    """PEM file of authorities that are trusted besides the system's."""
    connect_s: float
    silence_s: float


@define
class Outbound:
    """An asynchronous context manager; its connections end with it."""

    ways: Ways
    error_of: Callable[[URL, Trouble], Exception]
    _direct: aiohttp.ClientSession = field(init=False, repr=False)
    """To whom the operator named."""
    _judged: aiohttp.ClientSession = field(init=False, repr=False)
    """To everybody else."""
    _refused: list[str] = field(factory=list, init=False, repr=False)
    """What the addresses were that the request under way did not connect to."""

    async def __aenter__(self) -> Outbound:
        ca_file = self.ways.ca_file
        try:
            trust = await asyncio.to_thread(_trust, ca_file) if ca_file else True
        except OSError as unreadable:  # ssl.SSLError is one.
            raise self.error_of(URL(), Trouble(Kind.AUTHORITIES, f"{ca_file}: {unreadable}")) from unreadable
        self._direct = self._session(aiohttp.TCPConnector(ssl=trust))
        # To the proxy, if there is one, and to nobody else.
        factory = None if self.ways.proxy else self._public_socket
        self._judged = self._session(aiohttp.TCPConnector(ssl=trust, socket_factory=factory), self.ways.proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._direct.close()
        await self._judged.close()

    def _session(self, connector: aiohttp.TCPConnector, proxy: str = "") -> aiohttp.ClientSession:
        ways = self.ways
        return aiohttp.ClientSession(
            connector=connector,
            proxy=proxy or None,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "diego-py", "Accept-Encoding": "identity"},
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=ways.connect_s, sock_read=ways.silence_s),
            read_bufsize=READ_BYTES,
            max_field_size=HEADER_BYTES_MAX,
        )

    async def request(
        self, method: str, url: URL, headers: Mapping[str, str], body: IO[bytes] | None = None
    ) -> aiohttp.ClientResponse:
        """The answer, whatever its status; a redirect is one. Raises what `error_of` makes of a Trouble.

        One at a time: what the last one was refused is forgotten.
        """
        with self.border(url):
            if self.ways.named(url):
                return await self._direct.request(method, url, headers=headers, data=body, allow_redirects=False)
            # Of an address, and of the one name that a proxy must not be asked for. Other names: see below.
            if kind := reach.reason_against(url.host or "", self.ways.denied) or _own_name(url):
                raise self.error_of(url, Trouble(Kind.NOT_ALLOWED, kind))
            self._refused.clear()
            try:
                answer = await self._judged.request(method, url, headers=headers, data=body, allow_redirects=False)
            except aiohttp.InvalidURL as failed:
                raise self.error_of(url, Trouble(Kind.NOT_ALLOWED, NOT_READ_ALIKE)) from failed
            except aiohttp.ClientConnectorError as failed:
                if self._refused and not isinstance(failed, aiohttp.ClientSSLError):  # Else another answered.
                    raise self.error_of(url, Trouble(Kind.NOT_ALLOWED, self._refused[0])) from failed
                raise
        if self.ways.proxy and answer.status == PROXY_DENIES:  # To a plain request it answers in the server's place.
            answer.close()
            raise self.error_of(url, Trouble(Kind.PROXY, answer.reason or "", status=answer.status))
        return answer

    def _public_socket(self, to: reach.AddrInfo) -> socket.socket:
        """The last word before a connection. What it says is lost when another address of the name fails otherwise."""
        try:
            return reach.public_socket(to, self.ways.denied)
        except reach.NotPublic as refused:
            self._refused.append(refused.kind)
            raise

    @contextmanager
    def border(self, url: URL) -> Iterator[None]:
        """The border to aiohttp's client: its exceptions become the caller's. Reading an answer's body needs it."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as failed:
            raise self.error_of(url, _trouble(failed)) from failed


def _own_name(url: URL) -> str:
    return "loopback" if reach.is_loopback(url.host) else ""


def _trouble(failed: aiohttp.ClientError | TimeoutError | ConnectionError) -> Trouble:
    if isinstance(failed, aiohttp.ClientHttpProxyError):
        return Trouble(Kind.PROXY, failed.message, status=failed.status)
    if isinstance(failed, aiohttp.ClientConnectorError | aiohttp.ClientSSLError):
        return Trouble(Kind.CONNECT, _reason(failed)[:REASON_CHARACTERS_MAX], f"{failed.host}:{failed.port}")
    reason = str(failed)[:REASON_CHARACTERS_MAX]
    if isinstance(failed, TimeoutError):
        return Trouble(Kind.SILENCE, reason)
    if isinstance(failed, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return Trouble(Kind.NONSENSE, reason)
    return Trouble(Kind.BROKEN, reason)


def _reason(refused: aiohttp.ClientError) -> str:
    """The kernel's, the resolver's or OpenSSL's words."""
    if isinstance(refused, aiohttp.ClientConnectorCertificateError):
        return str(refused.certificate_error)
    if isinstance(refused, aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorDNSError):
        return str(refused.os_error.strerror or refused.os_error)
    if isinstance(refused, aiohttp.ClientConnectorError) and refused.errno:
        return os.strerror(refused.errno)
    return str(refused)


def _trust(ca_file: str) -> ssl.SSLContext:
    """The system's authorities and the operator's own, which takes some 10 ms."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(ca_file)
    return trust
