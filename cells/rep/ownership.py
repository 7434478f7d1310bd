"""One process at a time has a state directory: to a second one, what the first is just building would be left over."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from attrs import define, field

from diego_py.errors import StateDirectoryInUse
from diego_py.service.clock import Clock

NAME = "lock"
PATIENCE_S = 30.0
"""How long the process before this one may take to end: it finishes what is under way, or dies."""
LOOK_S = 0.1


@define
class Ownership:
    """The part that has the state directory, from the first step of a cell to its last. The kernel ends it with us."""

    directory: Path
    clock: Clock
    _file: int | None = field(default=None, init=False)

    async def start(self) -> None:
        """Return when nobody else has it. Raises StateDirectoryInUse, OSError."""
        self._file = os.open(self.directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until_s = self.clock.monotonic() + PATIENCE_S
        while not self._taken(self._file):
            if self.clock.monotonic() >= until_s:
                pid = os.pread(self._file, 20, 0).decode(errors="replace").strip()
                evidence = {"path": str(self.directory / NAME), "pid": pid}
                raise StateDirectoryInUse(f"process {pid} has {self.directory} for {PATIENCE_S:g} s", evidence=evidence)
            await self.clock.sleep(LOOK_S)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    async def stop(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _taken(self, file: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
