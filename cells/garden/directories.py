"""Working directories: which one a process has, and that of a container's own process made before any process runs.

While processes run, only a child inside the container may make directories (files/): here nobody can swap one.
"""

from __future__ import annotations

import errno
import os

from cells.garden import kernel
from cells.garden.users import Identity, is_directory
from diego_py.errors import WorkingDirectoryInvalid

MADE_MODE = 0o755
THERE = os.O_PATH | os.O_DIRECTORY
STEPS_MAX = 4096
"""Names on a way, those of the links on it included: more than any that the kernel goes."""


def chosen(root: str, given: str | None, identity: Identity) -> str:
    """Where a process starts: as given, else the user's home when the image has it, else the root directory.

    Raises WorkingDirectoryInvalid for one in /proc: descriptors of the runtime are there (CVE-2024-21626).
    """
    found = given or (identity.home if is_directory(root, identity.home) else "/")
    if _leads_to_proc(root, found):
        raise WorkingDirectoryInvalid("start a process in /proc", evidence={"cwd": found})
    return found


def _leads_to_proc(root: str, path: str) -> bool:
    """Whether the way leads through /proc, by links of the image too, wherever those end: it is not mounted yet."""
    here: list[str] = []
    ahead = path.split("/")[::-1]
    for _ in range(STEPS_MAX):
        if not ahead:
            return False
        part = ahead.pop()
        if part == "..":
            here = here[:-1]
        elif part not in ("", "."):
            here.append(part)
            if here == ["proc"]:
                return True
            if (target := _link(root, "/".join(here))) is not None:
                here = [] if target.startswith("/") else here[:-1]
                ahead += target.split("/")[::-1]
    return True


def _link(root: str, path: str) -> str | None:
    """Where it points to; None for what is no link."""
    try:
        found = kernel.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=found)
    except OSError:
        return None
    finally:
        os.close(found)


def make_missing(root: str, path: str, uid: int, gid: int) -> None:
    """Make `path` and what is missing above it below `root`, owned by these ids of the host.

    What cannot be a directory is left to the runtime, which says so. Raises OSError when the disk refuses.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        return
    try:
        os.close(kernel.open_in_root(root, path, THERE))
    except FileNotFoundError:
        _make(root, parts, uid, gid)
    except OSError as other:
        if other.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise


def _make(root: str, parts: list[str], uid: int, gid: int) -> None:
    here = kernel.open_in_root(root, "/", THERE)
    try:
        for count, part in enumerate(parts, 1):
            try:
                there = kernel.open_in_root(root, "/".join(parts[:count]), THERE)
            except FileNotFoundError:
                os.mkdir(part, MADE_MODE, dir_fd=here)
                there = os.open(part, THERE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.chown(part, uid, gid, dir_fd=here, follow_symlinks=False)
            os.close(here)
            here = there
    except (FileExistsError, NotADirectoryError):  # A link that leads nowhere, or a file: the runtime says so.
        return
    finally:
        os.close(here)
