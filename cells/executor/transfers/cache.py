"""Downloads that are kept: by key and URL, asked anew each time whether they changed, the least used given up first.

A content is handed out as an open file: whoever reads it goes on reading when it is given up or replaced meanwhile. A
key of one URL says nothing of another URL, so nobody can put a content under a name that somebody else fetches.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from attrs import asdict, define, evolve, field, frozen

from cells.executor.transfers.fetch import Checksum, Fetch, Version, size_of
from cells.executor.transfers.settings import TransferSettings
from cells.garden.children import in_thread
from diego_py.errors import ChecksumMismatch, NoSpace
from diego_py.service.clock import Clock

INDEX: Final = "index.json"
PART: Final = ".part"
NAME_BYTES: Final = 16


@frozen
class Entry:
    """One content on disk."""

    file: str
    size_bytes: int
    etag: str
    last_modified: str
    used: int
    """When it was used last: a number that rises."""

    @property
    def version(self) -> Version:
        return Version(self.etag, self.last_modified)


@define
class Cache:
    """The directory, made when it is first used. Only the event loop's thread touches the entries."""

    settings: TransferSettings
    clock: Clock
    _entries: dict[str, Entry] | None = field(default=None, init=False)
    _locks: dict[str, asyncio.Lock] = field(factory=dict, init=False)
    _asked: dict[str, int] = field(factory=dict, init=False)
    """How often each content was found to be the present one."""

    @asynccontextmanager
    async def content(self, url: str, cache_key: str, checksum: Checksum | None) -> AsyncIterator[IO[bytes]]:
        """The content of a URL as an open file; through the cache with a key, else only for this once.

        Who asks for the same at the same time waits for the first, and shares what that one gets. Raises what Fetch
        does, ChecksumMismatch, NoSpace.
        """
        with _disk_errors(self.settings.directory):
            self._prepare()
            cached = bool(cache_key)
            file = await (self._cached(url, _name(url, cache_key), checksum) if cached else self._once(url, checksum))
        with file:
            yield file

    async def _once(self, url: str, checksum: Checksum | None) -> IO[bytes]:
        file, path = self._new()
        try:
            path.unlink()
            await Fetch(url, self.settings, self.clock).into(file)
            if checksum is not None:
                await in_thread(checksum.check, file)
        except BaseException:
            file.close()
            raise
        return file

    async def _cached(self, url: str, name: str, checksum: Checksum | None) -> IO[bytes]:
        asked = self._asked.get(name, 0)
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            entry = self._known.get(name)
            if entry is not None and self._asked.get(name, 0) > asked:
                file = self._opened(entry)  # Somebody was told so since we came.
            else:
                file = await self._current(url, name, entry)
            try:
                if checksum is not None:
                    await in_thread(checksum.check, file)
            except ChecksumMismatch:
                file.close()
                self._forget(name)
                if entry is None:
                    raise
                return await self._checked(await self._current(url, name, None), name, checksum)
            except BaseException:
                file.close()
                raise
        return file

    async def _checked(self, file: IO[bytes], name: str, checksum: Checksum | None) -> IO[bytes]:
        """What came anew, after what was kept turned out to be another one. Raises ChecksumMismatch."""
        try:
            assert checksum is not None
            await in_thread(checksum.check, file)
        except BaseException:
            file.close()
            self._forget(name)
            raise
        return file

    async def _current(self, url: str, name: str, entry: Entry | None) -> IO[bytes]:
        """The content that the server has now."""
        file, path = self._new()
        try:
            known = Version() if entry is None else entry.version
            version = await Fetch(url, self.settings, self.clock, known).into(file)
            if version is None:
                assert entry is not None
                file.close()
                path.unlink()
                file = self._opened(entry)
                self._enter(name, entry)
            else:
                path.rename(kept := path.with_suffix(""))
                self._forget(name)
                self._enter(name, Entry(kept.name, size_of(file), version.etag, version.last_modified, 0))
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        self._asked[name] = self._asked.get(name, 0) + 1
        return file

    def _enter(self, name: str, entry: Entry) -> None:
        """Keep it as the one used last, and give up others until all fit."""
        entries = self._known
        entries[name] = evolve(entry, used=1 + max((known.used for known in entries.values()), default=0))
        while sum(known.size_bytes for known in entries.values()) > self.settings.cache_bytes_max:
            self._forget(min(entries, key=lambda other: entries[other].used))
        self._save()

    def _forget(self, name: str) -> None:
        entry = self._known.pop(name, None)
        if entry is not None:
            (self.settings.directory / entry.file).unlink(missing_ok=True)

    def _opened(self, entry: Entry) -> IO[bytes]:
        return (self.settings.directory / entry.file).open("rb")

    def _new(self) -> tuple[IO[bytes], Path]:
        path = self.settings.directory / f"{secrets.token_hex(NAME_BYTES)}{PART}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "w+b"), path

    @property
    def _known(self) -> dict[str, Entry]:
        assert self._entries is not None
        return self._entries

    def _prepare(self) -> None:
        """Read what an earlier process kept, and remove what it did not finish."""
        if self._entries is not None:
            return
        directory = self.settings.directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._entries = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            kept = {name: Entry(**told) for name, told in json.loads((directory / INDEX).read_bytes()).items()}
            self._entries = {name: entry for name, entry in kept.items() if (directory / entry.file).is_file()}
        files = {INDEX, *(entry.file for entry in self._entries.values())}
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in files:
                path.unlink()

    def _save(self) -> None:
        """By rename. Not synced: after a loss of power the cache is empty at worst."""
        draft = self.settings.directory / f"{INDEX}{PART}"
        draft.write_text(json.dumps({name: asdict(entry) for name, entry in self._known.items()}))
        draft.replace(self.settings.directory / INDEX)


def _name(url: str, cache_key: str) -> str:
    return hashlib.sha256(f"{cache_key}\0{url}".encode()).hexdigest()


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as refused:
        free = os.statvfs(directory)
        evidence = {"errno": refused.errno, "free_bytes": free.f_bavail * free.f_frsize}
        raise NoSpace("keep a download on the disk of the cell", evidence=evidence) from refused
