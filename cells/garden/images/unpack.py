"""Unpacking an archive nobody trusts into a directory: a child in a chroot does it, under limits; nothing escapes it.

The child (`unpacker/`) has the archive as its input, the target as its root, a network namespace of its own, and the
capabilities to own and label files. It dies with this process. What it says is checked, never executed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from cells.garden import children
from diego_py.chain import clip
from diego_py.errors import (
    ArchiveCorrupt,
    ArchiveTooLarge,
    ArchiveUnsafe,
    ArchiveUnsupported,
    DiegoError,
    NoSpace,
    UnpackFailed,
)

Kind = Literal["tar", "tgz", "zip", "rootfs", "layer"]
"""`tar` in any compression of ours, `tgz` with gzip only. `rootfs` is a tar of a whole system: it keeps set-user-id
bits and attributes. So does a `layer` of an image, which may also hide what is below it."""

ANSWER_BYTES_MAX = 128 * 1024 * 1024
READ_BYTES = 64 * 1024
SHOWN_BYTES_MAX = 200
ROOT = str(Path(__file__).parents[3])
START = (
    "import sys; sys.path[:0] = sys.argv[1:4]; "
    "from cells.garden.images.unpacker.main import main; main(sys.argv[4:])"
)
ISOLATED = ("--net", "--ipc")
KINDS: dict[bytes, type[DiegoError]] = {
    b"corrupt": ArchiveCorrupt,
    b"unsafe": ArchiveUnsafe,
    b"too_large": ArchiveTooLarge,
    b"unsupported": ArchiveUnsupported,
}


@frozen
class UnpackLimits:
    """What one archive may make and take."""

    bytes_max: int = 16 * 1024**3
    """Of all files together, unpacked."""
    entries_max: int = 1_000_000
    depth_max: int = 100
    """Directories below each other."""
    ratio_max: int = 250
    """Unpacked size to packed size; text of one letter has 1000."""
    ratio_free_bytes: int = 64 * 1024**2
    """Up to this unpacked size the ratio does not matter."""
    cpu_s: int = 600
    wall_s: float = 1800.0

    @property
    def archive_bytes_max(self) -> int:
        """Of the archive itself: content, and headers of a usual size."""
        return self.bytes_max + 2048 * self.entries_max


@frozen
class Owner:
    """Whose the files become."""

    uid: int
    gid: int


@frozen
class Unpacked:
    """What was made."""

    entries: int
    size_bytes: int
    """Of the files' content."""
    disk_bytes: int
    """About what it takes on disk."""
    devices_skipped: int
    diff_id: str
    """`sha256:…` of the tar archive inside; empty unless the kind is `layer`."""
    opaque: tuple[bytes, ...] = field(default=(), repr=False)
    """Directories of a layer that hide those below; whoever mounts it must say so to overlayfs."""
    implicit: tuple[bytes, ...] = field(default=(), repr=False)
    """Directories of a layer without an entry of their own; `b""` is its root."""


async def extract(
    archive_fd: int,
    kind: Kind,
    target: Path | int,
    limits: UnpackLimits = UnpackLimits(),
    ids: Owner | int = 0,
) -> Unpacked:
    """Unpack what `archive_fd` gives (a file; a zip must be one) into an existing directory, a path or a descriptor.

    `ids`: everything is the given owner's, or the archive's own ids are raised by a number. What was unpacked before a
    failure stays: whoever asked removes the target. A cancelled caller waits until the child is dead.

    Raises ArchiveCorrupt, ArchiveUnsafe, ArchiveTooLarge, ArchiveUnsupported, NoSpace, UnpackFailed, OSError for the
    target, RuntimeMissing.
    """
    if kind == "zip":
        os.lseek(archive_fd, 0, os.SEEK_SET)
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(target, Path) else target
    try:
        child = await children.spawn(
            _argv(kind, target_fd, limits, ids),
            stdin=archive_fd,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(target_fd,),
            env={"LC_ALL": "C.UTF-8"},
        )
        answer, told, late = await _finish(child, limits.wall_s)
        free = os.fstatvfs(target_fd)
    finally:
        if isinstance(target, Path):
            os.close(target_fd)
    if late:
        raise ArchiveTooLarge(f"unpack: not done in {limits.wall_s:.0f} s", evidence={"limit": "wall_s"})
    return _read(child.returncode or 0, answer, told, limits, free)


