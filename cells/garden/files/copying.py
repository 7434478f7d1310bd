"""Starting and ending the child that moves files in or out of a container, and what its failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

from attrs import define

from cells.garden import children, processes, streams, users
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.users import Identity
from diego_py.errors import (
    ArchiveRefused,
    DiegoError,
    FileDenied,
    FileKindWrong,
    FileMissing,
    FilesFailed,
    FilesNoSpace,
    FilesTooLarge,
    IllegalTransition,
    InvalidSpec,
    PoolExhausted,
    WorkingDirectoryInvalid,
)

PROGRAM = str(Path(__file__).with_name("inside.py"))
CHUNK_BYTES = 256 * 1024
ERROR_BYTES_MAX = 64 * 1024
COPIES_MAX = 8
"""Copies of one container at a time."""
KINDS: dict[str, type[FilesFailed]] = {
    "ENOENT": FileMissing,
    "ENOTDIR": FileKindWrong,
    "EISDIR": FileKindWrong,
    "EEXIST": FileKindWrong,
    "ELOOP": FileKindWrong,
    "EACCES": FileDenied,
    "EPERM": FileDenied,
    "EROFS": FileDenied,
    "EFBIG": FilesTooLarge,
    "ENAMETOOLONG": FilesTooLarge,
    "too_large": FilesTooLarge,
    "too_many": FilesTooLarge,
    "too_deep": FilesTooLarge,
    "ENOSPC": FilesNoSpace,
    "EDQUOT": FilesNoSpace,
    "archive": ArchiveRefused,
    "unsafe_name": ArchiveRefused,
    "device": ArchiveRefused,
}
"""What the child says, and what it means. Anything else is a FilesFailed."""


@define(eq=False)
class Copy:
    """A child at work inside a container.

    Its pipes are our own, not asyncio's: with those, nobody learns of its end before everything is read.
    """

    child: asyncio.subprocess.Process
    what: str
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    _outputs: tuple[asyncio.BaseTransport, asyncio.BaseTransport]

    async def failure(self) -> DiegoError | None:
        """Wait for its end; why it failed, if it did."""
        said = await self.stderr.read(ERROR_BYTES_MAX)
        await self.child.wait()
        if self.child.returncode == 0:
            return None
        try:
            evidence = json.loads(said)
        except ValueError:
            evidence = {"kind": f"status {self.child.returncode}", "path": said.decode(errors="replace")}
        kind = str(evidence.get("kind"))
        return KINDS.get(kind, FilesFailed)(f"{self.what}: {kind} at {evidence.get('path')}", evidence=evidence)

    def kill(self) -> None:
        """Send it SIGKILL. Who reads or writes sees the end."""
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.kill()

    async def close(self) -> None:
        """Make sure that it is gone, and give back its pipes."""
        self.kill()
        await children.uninterrupted(self.child.wait())
        streams.drop(self.stdin)
        for output in self._outputs:
            output.close()


@contextlib.asynccontextmanager
async def begin(host: Host, box: Box, do: str, path: str, identity: Identity) -> AsyncIterator[Copy]:
    """A child that does it, as this user, for as long as the block takes. Destroying the container ends it.

    Raises InvalidSpec, IllegalTransition, PoolExhausted, OSError.
    """
    check_path(path)
    _check_lives(box)
    if len(box.copies) + box.copies_begun.count >= COPIES_MAX:
        raise PoolExhausted(f"{box.handle} has its {COPIES_MAX} copies", evidence={"pool": "copies"})
    begun: list[Copy] = []
    try:
        await children.uninterrupted(_begin(host, box, do, path, identity, begun))
        _check_lives(box)
        yield begun[0]
    finally:
        for copy in begun:
            await copy.close()
            box.copies.discard(copy)


async def _begin(host: Host, box: Box, do: str, path: str, identity: Identity, begun: list[Copy]) -> None:
    """Whoever destroys the container waits until the child is among those that he kills."""
    with box.copies_begun.one():
        begun.append(await _spawn(host, box, do, path, identity))
        box.copies.add(begun[0])
        if box.record.phase == "destroying":
            begun[0].kill()


def _check_lives(box: Box) -> None:
    """Raises IllegalTransition."""
    if box.record.phase == "destroying":
        raise IllegalTransition(f"copy files of {box.handle}, which is being destroyed")


async def _spawn(host: Host, box: Box, do: str, path: str, identity: Identity) -> Copy:
    with contextlib.ExitStack() as doors:
        job = await _doors(host, box, doors)
        fds = tuple(fd for fd in job.values() if fd is not None)
        job |= {"do": do, "path": path, "fds": fds}
        job |= {"bytes_max": host.config.copy_bytes_max, "entries_max": host.config.copy_entries_max}
        job |= {"uid": identity.uid, "gid": identity.gid, "groups": identity.groups}
        ours, theirs = streams.pipes()
        try:
            child = await children.spawn(
                children.bound_to_us([sys.executable, "-I", PROGRAM, json.dumps(job)]),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                pass_fds=fds,
                cwd="/",
            )
        except BaseException:
            streams.close(ours)
            raise
        finally:
            streams.close(theirs)
    stdin = await streams.writer(ours[0])
    (stdout, out), (stderr, err) = await streams.reader(ours[1]), await streams.reader(ours[2])
    return Copy(child, f"copy {do} {path}", stdin, stdout, stderr, (out, err))


async def _doors(host: Host, box: Box, doors: contextlib.ExitStack) -> dict[str, Any]:
    """Descriptors of where to go: the namespaces of the container's process, or the root of one that has ended."""

    def opened(path: str, flags: int = 0) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        doors.callback(os.close, fd)
        return fd

    if not box.ended.done():
        with contextlib.suppress(OSError):
            ways: dict[str, int | None] = {"user_namespace": None}
            if not box.record.privileged:
                ways["user_namespace"] = opened(f"/proc/{box.init.pid}/ns/user")
            ways["mounts"] = opened(f"/proc/{box.init.pid}/ns/mnt")
            pidfd = processes.open_pidfd(box.init)
            if pidfd is not None:  # Then they are its own, not those of a later process with its pid.
                os.close(pidfd)
                return {**ways, "root": None}
    namespace = None if box.record.privileged else opened(box.namespaces["user"])
    root = opened(str(box.directory.rootfs), os.O_PATH | os.O_DIRECTORY)
    return {"user_namespace": namespace, "mounts": None, "root": root}


