"""btrfs: the volume is a subvolume, and the limit that of its quota group. Inodes count by the space they take."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Set
from pathlib import Path

from attrs import define, field

from cells.garden.quota import kernel
from cells.garden.quota.driver import VOLUME_MODE, Request
from cells.garden.spec import DiskUsage

SUBVOLUME_INODE = 256
"""The number of every subvolume's root, and of nothing else."""
QGROUPS = Path("/sys/fs/btrfs")
STALE_AT_ONCE = 4
"""Groups tried with each volume that goes: more than one, so that they get fewer; few, for each costs a transaction."""


@define
class BtrfsQuota:
    """Making a volume takes a fraction of a millisecond, and so does taking one away, but for what is still in memory.

    A quota group outlives its subvolume until the kernel has taken that apart (kernels since 6.11 then remove it
    themselves): what cannot be removed yet is tried again with the next volume that goes.
    """

    name: str = "btrfs"
    counts: Set[str] = frozenset({"bytes"})
    _stale: deque[int] = field(factory=deque, init=False)
    """The oldest first. Several threads take from it and put back; each number is in the hands of one of them."""

    def make(self, path: Path, wanted: Request) -> None:
        kernel.create_subvolume(path)
        path.chmod(VOLUME_MODE)
        if wanted.limit_bytes is not None:
            kernel.limit_subvolume(str(path), wanted.limit_bytes)

    def has(self, path: Path) -> bool:
        return path.is_dir() and path.stat().st_ino == SUBVOLUME_INODE and kernel.file_system(str(path)) == kernel.BTRFS

    def usage(self, path: Path) -> DiskUsage | None:
        """What is written, and what still has to be: the kernel refuses by their sum."""
        group = self._groups(path) / f"0_{kernel.subvolume_id(str(path))}"
        parts = ("referenced", "rsv_data")
        try:
            limit = int((group / "max_referenced").read_text())
            used = sum(int((group / part).read_text()) for part in parts)
        except FileNotFoundError:
            return None  # Quotas were switched off.
        return DiskUsage(used_bytes=used, limit_bytes=limit or None)

    def remove(self, path: Path) -> None:
        number = kernel.subvolume_id(str(path))
        kernel.destroy_subvolume(path)
        self._stale.append(number)
        for _ in range(STALE_AT_ONCE):
            if not self._remove_group(path.parent):
                break  # Busy, or none is left; of one that is busy the others mostly are, too.

    def sweep(self, top: Path, volumes: Iterable[Path]) -> None:
        """Remove the groups of subvolumes that are no more. Only for a file system that is all ours."""
        alive = {kernel.subvolume_id(str(path)) for path in (top, *volumes)}
        numbers = {int(group.name.removeprefix("0_")) for group in self._groups(top).glob("0_*")}
        self._stale.extend(sorted(numbers - alive))
        for _ in range(len(self._stale)):
            self._remove_group(top)

    def _remove_group(self, root: Path) -> bool:
        """The one that has waited longest; False when it must wait on, or none does."""
        try:
            number = self._stale.popleft()
        except IndexError:
            return False
        try:
            kernel.remove_qgroup(str(root), number)
        except OSError as refused:
            if refused.errno == errno.EBUSY:
                self._stale.append(number)
                return False
            if refused.errno not in (errno.ENOENT, errno.ENOTCONN):
                raise
        return True

    def _groups(self, path: Path) -> Path:
        return QGROUPS / kernel.btrfs_uuid(str(path)) / "qgroups"


def counts(path: Path) -> bool:
    """The btrfs that `path` is on has its quotas on."""
    return (QGROUPS / kernel.btrfs_uuid(str(path)) / "qgroups").exists()
