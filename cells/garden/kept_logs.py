"""Logs of containers that are gone: so many are kept, the newest ones, with what is said about each of them."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from attrs import define, field

SUFFIX = ".log"


@define
class KeptLogs:
    """`about`: directories with a file for each log of which something is said. Everything may raise OSError."""

    logs: Path
    about: tuple[Path, ...]
    most: int
    _gone: dict[str, None] = field(factory=dict, init=False)
    """Handles of containers that are gone and have a log, the oldest end first."""

    def path(self, handle: str) -> Path:
        return self.logs / (handle + SUFFIX)

    def take_up(self, alive: Set[str]) -> None:
        """Find those that earlier processes left, and make room."""
        ends = {path.name.removesuffix(SUFFIX): path.stat().st_mtime for path in self.logs.iterdir()}
        self._gone = dict.fromkeys(sorted(ends.keys() - alive, key=lambda handle: ends[handle]))
        for directory in self.about:
            for path in directory.iterdir():
                if path.name not in ends and path.name not in alive:
                    path.unlink()
        self._make_room()

    def begin(self, handle: str) -> None:
        """A new container is called so: what an earlier one left is no more."""
        self._remove(handle)

    def end(self, handle: str) -> None:
        """A container is gone. Idempotent."""
        if self.path(handle).exists():
            self._gone.pop(handle, None)
            self._gone[handle] = None
            self._make_room()
        else:
            self._remove(handle)

    def _make_room(self) -> None:
        while len(self._gone) > self.most:
            self._remove(next(iter(self._gone)))

    def _remove(self, handle: str) -> None:
        self._gone.pop(handle, None)
        for path in (self.path(handle), *(directory / handle for directory in self.about)):
            path.unlink(missing_ok=True)
