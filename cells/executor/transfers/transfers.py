"""What steps call: a URL into a container, a file of a container to a URL."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import IO, Final, Protocol

from attrs import define, field, frozen
from yarl import URL

from cells.executor.backend import ContainerBackend
from cells.executor.transfers import archives
from cells.executor.transfers.cache import Cache
from cells.executor.transfers.disk import disk_errors
from cells.executor.transfers.fetch import BACKOFF_MAX_S, BACKOFF_MIN_S, Checksum, size_of
from cells.executor.transfers.peer import Peer, at
from cells.executor.transfers.settings import TransferSettings
from cells.garden.children import in_thread
from cells.garden.images.unpack import UnpackLimits
from cells.outbound.outbound import READ_BYTES
from diego_py.call import Call
from diego_py.errors import (
    DiegoError,
    Fault,
    TransferTimedOut,
    TransferUnreachable,
    UploadFailed,
    UploadMissing,
    UploadTooLarge,
)
from diego_py.service.clock import Clock

HEADERS_BYTES_MAX: Final = 64 * 1024
"""Of a tar stream of one file, beside its content."""


@frozen
class Source:
    """What to download."""

    url: str
    cache_key: str = ""
    checksum: Checksum | None = None


class FileTransfers(Protocol):
    """Transfers of one cell."""

    async def download(self, call: Call, handle: str, source: Source, to: str, user: str) -> int:
        """Unpack an archive below a path of a container, as a user of it; returns the bytes of the archive."""

    async def upload(self, call: Call, handle: str, path: str, url: str, user: str) -> int:
        """Send a file of a container; returns its bytes."""


@define
class Transfers:
    """Over HTTP. Nothing is made or opened before the first transfer."""

    garden: ContainerBackend
    settings: TransferSettings
    limits: UnpackLimits
    clock: Clock
    _cache: Cache = field(init=False)
    _downloads: asyncio.Semaphore = field(init=False)
    _uploads: asyncio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._cache = Cache(self.settings, self.clock)
        self._downloads = asyncio.Semaphore(self.settings.at_once_max)
        self._uploads = asyncio.Semaphore(self.settings.at_once_max)

    async def download(self, call: Call, handle: str, source: Source, to: str, user: str) -> int:
        """Raises what Cache.content and garden's stream_in do, and ArchiveUnsafe and its like."""
        async with self._downloads, self._cache.content(source.url, source.cache_key, source.checksum) as file:
            async with archives.unpacked(file, self.settings.directory, self.limits) as stream:
                await self.garden.stream_in(call, handle, to, stream, user)
            return size_of(file)

    async def upload(self, call: Call, handle: str, path: str, url: str, user: str) -> int:
        """Raises UploadMissing, UploadTooLarge, UploadFailed, TransferNotAllowed, TransferUnreachable,
        TransferTimedOut, NoSpace, TransfersBroken."""
        async with self._uploads, self._fetched(call, handle, path, user) as file:
            try:
                async with asyncio.timeout(self.settings.total_s) as scope:
                    await self._send(file, url)
            except TimeoutError as late:
                if not scope.expired():
                    raise
                evidence = {**at(URL(url)), "limit_s": self.settings.total_s}
                raise TransferTimedOut(f"not done in {self.settings.total_s:g} s", evidence=evidence) from late
            return size_of(file)

    async def _send(self, file: IO[bytes], url: str) -> None:
        digest = await in_thread(_md5, file)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_of(file)),
            "Content-MD5": base64.b64encode(digest).decode(),
        }
        pause_s = BACKOFF_MIN_S
        for attempt in range(1, self.settings.attempts_max + 1):
            try:
                return await self._post(file, url, headers)
            except (TransferUnreachable, TransferTimedOut):
                if attempt == self.settings.attempts_max:
                    raise
            await self.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    async def _post(self, file: IO[bytes], url: str, headers: dict[str, str]) -> None:
        with os.fdopen(os.dup(file.fileno()), "rb") as body:  # Who sends it closes it.
            body.seek(0)
            async with Peer(self.settings) as peer, peer.post(url, headers, body) as response:
                if not 200 <= response.status < 300:
                    told = f"{response.url.host} answered {response.status}"
                    raise UploadFailed(told, evidence={**at(response.url), "status": response.status})

    @asynccontextmanager
    async def _fetched(self, call: Call, handle: str, path: str, user: str) -> AsyncIterator[IO[bytes]]:
        """The content of a container's file, as a file that has no name."""
        directory = self.settings.directory
        with ExitStack() as files:
            with disk_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                packed = files.enter_context(tempfile.TemporaryFile(dir=directory))
                await self._pack(call, handle, path, user, packed)
                file = files.enter_context(tempfile.TemporaryFile(dir=directory))
                await in_thread(_extract, packed, file, path)
            yield file

    async def _pack(self, call: Call, handle: str, path: str, user: str, packed: IO[bytes]) -> None:
        size, limit = 0, self.settings.upload_bytes_max
        try:
            async with aclosing(self.garden.stream_out(call, handle, path, user)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit + HEADERS_BYTES_MAX:
                        raise UploadTooLarge(f"{path} is larger than {limit} bytes", evidence={"limit_bytes": limit})
                    packed.write(chunk)
        except DiegoError as failure:
            if failure.root.fault is Fault.PLATFORM or isinstance(failure, UploadTooLarge):
                raise
            raise UploadMissing(f"read {path}") from failure


def _md5(file: IO[bytes]) -> bytes:
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
    return digest.digest()


def _extract(packed: IO[bytes], file: IO[bytes], path: str) -> None:
    packed.seek(0)
    try:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isreg() else None
            if content is None:
                raise UploadMissing(f"read {path}: it is no file")
            while chunk := content.read(READ_BYTES):
                file.write(chunk)
    except tarfile.TarError as garbled:
        raise UploadMissing(f"read {path}: what came makes no sense") from garbled
    file.flush()
    file.seek(0)
