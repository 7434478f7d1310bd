"""Root file systems on the disk of a cell: one directory each below the image root, whole or not there.

A tree is made as NAME.incomplete and renamed. Archives are unpacked member by member and nothing is ever written
through a link: names with `..`, absolute names, devices and links out of the tree are refused.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from diego_py.errors import ConflictError, GardenFailed, NotFound, RootfsInvalid

IMAGE_ROOT = Path("/var/lib/diego/rootfs")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
INCOMPLETE = ".incomplete"
MOUNT_POINTS = ("dev", "proc", "sys")
ID_MAX = 65_535
"""A container has so many user ids; files of others would be nobody's in it."""
MEMBERS_MAX = 2_000_000
BYTES_MAX = 64 * 1024**3


def names(image_root: Path) -> list[str]:
    """The trees that are whole."""
    if not image_root.is_dir():
        return []
    return sorted(e.name for e in os.scandir(image_root) if e.is_dir() and not e.name.endswith(INCOMPLETE))


@contextmanager
def making(image_root: Path, name: str, replace: bool = False) -> Iterator[Path]:
    """A directory to fill, which becomes `name` when the body ends well and vanishes when it does not.

    Raises RootfsInvalid for a bad name, ConflictError when it exists, GardenFailed when the disk refuses.
    """
    if not NAME.fullmatch(name) or name.endswith(INCOMPLETE):
        raise RootfsInvalid(f"name a rootfs {name!r}: letters, digits, '_', '.', '-', at most 100")
    target, unfinished = image_root / name, image_root / (name + INCOMPLETE)
    if target.exists() and not replace:
        raise ConflictError(f"rootfs {name} exists already; --replace puts another in its place")
    try:
        image_root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        unfinished.chmod(0o755)
        yield unfinished
        for mount_point in MOUNT_POINTS:
            (unfinished / mount_point).mkdir(exist_ok=True)
        _put_in_place(unfinished, target)
    except OSError as refused:
        raise GardenFailed(f"make rootfs {name} at {refused.filename or image_root}: {refused.strerror}") from refused
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove(image_root: Path, name: str) -> None:
    """Remove a tree. Containers that run from it lose their files. Raises NotFound, GardenFailed."""
    if name not in names(image_root):
        raise NotFound(f"remove rootfs {name!r}: {image_root} has none of this name; diego rootfs list")
    try:
        unfinished = image_root / (name + INCOMPLETE)
        shutil.rmtree(unfinished, ignore_errors=True)
        (image_root / name).rename(unfinished)
        shutil.rmtree(unfinished)
    except OSError as refused:
        raise GardenFailed(f"remove rootfs {name}: {refused.strerror}") from refused


def import_directory(source: Path, tree: Path) -> None:
    """Copy a directory, with owners and hard links, past the same checks that an archive has to pass."""
    argv = ["tar", "--create", "--one-file-system", "--numeric-owner", "--directory", str(source), "--file", "-", "."]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packing:
        if packing.stdout is None:
            raise AssertionError("a pipe was asked for")
        try:
            with tarfile.open(fileobj=packing.stdout, mode="r|") as archive:
                unpack(archive, tree)
        finally:
            packing.stdout.close()
            packing.kill() if packing.poll() is None else None


def import_archive(source: Path, tree: Path) -> None:
    """Unpack a tar, compressed or not. Raises RootfsInvalid."""
    try:
        with tarfile.open(source, mode="r:*") as archive:
            unpack(archive, tree)
    except (tarfile.TarError, EOFError) as broken:
        raise RootfsInvalid(f"read {source.name}: no tar archive, or a broken one") from broken


def unpack(archive: tarfile.TarFile, tree: Path) -> None:
    """Every member below `tree`, in order. Raises RootfsInvalid for the first one that is refused."""
    room, directories = BYTES_MAX, []
    for count, member in enumerate(archive):
        room -= member.size
        if count >= MEMBERS_MAX or room < 0:
            raise RootfsInvalid(f"a rootfs has at most {MEMBERS_MAX} entries and {BYTES_MAX} bytes")
        path = _place(member, tree)
        if path is None:
            continue
        _unpack_one(archive, member, path, tree)
        if member.isdir():
            directories.append((path, member))
    # Modes and times of directories last: writing into them changes their times and needs their permission.
    for path, member in reversed(directories):
        _own(path, member)


def _place(member: tarfile.TarInfo, tree: Path) -> Path | None:
    """Where a member goes; None for the root of the tree itself. Every directory on the way is a real one."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: an absolute name, or '..' in it")
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: a device or a pipe")
    if max(member.uid, member.gid) > ID_MAX:
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: its owner {member.uid}:{member.gid} is above {ID_MAX}")
    if not name.parts:
        return None
    if len(name.parts) == 1 and name.parts[0] in MOUNT_POINTS and not member.isdir():
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: must be a real directory, or absent")
    _real_parents(name, tree)
    return tree / name


def _real_parents(name: PurePosixPath, tree: Path) -> None:
    here = tree
    for part in name.parts[:-1]:
        here = here / part
        try:
            mode = here.lstat().st_mode
        except FileNotFoundError:
            here.mkdir(mode=0o755)
            continue
        if not stat.S_ISDIR(mode):
            raise RootfsInvalid(f"unpack {str(name)[:200]!r}: {part!r} on its way is no real directory")


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, tree: Path) -> None:
    there = path.is_symlink() or path.exists()
    if there and not (member.isdir() and path.is_dir() and not path.is_symlink()):
        if path.is_dir() and not path.is_symlink():
            raise RootfsInvalid(f"unpack {member.name[:200]!r}: a directory of this name came before")
        path.unlink()
    if member.isdir():
        path.mkdir(mode=0o755, exist_ok=True)
        return
    if member.islnk():
        os.link(_link_source(member, tree), path, follow_symlinks=False)
        return
    if member.issym():
        _check_link(member)
        os.symlink(member.linkname, path)
    else:
        with archive.extractfile(member) or _none() as content, open(path, "xb") as file:
            shutil.copyfileobj(content, file)
    _own(path, member)


def _link_source(member: tarfile.TarInfo, tree: Path) -> Path:
    name = PurePosixPath(member.linkname)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: a hard link out of the tree")
    _real_parents(name, tree)
    source = tree / name
    if source.is_symlink() or not source.is_file():
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: a hard link to what is no file of the archive")
    return source


def _check_link(member: tarfile.TarInfo) -> None:
    """A target counts from the container's root when it is absolute; above that root there is nothing."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
    if not member.linkname.startswith("/") and (joined == ".." or joined.startswith("../")):
        raise RootfsInvalid(f"unpack {member.name[:200]!r}: a link out of the tree")


def _own(path: Path, member: tarfile.TarInfo) -> None:
    if os.geteuid() == 0:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        path.chmod(member.mode & 0o7777)
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _none() -> tarfile.ExFileObject:
    raise RootfsInvalid("read a member of the archive: it has no content")


def _put_in_place(unfinished: Path, target: Path) -> None:
    if not target.exists():
        unfinished.rename(target)
        return
    before = target.with_name(f"{target.name}.before{INCOMPLETE}")
    shutil.rmtree(before, ignore_errors=True)
    target.rename(before)
    unfinished.rename(target)
    shutil.rmtree(before)


__all__ = ["IMAGE_ROOT", "import_archive", "import_directory", "making", "names", "remove", "unpack"]
