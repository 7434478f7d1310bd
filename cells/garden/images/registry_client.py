"""Requests to one registry for one repository: credentials, redirects, and failures in our own words."""

from __future__ import annotations

import email.utils
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from ipaddress import ip_network
from types import TracebackType
from typing import Any, Final, NoReturn

import aiohttp
import msgspec
from attrs import define, field, frozen
from yarl import URL

from cells.garden.config import ImageSettings
from cells.garden.images import challenge
from cells.garden.images.challenge import Challenge, Credentials
from cells.outbound import reach
from cells.outbound.outbound import Kind, Outbound, Trouble, Ways
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import (
    DiegoError,
    ImageCorrupt,
    ImageNotFound,
    RegistryDenied,
    RegistryFailed,
    RegistryNotAllowed,
    RegistryRateLimited,
    RegistryUnreachable,
)
from diego_py.secret import Secret

CONNECT_TIMEOUT_S: Final = 5.0
REDIRECTS_MAX: Final = 5
WORDS_BYTES_MAX: Final = 16 * 1024
"""How much of a refusal's body is read."""
TOKEN_BYTES_MAX: Final = 64 * 1024
RETRY_AFTER_S_MAX: Final = 24 * 3600.0
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@frozen
class Endpoint:
    """A registry, or a mirror of one, and who we are there."""

    host: str
    credentials: Credentials | None = None
    plain: bool = False
    """Plain HTTP instead of TLS."""
    ours: bool = False
    """The operator named it: it may be at any address."""

    @property
    def url(self) -> URL:
        return URL(f"{'http' if self.plain else 'https'}://{self.host}")


