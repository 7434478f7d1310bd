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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from attrs import asdict, define, evolve, field, frozen

from cells.executor.transfers.disk import disk_errors
from cells.executor.transfers.fetch import Checksum, Fetch, Version, size_of
from cells.executor.transfers.settings import TransferSettings
from cells.garden.children import in_thread
from diego_py.errors import ChecksumMismatch
from diego_py.service.clock import Clock

INDEX: Final = "index.json"
PART: Final = ".part"
NAME_BYTES: Final = 16
ENTRIES_MAX: Final = 1000
"""Contents that are kept, however small they are: all are written down each time."""


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


@frozen
class Kept:
    """A content that is on disk, open: it can be read also when it is given up meanwhile."""

    entry: Entry
    file: IO[bytes]


@define(eq=False)
class Askers:
    """Those who ask for one content at the same time."""

    count: int = 0
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    answers: int = 0
    """How often it was found to be the present one."""


@define
class Cache:
    """The directory, made when it is first used. Only the event loop's thread touches the entries."""

    settings: TransferSettings
    clock: Clock
    _entries: dict[str, Entry] | None = field(default=None, init=False)
    _asking: dict[str, Askers] = field(factory=dict, init=False)

    @asynccontextmanager
    async def content(self, url: str, cache_key: str, checksum: Checksum | None) -> AsyncIterator[IO[bytes]]:
        """The content of a URL as an open file; through the cache with a key, else only for this once.

        Who asks for the same at the same time waits for the first, and shares what that one gets. Raises what Fetch
        does, ChecksumMismatch, NoSpace, TransfersBroken.
        """
        with disk_errors(self.settings.directory):
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
        askers = self._asking.setdefault(name, Askers())
        askers.count += 1
        answers = askers.answers
        try:
            async with askers.lock:
                kept = self._kept(name)
                if kept is not None and askers.answers > answers:
                    file = kept.file  # Somebody was told so since we came.
                else:
                    file = await self._current(url, name, kept)
                    askers.answers += 1
                return await self._right(file, url, name, kept is not None, checksum)
        finally:
            askers.count -= 1
            if askers.count == 0:
                del self._asking[name]

    async def _right(
        self, file: IO[bytes], url: str, name: str, was_kept: bool, checksum: Checksum | None
    ) -> IO[bytes]:
        """The content, if it is the right one; when what was kept is not, what the server has. Else nothing is kept."""
        try:
            if checksum is not None:
                await in_thread(checksum.check, file)
        except BaseException as wrong:
            file.close()
            if not isinstance(wrong, ChecksumMismatch):
                raise
            self._forget(name)
            if not was_kept:
                raise
            return await self._right(await self._current(url, name, None), url, name, False, checksum)
        return file

    async def _current(self, url: str, name: str, kept: Kept | None) -> IO[bytes]:
        """The content that the server has now. What was kept is closed, unless it is that."""
        file, path = self._new()
        with contextlib.ExitStack() as outdated:
            try:
                if kept is not None:
                    outdated.enter_context(kept.file)
                known = Version() if kept is None else kept.entry.version
                version = await Fetch(url, self.settings, self.clock, known).into(file)
                if version is not None:
                    path.rename(whole := path.with_suffix(""))
                    self._forget(name)
                    self._enter(name, Entry(whole.name, size_of(file), version.etag, version.last_modified, 0))
                    return file
            except BaseException:
                file.close()
                path.unlink(missing_ok=True)
                raise
            file.close()
            path.unlink()
            assert kept is not None
            if name in self._known:  # Else others have taken its room meanwhile.
                self._enter(name, kept.entry)
            outdated.pop_all()
            return kept.file

    def _enter(self, name: str, entry: Entry) -> None:
        """Keep it as the one used last, and give up others until all fit."""
        entries = self._known
        entries[name] = evolve(entry, used=1 + max((known.used for known in entries.values()), default=0))
        bytes_max = self.settings.cache_bytes_max
        while len(entries) > ENTRIES_MAX or sum(known.size_bytes for known in entries.values()) > bytes_max:
            self._forget(min(entries, key=lambda other: entries[other].used))
        self._save()

    def _forget(self, name: str) -> None:
        entry = self._known.pop(name, None)
        if entry is not None:
            (self.settings.directory / entry.file).unlink(missing_ok=True)

    def _kept(self, name: str) -> Kept | None:
        """What there is of this name; nothing when somebody took the file away."""
        entry = self._known.get(name)
        if entry is None:
            return None
        try:
            return Kept(entry, (self.settings.directory / entry.file).open("rb"))
        except FileNotFoundError:
            self._forget(name)
            return None

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
