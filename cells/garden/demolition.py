"""Taking a container away, whole or half-built: each part is removed if it is there.

What waits here is not to be cancelled: whoever destroys a container waits for the end of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from cells.garden import processes, session, stuck
from cells.garden.box import Box
from cells.garden.children import in_thread, together
from cells.garden.depot import Directory
from cells.garden.files import copying
from cells.garden.host import Host
from cells.garden.monitor import dead, gone
from cells.garden.spec import Exit
from cells.garden.threads import Threads
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import ContainerStuck, DestroyFailed, DiegoError

MONITOR_GRACE_S = 2.0
"""How long conmon may take to end after its container did."""
DEATH_TIMEOUT_S = 5.0
"""How long a stop waits for one that it killed; who then destroys it waits again."""
KILL_TIMEOUT_S = 10.0
"""How long killed processes may take to die; longer means one is stuck in the kernel."""
REMOVE_TIMEOUT_S = 60.0
"""How long removing what the container wrote may take; a tree of millions of files takes longer, and then goes on."""
PATIENCE_S_MIN = 0.2
"""What a destroy takes for each of its parts however little time its caller has."""
LOOK_S = 0.02
"""Between two looks for what a runtime, still at work in a sidecar, may have started there."""


def patience_s(call: Call | None, most_s: float) -> float:
    """How long to wait for a part of destroying: so that there is time left to say what is stuck."""
    if call is None:
        return most_s
    left_s = (call.remaining_ms() - 2 * ANSWER_MARGIN_MS) / 1000
    return min(most_s, max(PATIENCE_S_MIN, left_s))


async def kill(host: Host, box: Box, call: Call | None = None) -> None:
    """Return when no process of the container is left; its monitor may be a moment behind, and so may its holder.

    Raises DestroyFailed, ContainerStuck.
    """
    limit_s = patience_s(call, KILL_TIMEOUT_S)
    copies = {copy.child.pid for copy in box.copies}
    async with _stuck_after(limit_s, host, box, copies):
        copying.kill_all(box)
        if box.record.init_pid == 0:
            await kill_half_built(host, box.handle, box.directory, limit_s)
        await _kill_whole(host, box)
    if box.record.init_pid != 0:
        await session.close_all(box)


async def end_sandbox(host: Host, box: Box, call: Call | None = None) -> None:
    """Return when the holder of the container's own sandbox, which was killed, is gone. Raises ContainerStuck."""
    if box.main is None:
        async with _stuck_after(patience_s(call, KILL_TIMEOUT_S), host, box, set()):
            await _end_namespaces(host, box)


async def _end_namespaces(host: Host, box: Box) -> None:
    for stray in host.extras.keeping(box.holder):
        await gone(stray)
    await gone(box.holder)


@contextlib.asynccontextmanager
async def _stuck_after(limit_s: float, host: Host, box: Box, others: set[int]) -> AsyncIterator[None]:
    """Bound how long the container's processes, and `others` at work in it, may take to die. Raises ContainerStuck."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as timeout:
        raise await _stuck(host, box.handle, {*others, box.init.pid}, box.holder.pid) from timeout


async def end_monitor(box: Box) -> None:
    """Return when the monitor of a dead container is gone, too: by itself, or else killed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MONITOR_GRACE_S):
            await gone(box.monitor)
    processes.kill(box.monitor)


async def _kill_whole(host: Host, box: Box) -> None:
    if host.cgroups.processes(box.handle) or box.runtimes.count:
        host.thaw(box.handle, box.directory)
    if box.main is None:
        processes.kill(box.holder)
    else:
        await _kill_inside(host, box)
    await gone(box.init)
    await copying.none(box)
    await box.runtimes.none()
    # With its own process all are gone, nearly always. Those that are not (or not where they were put) go with the
    # holder: the kernel ends the namespaces then, which takes a while that need not be waited for here.
    if box.main is None and (box.record.privileged or host.cgroups.processes(box.handle)):
        await _end_namespaces(host, box)