@define
class RegistryClient:
    """An asynchronous context manager; its connections end with it."""

    endpoint: Endpoint
    repository: str
    settings: ImageSettings
    call: Call
    _outbound: Outbound = field(init=False, repr=False)
    _authorization: Secret = field(default=Secret(""), init=False, repr=False)

    async def __aenter__(self) -> RegistryClient:
        settings = self.settings
        ways = Ways(
            named=self._is_named,
            denied=tuple(ip_network(network) for network in settings.deny_networks),
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

    def _is_named(self, url: URL) -> bool:
        ours = self.endpoint.ours and _same_origin(url, self.endpoint.url)
        return ours or reach.is_named(url, self.settings.patterns)

    def border(self) -> AbstractContextManager[None]:
        """The border to the client that reads a body: its exceptions become ours."""
        return self._outbound.border(self.endpoint.url)

    async def read(self, path: str, bytes_max: int, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """A whole document and its media type. Raises what `get` does, and ImageCorrupt for one that is too long."""
        async with self.get(path, headers) as response:
            content = bytearray()
            with self.border():
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > bytes_max:
                        raise ImageCorrupt(f"a document is longer than {bytes_max} bytes", evidence={"path": path})
            return bytes(content), response.headers.get("Content-Type", "")

    @asynccontextmanager
    async def get(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 200 or 206 answer for `path` of the repository; reading its body needs `border`.

        Raises ImageNotFound, RegistryDenied, RegistryNotAllowed, RegistryRateLimited, RegistryUnreachable,
        RegistryFailed.
        """
        start = self.endpoint.url / "v2" / self.repository / path
        asked = False
        while True:
            async with self._followed(start, headers) as response:
                if response.status in (200, 206):
                    self._require_plain(response)
                    yield response
                    return
                if response.status != 401 or asked or not _same_origin(response.url, start):
                    await self._refuse(response)
                challenges = list(challenge.read(response.headers.getall("WWW-Authenticate", ())))
                words = await self._words(response)
            self._authorization = await self._answer(challenges, words)
            asked = True

    @asynccontextmanager
    async def _followed(self, start: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of the redirects. Our authorization goes to the registry itself and nowhere else."""
        url = start
        for _ in range(REDIRECTS_MAX):
            sent = dict(headers)
            if self._authorization and _same_origin(url, start):
                sent["Authorization"] = self._authorization.reveal()
            async with self._get(url, sent) as response:
                if response.status not in REDIRECTS:
                    yield response
                    return
                url = self._target(url, response)
        raise RegistryFailed(f"the registry redirects more than {REDIRECTS_MAX} times", evidence=_at(url))

    @asynccontextmanager
    async def _get(self, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        async with await self._outbound.request("GET", url, headers) as response:
            yield response

    def _target(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        try:
            target = url.join(URL(response.headers.get("Location", ""), encoded=True))
            allowed = reach.may_follow(url, target)
        except ValueError as malformed:
            raise RegistryFailed("the registry redirects to no address", evidence=_at(url)) from malformed
        if not allowed:
            told = f"the registry redirects to {target.scheme}://{target.host}, which is not followed"
            raise RegistryFailed(told, evidence=_at(url))
        return target

    async def _answer(self, challenges: list[Challenge], words: dict[str, Any]) -> Secret:
        """What to authorize with, as the registry wants it. Raises RegistryDenied and what `get` does."""
        credentials = self.endpoint.credentials
        for offered in challenges:
            if offered.scheme == "bearer":
                return await self._token(offered)
        for offered in challenges:
            if offered.scheme == "basic" and credentials is not None:
                self._require_confidential(self.endpoint.url)
                return credentials.basic()
        told = "asks for credentials and got none" if credentials is None else "offers no way to authorize that we know"
        raise RegistryDenied(f"{self.endpoint.host} {told}", evidence=words)

    async def _token(self, offered: Challenge) -> Secret:
        """Ask the service that the registry names for a token to pull this one repository."""
        realm = self._realm(offered)
        headers = {}
        if self.endpoint.credentials is not None:
            self._require_confidential(realm)
            headers["Authorization"] = self.endpoint.credentials.basic().reveal()
        scope = offered.parameters.get("scope") or f"repository:{self.repository}:pull"
        query = {"service": offered.parameters["service"]} if "service" in offered.parameters else {}
        async with self._get(realm.update_query({**query, "scope": scope}), headers) as response:
            if response.status != 200:
                await self._refuse(response)
            with self.border():
                content = await response.content.read(TOKEN_BYTES_MAX)
                while not response.content.at_eof() and len(content) < TOKEN_BYTES_MAX:
                    content += await response.content.read(TOKEN_BYTES_MAX)
        return Secret("Bearer " + _token_in(content, realm))

    def _realm(self, offered: Challenge) -> URL:
        here = _at(self.endpoint.url)
        try:
            realm = URL(offered.parameters.get("realm", ""))
            allowed = reach.may_follow(self.endpoint.url, realm)
        except ValueError as malformed:
            raise RegistryFailed("the registry names no service for tokens", evidence=here) from malformed
        if not allowed:
            told = f"the registry sends us for a token to {realm.scheme}://{realm.host}, which is not followed"
            raise RegistryFailed(told, evidence=here)
        return realm

    def _require_confidential(self, url: URL) -> None:
        if not challenge.is_confidential(url):
            told = f"{url.host} wants credentials over plain HTTP; they are only sent over TLS or to this machine"
            raise RegistryDenied(told, evidence=_at(url))

    def _require_plain(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise RegistryFailed("the registry encodes its answer, unasked", evidence=_at(response.url))

    async def _refuse(self, response: aiohttp.ClientResponse) -> NoReturn:
        """Raises what the status of a refusal means, with the registry's own words."""
        evidence = await self._words(response)
        host, status = response.url.authority, response.status
        retry_after_s = _retry_after_s(response.headers.get("Retry-After", ""), self.call)
        match status:
            case 401 | 403:
                told = "the credentials" if self.endpoint.credentials is not None else "to answer without credentials"
                raise RegistryDenied(f"{host} refused {told}", evidence=evidence)
            case 404:
                raise ImageNotFound(f"{host} has no such image or layer", evidence=evidence)
            case 416:
                raise ImageCorrupt(f"{host} has fewer bytes of the layer than were announced", evidence=evidence)
            case 429:
                raise RegistryRateLimited(f"{host} allows no more now", retry_after_s=retry_after_s, evidence=evidence)
            case _:
                raise RegistryFailed(f"{host} answered {status}", retry_after_s=retry_after_s, evidence=evidence)

    async def _words(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        content = b""
        with self.border():
            while len(content) < WORDS_BYTES_MAX and (chunk := await response.content.read(WORDS_BYTES_MAX)):
                content += chunk
        text = challenge.without(self._secrets(), content[:WORDS_BYTES_MAX].decode(errors="replace"))
        return {**_at(response.url), "status": response.status, "answer": chain.clip(text)}

    def _secrets(self) -> list[Secret]:
        credentials = self.endpoint.credentials
        own = [credentials.password, credentials.basic()] if credentials else []
        return [*own, self._authorization]

    def _error_of(self, url: URL, trouble: Trouble) -> DiegoError:
        host, reason = self.endpoint.host, trouble.reason
        match trouble.kind:
            case Kind.NOT_ALLOWED:
                return _not_allowed(url, reason)
            case Kind.AUTHORITIES:
                return self._unreachable("the authorities in the cell's registry_ca_file cannot be read", reason)
            case Kind.PROXY:
                return self._unreachable(f"the cell's image_proxy answered {trouble.status}", reason)
            case Kind.CONNECT:
                return self._unreachable(f"connect to {trouble.peer}: {reason}", reason)
            case Kind.SILENCE:
                return self._unreachable(f"{host} does not answer", reason or "silence")
            case Kind.NONSENSE:
                return RegistryFailed(f"{host} does not speak HTTP", evidence=_at(self.endpoint.url))
            case Kind.BROKEN:
                return self._unreachable(f"the connection to {host} broke", reason)

    def _unreachable(self, told: str, reason: str) -> DiegoError:
        return RegistryUnreachable(told, evidence={**_at(self.endpoint.url), "reason": reason})


def _not_allowed(url: URL, kind: str) -> RegistryNotAllowed:
    """The address itself is not told: what names mean inside is not for everybody."""
    told = f"the address of {url.host} is {kind}; the cell goes there only when its config names the registry"
    return RegistryNotAllowed(told, evidence={**_at(url), "address": kind})


def _at(url: URL) -> dict[str, Any]:
    """Where it was. Never the query: signed addresses have their signature there."""
    return {"at": str(url.with_query(None).with_user(None).with_fragment(None))[:1000]}


def _same_origin(url: URL, other: URL) -> bool:
    return url.origin() == other.origin()


def _token_in(content: bytes, realm: URL) -> str:
    """The token of a token service's answer, which must be one word."""
    try:
        document = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as malformed:
        raise RegistryFailed("the token service answered no JSON object", evidence=_at(realm)) from malformed
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise RegistryFailed("the token service answered no token", evidence=_at(realm))
    return token


def _retry_after_s(header: str, call: Call) -> float | None:
    """Seconds, from seconds or a date."""
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), RETRY_AFTER_S_MAX)
    try:
        until = email.utils.parsedate_to_datetime(header)
        return min(max(0.0, (until - call.clock.now()).total_seconds()), RETRY_AFTER_S_MAX)
    except (TypeError, ValueError, OverflowError):
        return None