async def _finish(child: asyncio.subprocess.Process, wall_s: float) -> tuple[bytes, bytes, bool]:
    """What it wrote, to both ends, once it is dead; and whether that was for time."""
    assert child.stdout is not None
    assert child.stderr is not None
    outputs = asyncio.gather(_all_of(child.stdout, ANSWER_BYTES_MAX), _all_of(child.stderr, READ_BYTES))
    late = False
    try:
        async with asyncio.timeout(wall_s):
            await asyncio.shield(outputs)
    except TimeoutError:
        late = True
    finally:
        if not outputs.done():
            child.kill()
        await children.uninterrupted(child.wait())
    answer, told = await outputs
    return answer, told, late


async def _all_of(stream: asyncio.StreamReader, most: int) -> bytes:
    """Reads to the end, so that the writer never waits; keeps the first so many bytes."""
    kept = bytearray()
    while data := await stream.read(READ_BYTES):
        kept += data[: most - len(kept)]
    return bytes(kept)


def _argv(kind: Kind, target_fd: int, limits: UnpackLimits, ids: Owner | int) -> list[str]:
    options: dict[str, object] = {
        "kind": kind,
        "target": target_fd,
        "parent": os.getpid(),
        "first_id": 0 if isinstance(ids, Owner) else ids,
        "bytes_max": limits.bytes_max,
        "entries_max": limits.entries_max,
        "depth_max": limits.depth_max,
        "ratio_max": limits.ratio_max,
        "ratio_free_bytes": limits.ratio_free_bytes,
        "cpu_s": limits.cpu_s,
    }
    if isinstance(ids, Owner):
        options["owner"] = f"{ids.uid}:{ids.gid}"
    unshare = shutil.which("unshare") or "unshare"
    python = [sys.executable, "-I", "-S", "-c", START, ROOT, *_packages()]
    return [unshare, *ISOLATED, "--", *python, *(f"{name}={value}" for name, value in options.items())]


@cache
def _packages() -> tuple[str, str]:
    """Where the child finds what it imports besides the standard library; the same place twice, as a rule."""
    import prctl

    place = str(Path(prctl.__file__).parent)
    if sys.version_info >= (3, 14):
        return place, place
    from backports import zstd

    return place, str(Path(zstd.__file__).parents[2])


def _read(status: int, answer: bytes, told: bytes, limits: UnpackLimits, free: os.statvfs_result) -> Unpacked:
    """The child's answer as a value or an error. Nothing in it is believed to be well-formed."""
    evidence = {"status": status, "stderr": clip(told.decode(errors="replace"))}
    if status == -signal.SIGXCPU:
        raise ArchiveTooLarge(f"unpack: it takes more than {limits.cpu_s} s of processor time", evidence=evidence)
    fields = answer.split(b"\0")[:-1]
    if status != 0 or not fields:
        raise UnpackFailed("unpack: the unpacker ended without an answer", evidence=evidence)
    if fields[0] == b"refused" and len(fields) == 4:
        raise _refusal(fields[1], fields[2], fields[3], free)
    try:
        if fields[0] != b"done":
            raise ValueError("unknown word")
        entries, size, disk_bytes, devices = (int(number) for number in fields[1:5])
        digest = fields[5].decode()
    except (ValueError, IndexError) as garbled:
        raise UnpackFailed("unpack: the unpacker's answer makes no sense", evidence=evidence) from garbled
    return Unpacked(
        entries=entries,
        size_bytes=size,
        disk_bytes=disk_bytes,
        devices_skipped=devices,
        diff_id=f"sha256:{digest}" if digest else "",
        opaque=tuple(mark[1:] for mark in fields[6:] if mark.startswith(b"o")),
        implicit=tuple(mark[1:] for mark in fields[6:] if mark.startswith(b"i")),
    )


def _refusal(kind: bytes, rule: bytes, entry: bytes, free: os.statvfs_result) -> DiegoError:
    name, words = entry[:SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace"), rule.decode("utf-8", "backslashreplace")
    about = f" {name!r}" if name else ""
    if kind == b"no_space":
        figures = {"free_bytes": free.f_bavail * free.f_frsize, "free_inodes": free.f_favail, "errno": words}
        return NoSpace(f"unpack{about}: no space left", evidence={"entry": name, **figures})
    failure = KINDS.get(kind, UnpackFailed)
    return failure(f"unpack{about}: {words}", evidence={"entry": name, "rule": words})


__all__ = ["Kind", "Owner", "UnpackLimits", "Unpacked", "extract"]