async def _stuck(host: Host, handle: str, pids: set[int], holder: int = 0) -> ContainerStuck:
    """The failure that says which of a container's processes do not die."""

    def look() -> dict[str, Any]:
        return stuck.by_processes({*pids, *host.cgroups.processes(handle), *stuck.in_namespace_of(holder)})

    return ContainerStuck(f"kill the processes of {handle}", evidence=await in_thread(look))


async def death(host: Host, box: Box) -> Exit:
    """How a container ended that was just killed, as soon as that is known. Raises ContainerStuck."""
    try:
        async with asyncio.timeout(DEATH_TIMEOUT_S):
            return await box.end()
    except TimeoutError as timeout:
        raise await _stuck(host, box.handle, {box.init.pid}) from timeout


async def _kill_inside(host: Host, box: Box) -> None:
    """Kill who is in a sidecar's cgroup, until nobody is left and nobody is being started: its PID 1 has to live on."""
    strays, victims = host.extras.unclaimed(), host.cgroups.processes(box.handle)
    while (inside := host.cgroups.processes(box.handle)) or box.runtimes.count:
        for process in (killed := [processes.identify(pid) for pid in inside]):
            processes.kill(process)
        for process in killed:
            await dead(process)
        await asyncio.sleep(LOOK_S if box.runtimes.count else 0)
    for stray in strays:
        if stray.pid in victims:
            await gone(stray)
        else:
            processes.reap(stray)


async def kill_half_built(host: Host, handle: str, directory: Directory, limit_s: float) -> None:
    """Kill what makes or runs a container whose pids we were never told. Raises ContainerStuck.

    Its makers (conmon, the runtime) name the directory; they could start more, so we look again until there is none.
    """
    victims: list[processes.Process] = []
    try:
        async with asyncio.timeout(limit_s):
            while victims := await in_thread(_half_built, host, handle, directory):
                host.thaw(handle, directory)
                for process in victims:
                    processes.kill(process)
                for process in victims:
                    await gone(process)
    except TimeoutError as timeout:
        raise await _stuck(host, handle, {process.pid for process in victims}) from timeout


def _half_built(host: Host, handle: str, directory: Directory) -> list[processes.Process]:
    # All that we start for a container has the runtime's own directory among its arguments, and nobody else has.
    makers = processes.mentioning(f"{directory.path}/", argument=str(host.depot.runtime))
    pids = {*makers, *processes.descendants(makers), *host.cgroups.processes(handle)}
    return [process for pid in sorted(pids) if (process := processes.identify(pid)).started]


async def close_firewall(host: Host, box: Box) -> None:
    """Let nothing in and nothing out. Processes may still run: only permissions go. Raises DestroyFailed."""
    if box.main is None:
        with _told(box):
            await host.firewall.remove(box.elements)


async def remove(host: Host, box: Box, call: Call | None) -> None:
    """Remove all but processes, firewall, log, and the directory with the record; the monitor may still be there.

    Raises DestroyFailed from the first part that would not go; what could not be waited for goes on.
    """
    links = [host.link_watch.gone(box.interface)] if box.main is None else []
    with _told(box):
        limit_s = patience_s(call, REMOVE_TIMEOUT_S)
        parts = remove_parts(host, box.handle, box.directory, box.threads, limit_s, half_built=box.record.init_pid == 0)
        await together(parts, *links)


def forget(host: Host, box: Box) -> None:
    """Remove the directory with the record: nothing of the container is on the host then. Raises DestroyFailed."""
    with _told(box):
        host.depot.remove(box.handle)


@contextlib.contextmanager
def _told(box: Box) -> Iterator[None]:
    try:
        yield
    except (DiegoError, OSError) as cause:
        raise DestroyFailed(f"remove the parts of {box.handle}") from cause


async def remove_parts(
    host: Host, handle: str, directory: Directory, threads: Threads, limit_s: float, *, half_built: bool
) -> None:
    """Remove what the runtime and the kernel have of a container without processes, but for its sandbox.

    Raises what the runtime does, OSError, CgroupFailed, MountFailed, VolumeFailed, ContainerStuck.
    """
    await host.runtime.delete(handle, directory, force=half_built)
    # In one thread, although half of it needs none: two that work at the same time wait for each other all the time.
    await threads.run(limit_s, f"remove the root of {handle}", host.remove_parts, handle, directory)
