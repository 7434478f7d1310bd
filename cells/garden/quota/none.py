"""No limits: a volume is a plain directory."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from attrs import frozen

from cells.garden.quota import trees
from cells.garden.quota.driver import VOLUME_MODE, Request
from cells.garden.spec import DiskUsage


@frozen
class Unlimited:
    """For hosts that can do no better. Whoever asks for a limit is refused before it comes to this."""

    name: str = "none"
    counts: Set[str] = frozenset()

    def make(self, path: Path, wanted: Request) -> None:
        path.mkdir()
        path.chmod(VOLUME_MODE)

    def has(self, path: Path) -> bool:
        return True

    def usage(self, path: Path) -> DiskUsage | None:
        return None

    def remove(self, path: Path) -> None:
        trees.remove(path)
