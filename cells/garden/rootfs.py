"""A container's root: the shared layers of an image, with their ids shifted, and a private one above (overlayfs)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cells.garden import kernel
from cells.garden.depot import Directory
from diego_py.errors import MountFailed, RootfsInvalid, RootfsNotFound

SCHEME = "preloaded:"
INCOMPLETE = ".incomplete"
"""Suffix of an image while it is imported."""
MOUNT_POINTS = ("dev", "proc", "sys")


def find(image_root: str, rootfs: str) -> Path:
    """The image directory of `preloaded:NAME`. Raises RootfsNotFound, RootfsInvalid."""
    name = rootfs.removeprefix(SCHEME)
    path = Path(image_root, name)
    plain = rootfs.startswith(SCHEME) and name not in ("", ".", "..") and "/" not in name and "\0" not in name
    if not plain or not path.is_dir():
        raise RootfsNotFound(f"find rootfs {rootfs!r}", evidence={"rootfs": rootfs, "present": names(image_root)})
    _check_mount_points(path, rootfs)
    return path


def names(image_root: str) -> list[str]:
    """The images the cell has; not those that are just being imported."""
    try:
        entries = [entry for entry in os.scandir(image_root) if entry.is_dir()]
        return sorted(entry.name for entry in entries if not entry.name.endswith(INCOMPLETE))
    except FileNotFoundError:
        return []


def _check_mount_points(root: Path, name: str) -> None:
    """Raises RootfsInvalid."""
    for entry in MOUNT_POINTS:
        try:
            mode = os.lstat(root / entry).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            # A symlink here would make the runtime write through it (CVE-2026-41579).
            raise RootfsInvalid(f"/{entry} of rootfs {name!r} is no real directory", evidence={"entry": f"/{entry}"})


def mount(lowers: Sequence[Path], directory: Directory, userns_fd: int | None, first_id: int) -> None:
    """Mount the container's root at `directory.rootfs`, from these layers, the lowest first.

    Their ids are shifted by the user namespace, if there is one.
    Raises MountFailed, RootfsInvalid; call `unmount` in any case. The shifted layers are attached at paths of their own
    for as long as the overlay takes to clone them: kernels before 6.18 refuse detached ones as lower layers.
    """
    places = [directory.lower / str(number) for number in range(len(lowers))]
    try:
        for lower, place in zip(lowers, places, strict=True):
            place.mkdir()
            _attach_shifted(lower, place, userns_fd)
        os.chown(directory.upper, first_id, first_id)
        os.chmod(directory.upper, stat.S_IMODE(os.stat(lowers[-1]).st_mode))
        _stack(directory, len(places))
        for place in places:
            kernel.umount(str(place), kernel.MNT_DETACH)
    except OSError as refused:
        raise MountFailed(
            f"mount the root of {directory.path.name}",
            evidence={"errno": errno.errorcode.get(refused.errno or 0, "?"), "at": str(refused.filename)},
        ) from refused
    _check_mount_points(directory.rootfs, directory.path.name)


def _attach_shifted(lower: Path, place: Path, userns_fd: int | None) -> None:
    tree = kernel.open_tree_clone(str(lower))
    try:
        if userns_fd is not None:
            kernel.idmap_mount(tree, userns_fd)
        kernel.move_mount(tree, str(place))
    finally:
        os.close(tree)


def _stack(directory: Directory, layers: int) -> None:
    """Mount the overlay. Directories are named by descriptors: all options together may have 4095 bytes, and every
    runtime reads those of every container of the host, several times at each start.

    Volatile: what the container wrote need not be on the disk before its root can be unmounted, nor when it syncs. That
    would serve nobody: with the machine the container is gone, and its volume is never mounted again.
    """
    with _opened(directory.lower) as lower, _opened(directory.volume) as volume:
        stacked = ":".join(f"{lower}/{number}" for number in reversed(range(layers)))
        options = f"lowerdir={stacked},upperdir={volume}/{directory.upper.name},workdir={volume}/{directory.work.name}"
        kernel.mount("overlay", str(directory.rootfs), "overlay", kernel.MS_NODEV, f"{options},volatile")


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[str]:
    """A short name of a directory."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def unmount(directory: Directory) -> None:
    """Take away what `mount` made, all or parts of it. Idempotent. Raises MountFailed."""
    attached: list[Path] = []
    for place in (directory.lower, directory.binds):
        with contextlib.suppress(FileNotFoundError):
            attached += sorted(place.iterdir())
    for path in (directory.rootfs, *attached):
        try:
            while True:
                kernel.umount(str(path), kernel.MNT_DETACH)
        except OSError as refused:
            # EINVAL: nothing is mounted there (any more); ENOENT: the directory was never made.
            if refused.errno not in (errno.EINVAL, errno.ENOENT):
                raise MountFailed(f"unmount {path}") from refused


def write_etc(directory: Directory, first_id: int, hostname: str, hosts: Iterable[str], resolver: str) -> None:
    """The files that are the container's own whatever the image has: hosts, hostname, resolv.conf. Raises OSError.

    `hosts` are lines beside those for localhost.
    """
    lines = ("127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *hosts)
    files = {
        "hosts": "".join(line + "\n" for line in lines),
        "hostname": hostname + "\n",
        "resolv.conf": resolver,
    }
    for name, text in files.items():
        path = directory.etc / name
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, first_id, first_id)
