"""Directories and files of the host in a container: only from below the directories that the operator lists.

Each is a copy of one mount, without those below it, private, without devices and set-user-id programs, and with its ids
shifted: what is the container's root's is root's on the disk. So nobody else of the host should get to the directories.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cells.garden import kernel
from cells.garden.bundle.plan import Bind
from cells.garden.depot import DIRECTORY_MODE, Directory
from cells.garden.spec import BindMount, ContainerSpec, TmpfsMount
from diego_py.errors import BindRefused, InvalidSpec, MountFailed

MOUNTS_MAX = 64
KERNELS = ("proc", "sys", "dev")
"""Where nothing else may be mounted: what is hidden there must stay hidden."""
KEPT = (
    (os.ST_NOEXEC, "noexec"),
    (os.ST_NOATIME, "noatime"),
    (os.ST_NODIRATIME, "nodiratime"),
    (os.ST_RELATIME, "relatime"),
)
"""Flags of the mount that a container may not clear: the runtime has to repeat them."""


def check(spec: ContainerSpec) -> None:
    """Raises InvalidSpec that names every bad mount."""
    errors = [
        {"pointer": f"/mounts/{index}/{wrong[0]}", "detail": wrong[1]}
        for index, mount in enumerate(spec.mounts)
        if (wrong := _wrong(mount)) is not None
    ]
    if len(spec.mounts) > MOUNTS_MAX:
        errors.append({"pointer": "/mounts", "detail": f"at most {MOUNTS_MAX}"})
    if errors:
        raise InvalidSpec("mounts of the container", errors=errors)


def _wrong(mount: BindMount | TmpfsMount) -> tuple[str, str] | None:
    parts = mount.destination.split("/")
    plain = mount.destination.startswith("/") and not {"", ".", ".."} & set(parts[1:]) and "\0" not in mount.destination
    if not plain or parts[1] in KERNELS:
        return "destination", "an absolute path without '.' and '..', not /, not in /dev, /proc or /sys"
    if isinstance(mount, TmpfsMount) and mount.size_bytes <= 0:
        return "size_bytes", "more than 0"
    return None


def attach(
    spec: ContainerSpec, allowed: tuple[str, ...], directory: Directory, userns_fd: int | None
) -> tuple[Bind, ...]:
    """Prepare every bind mount below `directory.binds`, for the runtime to take from there.

    Raises BindRefused, MountFailed; `rootfs.unmount` takes them away, all or some.
    """
    wanted = [mount for mount in spec.mounts if isinstance(mount, BindMount)]
    if wanted:
        directory.binds.mkdir(mode=DIRECTORY_MODE)
        directory.binds.chmod(DIRECTORY_MODE)
    return tuple(
        _attach(mount, allowed, directory.binds / str(number), userns_fd) for number, mount in enumerate(wanted)
    )


def _attach(mount: BindMount, allowed: tuple[str, ...], place: Path, userns_fd: int | None) -> Bind:
    source = _open(mount.source, allowed)
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            place.mkdir()
        else:
            place.touch()
        tree = kernel.clone_mount(source)
        try:
            kernel.restrict_mount(tree, userns_fd, mount.readonly)
            kernel.move_mount(tree, str(place))
        finally:
            os.close(tree)
        flags = os.statvfs(place).f_flag
    except OSError as refused:
        raise MountFailed(
            f"mount {mount.source} with the container's ids",
            evidence={"errno": errno.errorcode.get(refused.errno or 0, "?"), "at": str(refused.filename)},
        ) from refused
    finally:
        os.close(source)
    kept = tuple(name for flag, name in KEPT if flags & flag)
    return Bind(str(place), mount.destination, ("ro" if mount.readonly else "rw", *kept))


def _open(source: str, allowed: tuple[str, ...]) -> int:
    """The source, found without leaving the directory of the list that it is below."""
    for top in allowed:
        below = os.path.relpath(source, top) if source.startswith("/") else ".."
        if below.split("/")[0] == "..":
            continue
        try:
            found = kernel.open_beneath(top, below, os.O_PATH)
        except OSError as refused:
            code = errno.errorcode.get(refused.errno or 0, "?")
            raise BindRefused(f"find {source} below {top}", evidence={"errno": code}) from refused
        kind = os.fstat(found).st_mode
        if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
            return found
        os.close(found)
        raise BindRefused(f"{source} is neither a directory nor a file")
    raise BindRefused(f"{source} is not below a directory that the cell allows", evidence={"allowed": list(allowed)})
