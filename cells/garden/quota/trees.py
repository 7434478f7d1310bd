"""Removing a directory tree that a container made: of any depth, without following anything out of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from cells.garden.quota import kernel

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: Path) -> None:
    """Remove a directory with all that is in it; idempotent. Raises OSError.

    Directories are moved up to the top before they are emptied, so nothing here is as deep as the tree: neither a
    path, nor a recursion, nor a row of open descriptors.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> None:
    ours = f".removed-{os.urandom(8).hex()}-"
    numbers = count()
    waiting = _unlink_files(top)
    while waiting:
        name = waiting.pop()
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner in _unlink_files(directory):
                waiting.append(f"{ours}{next(numbers)}")
                _changeable(directory, inner, partial(_move_up, inner, waiting[-1], directory, top))
        finally:
            os.close(directory)
        _changeable(top, name, partial(os.rmdir, name, dir_fd=top))


def _move_up(name: str, new_name: str, directory: int, top: int) -> None:
    os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=top)


def _changeable(directory: int, name: str, change: Callable[[], None]) -> None:
    """Make a change to an entry, also when somebody forbade changes of it or of its directory to everybody.

    Of those in a container only a privileged one's root can. Raises OSError.
    """
    with contextlib.suppress(PermissionError):
        return change()
    kernel.make_changeable(directory)
    with contextlib.suppress(PermissionError):
        return change()
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # Others cannot be forbidden, and not be opened without a thought.
        entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            kernel.make_changeable(entry)
        finally:
            os.close(entry)
    change()


def _unlink_files(directory: int) -> list[str]:
    """Remove all but the directories, and name those."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                _changeable(directory, entry.name, partial(os.unlink, entry.name, dir_fd=directory))
    return directories
