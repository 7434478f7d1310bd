"""Which extra processes have somebody who waits for their end, so that nobody else takes it away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from cells.garden import processes
from cells.garden.monitor import gone
from cells.garden.processes import Process

CLEAR_TIMEOUT_S = 5.0
HELPER_NAME = "runc:[1:CHILD]"
"""What joins the namespaces for runc, and makes there the process that becomes the user's."""


@define
class Extras:
    """Extra processes that are our children: those that run, and those that the runtime is just starting."""

    _pids: set[int] = field(factory=set)
    _namespaces: dict[Process, str] = field(factory=dict)
    """Pid namespaces of our own containers, by their holders. Whoever is in another one is none of our business: the
    process that this garden is a part of may have containers of its own."""
    _starting: set[Path] = field(factory=set)
    """Files to which the runtime writes a pid before it leaves the process to us."""

    def live_in(self, holder: Process) -> None:
        """Extra processes may be in the namespaces that this process holds."""
        found = processes.pid_namespace(holder.pid)
        if found is not None and processes.is_there(holder):
            self._namespaces[holder] = found

    def gone_from(self, holder: Process) -> None:
        self._namespaces.pop(holder, None)

    def starts(self, pid_file: Path) -> None:
        self._starting.add(pid_file)

    def started(self, pid_file: Path, pid: int | None) -> None:
        """The runtime is done; it started this process, or failed."""
        self._starting.discard(pid_file)
        if pid is not None:
            self._pids.add(pid)

    def goes_on(self, pid: int) -> None:
        """A user process whose monitor died is our child now, and no stray."""
        self._pids.add(pid)

    def ended(self, pid: int) -> None:
        self._pids.discard(pid)

    def unclaimed(self) -> list[Process]:
        """Children of ours in our containers that nobody waits for: their starter died, or gave up."""
        found = [stray for stray in processes.strays() if not self._claimed(stray.pid)]
        return [stray for stray in found if self._is_ours(processes.pid_namespace(stray.pid))]

    def keeping(self, holder: Process) -> list[Process]:
        """Those in the namespaces of a holder that was killed, dead or about to be: it cannot end before they are
        reaped."""
        name = self._namespaces.get(holder)
        if name is None or not processes.is_there(holder):
            return []
        found = [stray for stray in processes.strays() if not self._claimed(stray.pid)]
        return [stray for stray in found if processes.pid_namespace(stray.pid) == name]

    def _is_ours(self, namespace: str | None) -> bool:
        """While its holder is there, no other namespace has its name."""
        holders = [holder for holder, name in self._namespaces.items() if name == namespace]
        return any(map(processes.is_there, holders))

    def _claimed(self, pid: int) -> bool:
        return pid in self._pids or pid in {_read(file) for file in self._starting}

    async def clear(self, runtime: int = 0) -> None:
        """After a runtime (the leader of its process group) that failed: end and reap what it did not wait for.

        Its container went meanwhile. Until then the container's namespace could not end; what does not die now is
        waited for by whoever destroys the container.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAR_TIMEOUT_S):
                for left in (*processes.orphans(HELPER_NAME, runtime), *self.unclaimed()):
                    processes.kill(left)
                    await gone(left)


@define(eq=False)
class Runtimes:
    """The runtimes that are at work inside one container: it cannot be removed before they are done."""

    count: int = 0
    _none: asyncio.Event = field(factory=asyncio.Event)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        self.count += 1
        self._none.clear()
        try:
            yield
        finally:
            self.count -= 1
            if self.count == 0:
                self._none.set()

    async def none(self) -> None:
        """Return when the last one is done. In a dead container that is soon."""
        if self.count:
            await self._none.wait()


def _read(pid_file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(pid_file.read_text())
    return None
