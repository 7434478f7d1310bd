"""Watching containers end: one descriptor of conmon each, no thread, no poll, and it need not be our child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from attrs import define, field

from cells.garden.processes import Process, open_pidfd, reap


@define
class Monitor:
    """Calls back, once, when a process is gone."""

    _watched: dict[int, int] = field(factory=dict, init=False)

    def watch(self, process: Process, ended: Callable[[int | None], None]) -> bool:
        """Call `ended` with the process's status, if it was ours to reap, as soon as it is gone.

        False, and no call, when it is dead already.
        """
        pidfd = open_pidfd(process)
        if pidfd is None:
            reap(process)
            return False
        loop = asyncio.get_running_loop()

        def readable() -> None:
            self.forget(process)
            ended(reap(process))

        self._watched[process.pid] = pidfd
        loop.add_reader(pidfd, readable)
        return True

    def forget(self, process: Process) -> None:
        """Stop watching. Idempotent."""
        pidfd = self._watched.pop(process.pid, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Stop watching all; the processes go on."""
        for pid in list(self._watched):
            self.forget(Process(pid, 0))


async def gone(process: Process) -> None:
    """Return when the process is dead, all its threads (at once when it is already), and reaped if that is for us."""
    await dead(process)
    reap(process)


async def dead(process: Process) -> None:
    """Return when the process is dead, all its threads; somebody else may be about to read its status."""
    pidfd = open_pidfd(process, dead_too=True)
    if pidfd is not None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
