"""Downloading one URL into a file: attempts, size, and whether what is known already is still the same."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from typing import IO, Final

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from cells.executor.transfers.peer import Peer, at
from cells.executor.transfers.settings import TransferSettings
from cells.outbound.outbound import READ_BYTES
from diego_py.errors import (
    ChecksumMismatch,
    DownloadDenied,
    DownloadFailed,
    DownloadNotFound,
    DownloadTooLarge,
    TransferTimedOut,
    TransferUnreachable,
)
from diego_py.service.clock import Clock

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 5.0
"""Between two attempts: 0.5 s, doubled each time. Diego's."""
VERSION_CHARACTERS_MAX: Final = 1024


@frozen
class Checksum:
    """What the content has to be: `algorithm` is md5, sha1 or sha256."""

    algorithm: str
    value: str

    def check(self, file: IO[bytes]) -> None:
        """Raises ChecksumMismatch. Reads the whole file; blocking."""
        file.seek(0)
        digest = hashlib.new(self.algorithm, usedforsecurity=False)
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
        if digest.hexdigest() != self.value.lower():
            evidence = {"algorithm": self.algorithm, "wanted": self.value, "got": digest.hexdigest()}
            raise ChecksumMismatch(f"the {self.algorithm} of what came is another one", evidence=evidence)


@frozen
class Version:
    """What a server said a content is: enough to ask whether it changed."""

    etag: str = ""
    last_modified: str = ""

    @classmethod
    def said_in(cls, headers: Mapping[str, str]) -> Version:
        """What is too long to be kept counts as not said."""
        said = (headers.get("ETag", ""), headers.get("Last-Modified", ""))
        return cls(*(text if len(text) <= VERSION_CHARACTERS_MAX else "" for text in said))

    def headers(self) -> dict[str, str]:
        asked = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in asked.items() if value}


@define
class Fetch:
    """One URL. `known` is the version of a content that is here already."""

    url: str
    settings: TransferSettings
    clock: Clock
    known: Version = field(factory=Version)

    async def into(self, file: IO[bytes]) -> Version | None:
        """Write the content into an empty file; None, and nothing written, when it is still the known one.

        Raises TransferNotAllowed, TransferUnreachable, TransferTimedOut, DownloadNotFound, DownloadDenied,
        DownloadTooLarge, DownloadFailed, OSError.
        """
        try:
            async with asyncio.timeout(self.settings.total_s) as scope:
                return await self._attempts(file)
        except TimeoutError as late:
            if not scope.expired():
                raise
            evidence = {**at(URL(self.url)), "limit_s": self.settings.total_s}
            raise TransferTimedOut(f"not done in {self.settings.total_s:g} s", evidence=evidence) from late

    async def _attempts(self, file: IO[bytes]) -> Version | None:
        pause_s = BACKOFF_MIN_S
        for attempt in range(1, self.settings.attempts_max + 1):
            try:
                return await self._once(file)
            except (TransferUnreachable, TransferTimedOut, DownloadFailed) as failure:
                if attempt == self.settings.attempts_max or not _may_pass(failure):
                    raise
            file.seek(0)
            file.truncate()
            await self.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)
        raise AssertionError("attempts_max is at least 1")

    async def _once(self, file: IO[bytes]) -> Version | None:
        async with Peer(self.settings) as peer, peer.get(self.url, self.known.headers()) as response:
            if response.status == 304 and self.known.headers():
                return None
            if response.status != 200:
                raise _refusal(response)
            if response.content_length is not None:
                self._allow(response.content_length, response.url)
            with peer.border(response.url):
                await self._copy(response, file)
            return Version.said_in(response.headers)

    async def _copy(self, response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
        size = 0
        async for chunk in response.content.iter_chunked(READ_BYTES):
            size += len(chunk)
            self._allow(size, response.url)
            file.write(chunk)
        file.flush()

    def _allow(self, size: int, url: URL) -> None:
        limit = self.settings.download_bytes_max
        if size > limit:
            told = f"the file is larger than {limit} bytes"
            raise DownloadTooLarge(told, evidence={**at(url), "limit_bytes": limit})


def _may_pass(failure: Exception) -> bool:
    """Whether another attempt may do better: what a server answered on purpose it will answer again."""
    if isinstance(failure, DownloadFailed):
        status = (failure.evidence or {}).get("status")
        return isinstance(status, int) and (status >= 500 or status == 429)
    return True


def _refusal(response: aiohttp.ClientResponse) -> DownloadFailed | DownloadNotFound | DownloadDenied:
    evidence = {**at(response.url), "status": response.status}
    told = f"{response.url.host} answered {response.status}"
    match response.status:
        case 404 | 410:
            return DownloadNotFound(told, evidence=evidence)
        case 401 | 403:
            return DownloadDenied(told, evidence=evidence)
        case _:
            return DownloadFailed(told, evidence=evidence)


def size_of(file: IO[bytes]) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size
