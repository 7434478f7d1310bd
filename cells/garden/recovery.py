"""After a restart: which containers of the last garden go on, and which were half-built and must go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from attrs import evolve, frozen

from cells.garden import demolition, processes
from cells.garden.box import Box
from cells.garden.cgroups import SANDBOXES
from cells.garden.children import in_thread
from cells.garden.depot import Directory, Record
from cells.garden.host import Host
from cells.garden.monitor import gone
from cells.garden.network import links
from cells.garden.oci import EXEC_FIFO
from cells.garden.processes import Process
from cells.garden.threads import Threads
from diego_py.errors import ContainerStuck, DestroyFailed, DiegoError, InvalidSpec

HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
DEMOLITIONS_MAX = 3
STUCK_PATIENCE_S = 1.0
WHOLE = ("created", "running")


@frozen
class Recovery:
    """What to do with what was found."""

    adopt: tuple[Box, ...]
    demolish: tuple[str, ...]


def check_handle(handle: str) -> None:
    """A handle is a directory's name and the runtime's id. Raises InvalidSpec."""
    if not HANDLE.fullmatch(handle):
        raise InvalidSpec(
            f"handle {handle!r}", errors=[{"pointer": "/handle", "detail": "up to 100 of A-Z a-z 0-9 _ . -"}]
        )


def look(host: Host) -> Recovery:
    """Read all records; take up those of whole containers. Changes nothing but the pools.

    A container is whole when its creation was finished: its processes may be gone, its end is then still told.
    """
    adopt: dict[str, Box] = {}
    demolish: list[str] = []
    records = {handle: host.depot.load(handle) for handle in sorted(_traces(host))}
    for known in filter(None, records.values()):
        host.extras.live_in(Process(known.holder_pid, known.holder_started))
    mains = [handle for handle, record in records.items() if record is None or record.sandbox_of is None]
    for handle in (*mains, *sorted(records.keys() - mains)):
        record = records[handle]
        main = None if record is None or record.sandbox_of is None else adopt.get(record.sandbox_of)
        if record is None or record.phase not in WHOLE or not _reclaim(host, record, main):
            demolish.append(handle)
            continue
        box = host.box(record, main)
        box.complete = True
        box.state = "created" if _waits(host, record) else "running"
        adopt[handle] = box
    # Sidecars first: they have files of the volume of their main container mounted.
    return Recovery(tuple(adopt.values()), tuple(reversed(demolish)))


def _traces(host: Host) -> set[str]:
    """Every handle of which anything is left anywhere."""
    runtime = {entry.name for entry in os.scandir(host.depot.runtime) if entry.is_dir()}
    found = {*host.depot.handles(), *host.cgroups.handles(), *runtime, *host.volumes.handles()}
    return {handle for handle in found if HANDLE.fullmatch(handle)}


def _reclaim(host: Host, record: Record, main: Box | None) -> bool:
    if record.sandbox_of is not None:
        return main is not None
    try:
        host.reclaim(record)
    except ValueError:
        return False
    return True


def _waits(host: Host, record: Record) -> bool:
    """The user process has not begun: the runtime's fifo is still there, and the runtime's process waits at it.

    Both: the last garden may have died after it let the process go, before it removed the fifo.
    """
    if record.phase == "created":
        return True
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{record.init_pid}/comm").read_text()
        return _fifo(host, record).exists() and name.startswith(host.runtime.name)
    return False


def _fifo(host: Host, record: Record) -> Path:
    return Path(host.depot.runtime, record.handle, EXEC_FIFO)


async def settle(host: Host, box: Box) -> None:
    """End the extra processes of an adopted container, for nobody reads their answer any more, and remove the fifo of
    a process that was let go.
    """
    if box.state == "running":
        _fifo(host, box.record).unlink(missing_ok=True)
    inside = host.cgroups.processes(box.handle)
    await _end(map(processes.identify, processes.strangers(inside, box.init.pid, box.holder.pid)))
    for unfinished in box.directory.exit.glob(".exec-*"):  # A runtime was writing it, and would not write it again.
        unfinished.unlink()


async def end_runtimes(host: Host) -> None:
    """End the runtimes that were just starting an extra process in some container, and reap what they left to us.

    Nothing else that came to us is ended here: it may be a foreign container whose starter is gone.
    """
    texts, argument = (f"{host.depot.containers}/", "/exit/exec-"), str(host.depot.runtime)
    at_work = await in_thread(lambda: processes.mentioning(*texts, argument=argument))
    await _end(map(processes.identify, at_work))
    for stray in host.extras.unclaimed():
        processes.reap(stray)


async def _end(found: Iterable[Process]) -> None:
    for process in (killed := list(found)):
        processes.kill(process)
    for process in killed:
        await gone(process)


async def demolish_all(host: Host, plan: Recovery) -> list[Box]:
    """Remove what is left of half-built containers. Raises DestroyFailed.

    One that is stuck is answered as a box whose destruction was begun: it keeps what it has, and the others go on. The
    first one is waited for long, those after it not: the cell has containers that want to be watched.
    """
    kept: dict[str, Box] = {}
    for handle in plan.demolish:
        limits_s = (STUCK_PATIENCE_S,) * 2 if kept else (demolition.KILL_TIMEOUT_S, demolition.REMOVE_TIMEOUT_S)
        threads = Threads(host.workers)
        try:
            if any(box.record.sandbox_of == handle for box in kept.values()):
                raise DestroyFailed(f"remove {handle} before its sidecars") from ContainerStuck("its sandbox is in use")
            await demolish(host, handle, threads, limits_s)
        except DestroyFailed as failed:
            box = _keep(host, handle, threads) if failed.find(ContainerStuck) is not None else None
            if box is None:
                raise
            kept[handle] = box
    known = {box.handle: box for box in plan.adopt} | kept
    for box in kept.values():
        box.main = known[box.record.sandbox_of] if box.record.sandbox_of is not None else None
    return list(kept.values())


def _keep(host: Host, handle: str, threads: Threads) -> Box | None:
    """Take up one that could not be removed; None when nobody knows what it has."""
    record = host.depot.load(handle)
    if record is None or (record.sandbox_of is None and not _reclaim(host, record, None)):
        return None
    box = host.box(evolve(record, phase="destroying"))
    box.complete = True
    box.threads = threads
    return box


async def demolish(host: Host, handle: str, threads: Threads, limits_s: tuple[float, float]) -> None:
    """Remove what is left of a half-built container, of which nothing may be assumed. Raises DestroyFailed.

    More than once if need be: a helper that the last garden was just starting when it died shows in no list of
    processes until it is itself, and may then still put something into the directory. The limits are for killing, and
    for removing.
    """
    record = host.depot.load(handle)
    directory = host.depot.directory(handle, record.volume if record is not None else str(host.volumes.path(handle)))
    for attempt in range(1, DEMOLITIONS_MAX + 1):
        try:
            return await _demolish(host, handle, directory, threads, limits_s)
        except (DiegoError, OSError) as cause:
            if attempt == DEMOLITIONS_MAX or isinstance(cause, ContainerStuck):
                raise DestroyFailed(f"remove the parts of half-built {handle}") from cause


async def _demolish(
    host: Host, handle: str, directory: Directory, threads: Threads, limits_s: tuple[float, float]
) -> None:
    kill_s, remove_s = limits_s
    await demolition.kill_half_built(host, handle, directory, kill_s)
    directory.path.mkdir(exist_ok=True)
    await demolition.remove_parts(host, handle, directory, threads, remove_s, half_built=True)
    await in_thread(host.depot.remove, handle)


async def end_sandboxes(host: Host, keep: set[Process]) -> None:
    """End the sandboxes that no adopted container has, and whoever still makes some. Raises DestroyFailed."""
    try:
        async with asyncio.timeout(demolition.KILL_TIMEOUT_S):
            while found := {processes.identify(pid) for pid in host.cgroups.processes(SANDBOXES)} - keep:
                await _end(filter(processes.is_alive, found))
                await asyncio.sleep(0)
    except TimeoutError as stuck:
        raise DestroyFailed("end the sandboxes of no container") from stuck


async def sweep_links(host: Host, keep: set[str]) -> None:
    """Wait until links of containers that are gone have gone too. Raises NetworkFailed."""
    for name in await in_thread(links.ours, host.config.interface_prefix):
        if name not in keep:
            await host.link_watch.gone(name)
