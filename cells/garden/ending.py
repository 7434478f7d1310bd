"""The end of a container's process: asked for, and what is known of it then, before anything is taken away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime

from attrs import evolve

from cells.garden import logs, oci, processes
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.monitor import dead
from cells.garden.processes import SIGNAL_BASE
from cells.garden.spec import Exit

SIGNALS_MAX = 64


async def ask(box: Box, host: Host, grace_s: float) -> None:
    """Send SIGTERM to all processes; returns when the user process is dead, or the grace time is over.

    If it went to the background: when all that it left are.
    """
    host.cgroups.thaw(box.handle)
    lingers = box.ended.done() and box.ended.result().lingers
    if box.state == "running" or lingers:
        processes.signal_all(host.cgroups.processes(box.handle), signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await dead(box.init)
                if lingers:
                    for pid in left_behind(box, host):
                        await dead(processes.identify(pid))


def left_behind(box: Box, host: Host) -> list[int]:
    """What lives of a container beside its own process."""
    inside = host.cgroups.processes(box.handle)
    return [pid for pid in inside if pid != box.init.pid and processes.is_alive(processes.identify(pid))]


def read(box: Box, host: Host, status: int | None, now: datetime) -> Exit:
    """The end of a container. `status` is used when its monitor left none (it was killed, say).

    Of one that is destroyed while nobody waits to hear of its end, no more than that: the rest is twenty files to read.
    """
    found = oci.exit_status(box.directory, box.handle)
    if found is not None:
        status = found
        now = datetime.fromtimestamp((box.directory.exit / box.handle).stat().st_mtime, UTC)
    if box.record.phase == "destroying" and not box.listeners:
        return Exit(status, _signal(status), oom_killed=False, log_tail=(), cgroup={}, at=now)
    ended = of_process(box, host, status, now)
    goes_on = box.record.lingers and box.record.phase != "destroying" and status == 0
    return evolve(ended, lingers=goes_on and bool(left_behind(box, host)))


def of_process(box: Box, host: Host, status: int | None, now: datetime) -> Exit:
    """The end of a process of the container, with what the container has and uses at this moment."""
    usage = host.cgroups.usage(box.handle)
    return Exit(
        status=status,
        signal=_signal(status),
        # The counter belongs to the cgroup, and the cgroup to this container alone: it began at 0.
        oom_killed=usage.get("oom_kill", 0) > 0,
        log_tail=logs.tail_text(box.directory.log),
        cgroup=usage,
        at=now,
        disk=host.volumes.usage(box.directory.volume),
    )


def _signal(status: int | None) -> int | None:
    if status is None or not SIGNAL_BASE < status <= SIGNAL_BASE + SIGNALS_MAX:
        return None
    return status - SIGNAL_BASE
