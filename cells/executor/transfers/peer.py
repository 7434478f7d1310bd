"""Requests to whoever a workload names: judged when connecting, redirects in our hands, failures in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import IO, Any, Final

import aiohttp
from attrs import define, field
from yarl import URL

from cells.executor.transfers.settings import TransferSettings
from cells.outbound import reach
from cells.outbound.outbound import Kind, Outbound, Trouble, Ways
from diego_py.errors import DiegoError, DownloadFailed, TransferNotAllowed, TransferTimedOut, TransferUnreachable

CONNECT_TIMEOUT_S: Final = 10.0
REDIRECTS_MAX: Final = 10
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@define
class Peer:
    """The other end of one transfer. An asynchronous context manager; its connections end with it."""

    settings: TransferSettings
    _outbound: Outbound = field(init=False, repr=False)

    async def __aenter__(self) -> Peer:
        settings, patterns = self.settings, self.settings.patterns
        ways = Ways(
            named=lambda url: reach.is_named(url, patterns),
            denied=settings.denied,
            proxy=settings.proxy,
            ca_file=settings.ca_file,
            connect_s=CONNECT_TIMEOUT_S,
            silence_s=settings.silence_s,
        )
        self._outbound = await Outbound(ways, self._error_of).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._outbound.__aexit__(kind, error, trace)

    def border(self, url: URL) -> AbstractContextManager[None]:
        """The border to the client that reads a body: its exceptions become ours."""
        return self._outbound.border(url)

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
        """Raises TransferNotAllowed."""
        if url.scheme not in ("http", "https") or not url.host:
            raise TransferNotAllowed(f"{url.scheme}: is no kind of URL that the cell opens", evidence=at(url))
        if not reach.may_be_asked(url, self.settings.patterns):
            raise _not_allowed(url, "not one that the cell's config names")
        async with await self._outbound.request(method, url, headers, body) as response:
            yield response

    def _error_of(self, url: URL, trouble: Trouble) -> DiegoError:
        reason = trouble.reason
        match trouble.kind:
            case Kind.NOT_ALLOWED:
                return _not_allowed(url, reason)
            case Kind.AUTHORITIES:
                return _unreachable(url, "the authorities in the cell's transfer_ca_file cannot be read", reason)
            case Kind.PROXY:
                return _unreachable(url, f"the cell's transfer_proxy answered {trouble.status}", reason)
            case Kind.CONNECT:
                return _unreachable(url, f"connect to {trouble.peer}", reason)
            case Kind.SILENCE:
                evidence = {**at(url), "limit_s": self.settings.silence_s}
                return TransferTimedOut(f"{url.host} sent nothing for too long", evidence=evidence)
            case Kind.NONSENSE | Kind.BROKEN:
                return _unreachable(url, f"the connection to {url.host} broke", reason)


def at(url: URL) -> dict[str, Any]:
    """A URL as failures tell it: without user, password, query and fragment, which may be secrets."""
    return {"url": str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else url.scheme}


def _target(url: URL, response: aiohttp.ClientResponse) -> URL:
    try:
        target = url.join(URL(response.headers["Location"], encoded=True))
        allowed = reach.may_follow(url, target)
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
    return TransferUnreachable(f"{told}: {reason}", evidence={**at(url), "reason": reason})
