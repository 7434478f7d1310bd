"""A file system of its own for each volume: a sparse ext4 image, mounted by a loop device. Nothing of it is shared.

The image is beside the volume, `.NAME.ext4`: whoever finds one of the two knows of the other.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Set
from pathlib import Path

from attrs import frozen

from cells.garden import kernel as mounts
from cells.garden.quota import kernel, trees
from cells.garden.quota.driver import VOLUME_MODE, Request
from cells.garden.spec import DiskUsage

MKFS = "mkfs.ext4"
MKFS_TIMEOUT_S = 60.0
FEATURES = "^has_journal,^resize_inode"
"""No journal: after the host died there is no container to whom the content matters."""
INODE_BYTES = 256
INODES_OF_EXT4 = 16
"""ext4's own, and some to spare."""
OVERHEAD_BYTES = 1 << 20
OVERHEAD_FRACTION = 40
"""The image is bigger than the limit by what ext4 itself needs, so that all of the limit can be used."""
BYTES_PER_INODE = 16 * 1024
INODES_MIN = 1024
FLAGS = mounts.MS_NODEV | mounts.MS_NOATIME


@frozen
class LoopImages:
    """Slower than the others (tens of milliseconds), and needs nothing of the host but loop devices and ext4."""

    name: str = "loop"
    counts: Set[str] = frozenset({"bytes", "inodes"})

    def make(self, path: Path, wanted: Request) -> None:
        if wanted.limit_bytes is None and wanted.limit_inodes is None:
            path.mkdir()
            path.chmod(VOLUME_MODE)
            return
        _make_image(image_of(path), wanted)
        path.mkdir()
        mount_image(image_of(path), path, "ext4", "noinit_itable")
        path.chmod(VOLUME_MODE)
        (path / "lost+found").rmdir()

    def has(self, path: Path) -> bool:
        return image_of(path).exists()

    def usage(self, path: Path) -> DiskUsage | None:
        if not path.is_mount():
            return None
        found = os.statvfs(path)
        reserved = found.f_bfree - found.f_bavail  # Of ext4 for itself, whoever writes.
        return DiskUsage(
            used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
            limit_bytes=(found.f_blocks - reserved) * found.f_frsize,
            used_inodes=found.f_files - found.f_ffree,
            limit_inodes=found.f_files,
        )

    def remove(self, path: Path) -> None:
        thaw(path)
        unmount(path)
        trees.remove(path)
        image_of(path).unlink(missing_ok=True)


def thaw(path: Path) -> None:
    """Undo a freeze of the file system of this volume, if it has one.

    Who writes there does not die before; and taken away frozen it would stay for ever, for nobody could reach it.
    """
    if image_of(path).exists() and path.is_mount():
        kernel.thaw(str(path))


def image_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.ext4")


def volume_of(image: Path) -> Path:
    """The other way round."""
    return image.with_name(image.name.removeprefix(".").removesuffix(".ext4"))


def _make_image(image: Path, wanted: Request) -> None:
    limit = wanted.limit_bytes
    inodes = wanted.limit_inodes or max(INODES_MIN, (limit or 0) // BYTES_PER_INODE)
    inodes += INODES_OF_EXT4
    space = os.statvfs(image.parent)
    size = (limit or space.f_blocks * space.f_frsize) + inodes * INODE_BYTES
    size += OVERHEAD_BYTES + size // OVERHEAD_FRACTION
    with image.open("wb") as file:
        file.truncate(size)
    options = ["-q", "-F", "-O", FEATURES, "-m", "0", "-I", str(INODE_BYTES), "-N", str(inodes)]
    make_file_system([MKFS, *options, "-E", "lazy_itable_init=1,nodiscard", str(image)])


def make_file_system(argv: list[str]) -> None:
    """Run a program that makes one. Raises OSError with its words."""
    program = shutil.which(argv[0])
    if program is None:
        raise OSError(errno.ENOENT, "no such program", argv[0])
    try:
        made = subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=MKFS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as stuck:
        raise OSError(errno.ETIMEDOUT, f"no end within {MKFS_TIMEOUT_S:.0f} s", argv[0]) from stuck
    if made.returncode != 0:
        raise OSError(errno.EIO, made.stderr.strip()[-500:], argv[0])


def mount_image(image: Path, at: Path, kind: str, options: str = "") -> None:
    """Mount the file system in a file. Its loop device goes with the mount."""
    device = kernel.attach_loop(str(image))
    try:
        name = os.readlink(f"/proc/self/fd/{device}")
        mounts.mount(name, str(at), kind, FLAGS, options)
    finally:
        os.close(device)


def unmount(path: Path) -> None:
    """Take away what is mounted at `path`; idempotent."""
    try:
        while True:
            mounts.umount(str(path), mounts.MNT_DETACH)
    except OSError as refused:
        if refused.errno not in (errno.EINVAL, errno.ENOENT):
            raise
