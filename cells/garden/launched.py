"""An extra process that belongs to the workload: what it writes is in the container's log, its end is an Exit.

It is a session that nobody talks to. It lives as long as whoever launched it waits for it: not longer than this cell
process.
"""

from __future__ import annotations

import asyncio

from attrs import define, evolve, field

from cells.garden import ending, execution, log_writing, session
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.log_writing import Writer
from cells.garden.session import Session
from cells.garden.spec import Exit, ProcessSpec
from diego_py.service.clock import Clock

READ_BYTES = 64 * 1024
DRAIN_S = 0.2
"""What was written before its end is read at once; who inherited its output may keep it open for ever."""
COUNTERS = ("oom_kill", "pids_refused")
"""Figures of the whole container that only grow: what was there before the process began is not its own."""


@define(eq=False)
class Launched:
    """A running process. `wait` also carries its output, so somebody has to be in it as long as it runs."""

    _session: Session
    _box: Box
    _host: Host
    _clock: Clock
    _writers: tuple[Writer, Writer]
    _before: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._before = self._host.cgroups.usage(self._box.handle)

    async def wait(self) -> Exit:
        """How it ended, once it has and its output is in the log."""
        out, err = self._session.stdout, self._session.stderr
        assert err is not None
        async with asyncio.TaskGroup() as group:
            carrying = [group.create_task(self._carry(*each)) for each in zip((out, err), self._writers, strict=True)]
            status = await self._session.wait()
            await asyncio.wait(carrying, timeout=DRAIN_S)
            for task in carrying:
                task.cancel()
        for writer in self._writers:
            writer.finish(self._clock.now())
        return self._exit(status)

    async def _carry(self, stream: asyncio.StreamReader, writer: Writer) -> None:
        while data := await stream.read(READ_BYTES):
            writer.feed(data, self._clock.now())

    def _exit(self, status: int | None) -> Exit:
        exit = ending.of_process(self._box, self._host, status, self._clock.now())
        own = {name: value - self._before.get(name, 0) for name, value in exit.cgroup.items() if name in COUNTERS}
        return evolve(exit, cgroup={**exit.cgroup, **own}, oom_killed=own.get("oom_kill", 0) > 0)

    def signal(self, number: int) -> bool:
        """Send a signal to it; False when it has ended."""
        return self._session.signal(number)

    def leave(self) -> None:
        """Let go of one that has ended, and of what it left behind, which goes on."""
        self._session.leave()

    async def close(self) -> None:
        """Kill it with all it started. Idempotent. Raises RuntimeFailed."""
        await self._session.close()


async def begin(host: Host, box: Box, process: ProcessSpec, clock: Clock) -> Launched:
    """Start it. Raises UserNotFound, PoolExhausted, RuntimeFailed and its kinds; then nothing of it is left."""
    env = tuple(execution.shared_environment(box.directory))
    begun = await session.begin(host, box, process, env)
    source, number, kept = process.log_source, begun.process.pid, not process.silent
    out, err = (writer(host, box, source, stream, number, kept) for stream in ("stdout", "stderr"))
    return Launched(begun, box, host, clock, (out, err))


def writer(host: Host, box: Box, source: str, stream: str, number: int = 0, kept: bool = True) -> Writer:
    """To the log of a container; one that keeps no log drops all."""
    kept = kept and box.record.limits.log_bytes_per_second != 0
    mark = log_writing.mark(stream, number, source) if kept else ""
    return Writer(box.directory.log, mark, host.config.log_bytes_max)
