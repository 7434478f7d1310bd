"""Taking a container away, whole or half-built: each part is removed if it is there."""

from __future__ import annotations

import asyncio
import contextlib

from cells.garden import processes, session
from cells.garden.box import Box
from cells.garden.children import in_thread, together, uninterrupted
from cells.garden.depot import Directory
from cells.garden.files import copying
from cells.garden.host import Host
from cells.garden.monitor import dead, gone
from diego_py.call import Call
from diego_py.errors import DestroyFailed, DiegoError

MONITOR_GRACE_S = 2.0
"""How long conmon may take to end after its container did."""
KILL_TIMEOUT_S = 10.0
"""How long killed processes may take to die; longer means one is stuck in the kernel."""
LOOK_S = 0.02
"""Between two looks for what a runtime, still at work in a sidecar, may have started there."""


async def kill(host: Host, box: Box) -> None:
    """Return when no process of the container is left, its monitor included. Raises DestroyFailed."""
    await uninterrupted(_kill(host, box))


async def _kill(host: Host, box: Box) -> None:
    await copying.end_all(box)
    if box.record.init_pid == 0:
        await kill_half_built(host, box.handle, box.directory)
        if box.main is None:
            processes.kill(box.holder)
            await gone(box.holder)
        return
    host.cgroups.thaw(box.handle)
    inside = host.cgroups.processes(box.handle)
    strays = host.extras.unclaimed()
    if box.main is None:
        processes.kill(box.holder)
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            if box.main is not None:
                await _kill_inside(host, box)
            for stray in strays:
                if stray.pid in inside:
                    await gone(stray)
                else:
                    processes.reap(stray)
            await gone(box.init)
            await box.runtimes.none()
            if box.main is None:
                await gone(box.holder)
    except TimeoutError as stuck:
        raise DestroyFailed(f"kill the processes of {box.handle}", evidence={"pid": box.init.pid}) from stuck
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MONITOR_GRACE_S):
            await gone(box.monitor)
    processes.kill(box.monitor)
    await session.close_all(box)


async def _kill_inside(host: Host, box: Box) -> None:
    """Kill who is in a sidecar's cgroup, until nobody is left and nobody is being started: its PID 1 has to live on."""
    while (inside := host.cgroups.processes(box.handle)) or box.runtimes.count:
        for process in (killed := [processes.identify(pid) for pid in inside]):
            processes.kill(process)
        for process in killed:
            await dead(process)
        await asyncio.sleep(LOOK_S if box.runtimes.count else 0)


async def kill_half_built(host: Host, handle: str, directory: Directory) -> None:
    """Kill what makes or runs a container whose pids we were never told. Raises DestroyFailed.

    Its makers (conmon, the runtime) name the directory; they could start more, so we look again until there is none.
    """
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            while victims := await in_thread(_half_built, host, handle, directory):
                host.cgroups.thaw(handle)
                for process in victims:
                    processes.kill(process)
                for process in victims:
                    await gone(process)
    except TimeoutError as stuck:
        raise DestroyFailed(f"kill the processes of {handle}") from stuck


def _half_built(host: Host, handle: str, directory: Directory) -> list[processes.Process]:
    makers = processes.mentioning(f"{directory.path}/")
    pids = {*makers, *processes.descendants(makers), *host.cgroups.processes(handle)}
    return [process for pid in sorted(pids) if (process := processes.identify(pid)).started]


async def remove(host: Host, box: Box, call: Call | None) -> None:
    """Remove everything but processes and the log, then nothing of the container is on the host.

    Raises DestroyFailed from the first part that would not go.
    """
    try:
        await uninterrupted(_remove(host, box))
    except (DiegoError, OSError) as cause:
        raise DestroyFailed(f"remove the parts of {box.handle}") from cause


async def _remove(host: Host, box: Box) -> None:
    half_built = box.record.init_pid == 0
    await together(
        host.runtime.delete(box.handle, box.directory, force=half_built),
        in_thread(host.remove_root, box.directory),
        *([] if box.main is not None else [host.firewall.remove(box.elements), host.link_watch.gone(box.interface)]),
    )
    host.cgroups.remove(box.handle)
    await in_thread(host.depot.remove, box.handle)
