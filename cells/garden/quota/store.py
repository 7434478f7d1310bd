"""A btrfs of our own in a sparse file, for hosts whose file system cannot hold containers to a limit.

Mounted at the volumes directory for as long as there are containers, whoever runs the cell meanwhile; the file stays,
so that the next start has nothing to make.
"""

from __future__ import annotations

import errno
from pathlib import Path

from attrs import frozen

from cells.garden import kernel as mounts
from cells.garden.quota import btrfs, kernel
from cells.garden.quota.driver import VOLUME_MODE
from cells.garden.quota.loop import make_file_system, mount_image

MKFS = "mkfs.btrfs"


@frozen
class Store:
    """The file, where it is mounted, and how big it is when it is made."""

    image: Path
    at: Path
    size_bytes: int

    def open(self) -> None:
        """Have it mounted, with quotas on. Raises OSError."""
        if not self.at.is_mount():
            self._make()
            mount_image(self.image, self.at, "btrfs")
        self.at.chmod(VOLUME_MODE)
        if not btrfs.counts(self.at):
            kernel.enable_quota(str(self.at))

    def _make(self) -> None:
        """Whole or not there: a file that was begun and not finished has another name."""
        if self.image.exists():
            return
        draft = self.image.with_suffix(".new")
        with draft.open("wb") as file:
            file.truncate(self.size_bytes)
        make_file_system([MKFS, "--quiet", "--force", "--metadata", "single", str(draft)])
        draft.rename(self.image)

    def close(self) -> None:
        """Unmount it, unless somebody uses it. Raises OSError."""
        try:
            mounts.umount(str(self.at))
        except OSError as refused:
            if refused.errno not in (errno.EBUSY, errno.EINVAL):
                raise
