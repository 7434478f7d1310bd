"""The working directory of a container's own process, made before any process of the container runs.

While processes run, only a child inside the container may make directories (files/): here nobody can swap one.
"""

from __future__ import annotations

import errno
import os

from cells.garden import kernel

MADE_MODE = 0o755
THERE = os.O_PATH | os.O_DIRECTORY


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
