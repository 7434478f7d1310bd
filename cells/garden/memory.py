"""A directory that is in memory: what it holds need not outlive the machine, and costs no disk any work."""

from __future__ import annotations

import errno
from pathlib import Path

from cells.garden import kernel

KIND = "tmpfs"
NAME = "diego"
"""What the mount table calls it."""


def keep(directory: Path, mode: int, bytes_max: int) -> None:
    """Have an existing directory in memory, also for those that come after this process. Raises OSError.

    One that has something in it stays on the disk: whoever uses that must find it.
    """
    if not directory.is_mount() and not any(directory.iterdir()):
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount(NAME, str(directory), KIND, flags, f"mode={mode:o},size={bytes_max}")


def give_back(directory: Path) -> None:
    """Let go of the memory, unless something is in it or somebody is there. Raises OSError."""
    if not directory.is_mount() or any(directory.iterdir()):
        return
    try:
        kernel.umount(str(directory))
    except OSError as refused:
        if refused.errno != errno.EBUSY:
            raise
