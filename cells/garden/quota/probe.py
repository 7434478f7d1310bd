"""Which driver the host can do: each is looked at in order of preference, and why it is taken or not is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from cells.garden.quota import btrfs, kernel, loop
from cells.garden.quota.driver import Driver
from cells.garden.quota.none import Unlimited
from cells.garden.quota.project import ProjectQuota

ANY = "auto"
DRIVERS = ("project", "btrfs", "loop", "none")
"""In order of preference."""
NAMES = {kernel.XFS: "XFS", kernel.EXT4: "ext4", kernel.BTRFS: "btrfs"}


@frozen
class Verdict:
    """One way to limit disk: whether this host can go it, and why or what is missing."""

    driver: str
    usable: bool
    why: str


@frozen
class Choice:
    """The driver, and the verdicts that led to it, its own last."""

    driver: Driver
    verdicts: tuple[Verdict, ...]

    def about(self) -> dict[str, object]:
        """The same for people and programs."""
        return {
            "driver": self.driver.name,
            "limits": sorted(self.driver.counts),
            "why": [f"{verdict.driver}: {verdict.why}" for verdict in self.verdicts],
        }


def choose(directory: Path, wanted: str, inodes_max: int) -> Choice | Verdict:
    """The first driver that volumes in `directory` can have; the verdict when that one cannot be `wanted`.

    Raises OSError when the file system cannot be looked at.
    """
    ways: tuple[tuple[Callable[[Path], Verdict], Callable[[], Driver]], ...] = (
        (_project, lambda: ProjectQuota(inodes_max)),
        (_btrfs, btrfs.BtrfsQuota),
        (_loop, loop.LoopImages),
        (_none, Unlimited),
    )
    verdicts = []
    for name, (look, make) in zip(DRIVERS, ways, strict=True):
        if wanted not in (ANY, name):
            continue
        verdicts.append(look(directory))
        if verdicts[-1].usable:
            return Choice(make(), tuple(verdicts))
    return verdicts[-1]


def _project(directory: Path) -> Verdict:
    kind = kernel.file_system(str(directory))
    if kind not in (kernel.XFS, kernel.EXT4):
        return Verdict("project", False, f"{directory} is on {_name(kind)}; XFS and ext4 have project quotas")
    if not kernel.project_quota_enforced(str(directory)):
        return Verdict("project", False, f"the {_name(kind)} of {directory} is mounted without prjquota")
    return Verdict("project", True, f"the {_name(kind)} of {directory} enforces project quotas")


def _btrfs(directory: Path) -> Verdict:
    kind = kernel.file_system(str(directory))
    if kind != kernel.BTRFS:
        return Verdict("btrfs", False, f"{directory} is on {_name(kind)}")
    if not btrfs.counts(directory):
        return Verdict("btrfs", False, f"quotas are off; turn them on with: btrfs quota enable --simple {directory}")
    return Verdict("btrfs", True, f"the btrfs of {directory} has quotas on")


def _loop(directory: Path) -> Verdict:
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return Verdict("loop", False, "no loop devices: /dev/loop-control is missing")
    if shutil.which(loop.MKFS) is None:
        return Verdict("loop", False, f"no {loop.MKFS}; install e2fsprogs")
    return Verdict("loop", True, "an ext4 image for each container that has a limit")


def _none(directory: Path) -> Verdict:
    return Verdict("none", True, "a container that asks for a disk limit is refused")


def _name(kind: int) -> str:
    return NAMES.get(kind, f"a file system of type {kind:#x}")