def check_path(path: str) -> None:
    """Raises InvalidSpec."""
    if not path.startswith("/") or "\0" in path or len(path.encode()) >= os.pathconf("/", "PC_PATH_MAX"):
        raise InvalidSpec(f"path {path!r}", errors=[{"pointer": "/path", "detail": "an absolute path"}])


async def send(host: Host, box: Box, path: str, archive: AsyncIterable[bytes], user: str) -> None:
    """Unpack a tar stream below `path`. Raises UserNotFound, FilesFailed; what was unpacked before stays."""
    identity = _identity(box, user)
    async with begin(host, box, "in", os.path.join(identity.home, path), identity) as copy:
        async for chunk in archive:
            if not await _takes(copy, chunk):
                break
        copy.stdin.close()
        if failure := await copy.failure():
            raise failure


async def _takes(copy: Copy, chunk: bytes) -> bool:
    """Give it more; False when it gave up, and says why."""
    try:
        copy.stdin.write(chunk)
        await copy.stdin.drain()
    except ConnectionError:
        return False
    return True


async def fetch(host: Host, box: Box, path: str, user: str) -> AsyncGenerator[bytes, None]:
    """The tar stream of what is at `path`. Raises UserNotFound, FilesFailed, at the latest at its end."""
    identity = _identity(box, user)
    async with begin(host, box, "out", os.path.join(identity.home, path), identity) as copy:
        while chunk := await copy.stdout.read(CHUNK_BYTES):
            yield chunk
        if failure := await copy.failure():
            raise failure


def _identity(box: Box, user: str) -> Identity:
    return users.look_up(str(box.directory.rootfs), user)


async def make_directory(host: Host, box: Box, path: str, identity: Identity) -> None:
    """Make a process's working directory, the user's own, if it is missing. Raises WorkingDirectoryInvalid."""
    async with begin(host, box, "directory", path, identity) as copy:
        failure = await copy.failure()
    if failure is not None:
        raise WorkingDirectoryInvalid(f"make working directory {path}", evidence=failure.evidence) from failure


def kill_all(box: Box) -> None:
    """Kill the children at work in a container, whatever those who began them do."""
    for copy in box.copies:
        copy.kill()


async def none(box: Box) -> None:
    """Return when none is at work, and none is about to be."""
    await box.copies_begun.none()
    for copy in list(box.copies):
        await copy.child.wait()
