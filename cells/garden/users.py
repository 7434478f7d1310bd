"""Who a process is, by the image's own passwd and group. Read by hand: NSS would load the container's libraries."""

from __future__ import annotations

import os
import re
import stat

from attrs import frozen

from cells.garden import kernel
from diego_py.errors import UserNotFound

FILE_BYTES_MAX = 4 * 1024 * 1024
ROOT = ("root", 0, 0, "/")
"""What the kernel knows without any file; an image with a single program has none."""
ID_MAX = 65_535
"""A container has so many ids; the one above would be nobody's on the host."""


@frozen
class Identity:
    """The numbers of a user inside the container, with all its groups, and its home.

    `groups` has the primary one too: a process that changes only its primary group would else lose it, and with it
    what the files of that group deny to their members (CVE-2022-36109).
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


def look_up(root: str, user: str) -> Identity:
    """Find `user` (a name, `uid` or `uid:gid`) in the image at `root`. Raises UserNotFound.

    A number needs no entry; a name does.
    """
    who, _, group = user.partition(":")
    entry = _passwd_entry(root, who) or (ROOT if who == "root" else None)
    if entry is None and not _is_id(who):
        raise UserNotFound(f"find user {user!r} in the image", evidence={"user": user})
    name, uid, gid, home = entry or (who, int(who), 0, "/")
    if group:
        gid = _group_id(root, group, user)
        groups = {gid}
    else:
        groups = _supplementary(root, name) | {gid}
    if uid > ID_MAX or gid > ID_MAX:
        raise UserNotFound(f"user {user!r} is outside the container's {ID_MAX + 1} ids", evidence={"user": user})
    return Identity(uid, gid, tuple(sorted(groups)), name, home or "/")


def is_directory(root: str, path: str) -> bool:
    """The image has a directory there."""
    try:
        fd = kernel.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    os.close(fd)
    return True


def _passwd_entry(root: str, who: str) -> tuple[str, int, int, str] | None:
    for line in _lines(root, "/etc/passwd"):
        fields = line.split(":")
        if len(fields) < 6 or not (_is_id(fields[2]) and _is_id(fields[3])):
            continue
        if fields[0] == who or (_is_id(who) and int(fields[2]) == int(who)):
            return fields[0], int(fields[2]), int(fields[3]), fields[5]
    return None


def _group_id(root: str, group: str, user: str) -> int:
    if _is_id(group):
        return int(group)
    for line in _lines(root, "/etc/group"):
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == group and _is_id(fields[2]):
            return int(fields[2])
    raise UserNotFound(f"find the group of {user!r} in the image", evidence={"user": user})


def _supplementary(root: str, name: str) -> set[int]:
    groups = set()
    for line in _lines(root, "/etc/group"):
        fields = line.split(":")
        if len(fields) >= 4 and name in fields[3].split(",") and _is_id(fields[2]) and int(fields[2]) <= ID_MAX:
            groups.add(int(fields[2]))
    return groups


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,10}", text) is not None


def _lines(root: str, path: str) -> list[str]:
    """The file's lines; none when the image has no such regular file. Bounded, whatever the image holds."""
    try:
        found = kernel.open_in_root(root, path, os.O_PATH)
    except OSError:
        return []
    try:
        # Looked at before it is opened for reading: opening a device or a pipe of the image may have effects.
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return []
        with open(f"/proc/self/fd/{found}", "rb") as file:
            return file.read(FILE_BYTES_MAX).decode(errors="replace").splitlines()
    finally:
        os.close(found)
