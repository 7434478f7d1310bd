"""Removing a directory tree that a container made: of any depth, without following anything out of it."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

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
                os.rename(inner, waiting[-1], src_dir_fd=directory, dst_dir_fd=top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _unlink_files(directory: int) -> list[str]:
    """Remove all but the directories, and name those."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return directories
