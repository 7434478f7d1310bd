"""What a way of holding containers to a disk limit must do. A file a way, beside this one."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Protocol

from attrs import frozen

from cells.garden.spec import DiskUsage

VOLUME_MODE = 0o711
"""The container's root passes through its volume as an id that owns nothing on the host."""


@frozen
class Request:
    """What a new volume is held to; None is not held. `number` is its own on this host: it may name a project."""

    limit_bytes: int | None
    limit_inodes: int | None
    number: int


class Driver(Protocol):
    """Volumes are directories. All methods may block; errors are OSError."""

    @property
    def name(self) -> str:
        """As the configuration has it."""

    @property
    def counts(self) -> Set[str]:
        """What it can hold a volume to, of `bytes` and `inodes`."""

    def make(self, path: Path, wanted: Request) -> None:
        """Make the volume, empty. What failed half-way is for `remove`."""

    def has(self, path: Path) -> bool:
        """This driver made, or began to make, the volume at `path`."""

    def usage(self, path: Path) -> DiskUsage | None:
        """What is used of the limits, cheaply; None when nobody counts."""

    def remove(self, path: Path) -> None:
        """Take the volume away, whole or half-made, with all that is in it."""
