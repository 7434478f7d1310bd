"""Project quotas of XFS and ext4: the volume is a directory whose files count for a project with limits."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from attrs import frozen

from cells.garden.quota import kernel, trees
from cells.garden.quota.driver import VOLUME_MODE, Request
from cells.garden.spec import DiskUsage


@frozen
class ProjectQuota:
    """The project's number is the container's own, so that it names one volume on the whole host.

    A container cannot leave its project: the kernel lets a file's project be changed from the first user namespace
    only.
    """

    inodes_max: int
    """For a volume with no limit of its own: empty files would cost the host and nobody would count them."""
    name: str = "project"
    counts: Set[str] = frozenset({"bytes", "inodes"})

    def make(self, path: Path, wanted: Request) -> None:
        path.mkdir()
        path.chmod(VOLUME_MODE)
        kernel.set_project_quota(
            str(path), wanted.number, wanted.limit_bytes or 0, wanted.limit_inodes or self.inodes_max
        )
        kernel.set_project(str(path), wanted.number)

    def has(self, path: Path) -> bool:
        if not path.is_dir() or kernel.file_system(str(path)) not in (kernel.XFS, kernel.EXT4):
            return False
        return kernel.project(str(path)) > 0

    def usage(self, path: Path) -> DiskUsage | None:
        found = kernel.project_quota(str(path), kernel.project(str(path)))
        return DiskUsage(
            used_bytes=found.used_bytes,
            limit_bytes=found.limit_bytes or None,
            used_inodes=found.used_inodes,
            limit_inodes=found.limit_inodes or None,
        )

    def remove(self, path: Path) -> None:
        project = kernel.project(str(path))
        trees.remove(path)
        kernel.set_project_quota(str(path.parent), project, 0, 0)
