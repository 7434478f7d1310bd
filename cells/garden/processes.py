"""Processes of the host by pid and start time, and signals to those of a container."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from cells.garden import kernel, kernel_files

SIGNAL_BASE = 128
"""A status above this says which signal it was."""


@frozen
class Process:
    """One process for ever: pids are used again, a pid with its start time is not."""

    pid: int
    started: int
    """Clock ticks since boot."""


@frozen
class Stat:
    """What /proc/PID/stat says of a process."""

    state: str
    parent: int
    group: int
    session: int
    started: int


def stat(pid: int) -> Stat | None:
    """None when there is no such process. Raises OSError when that cannot be seen: no descriptor is left."""
    try:
        text = kernel_files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name is in parentheses and may hold spaces and parentheses of its own.
    fields = text[text.rindex(")") + 2 :].split()
    parent, group, session, started = (int(fields[number]) for number in (1, 2, 3, 19))
    return Stat(fields[0], parent, group, session, started)


def identify(pid: int) -> Process:
    """The process that has this pid now; started 0 when there is none."""
    found = stat(pid)
    return Process(pid, found.started if found else 0)


def is_alive(process: Process) -> bool:
    """It has not ended, and its pid is still its own."""
    found = stat(process.pid) if process.pid > 0 else None
    return found is not None and found.state not in "ZX" and found.started == process.started


def is_there(process: Process) -> bool:
    """Its pid is still its own: it lives, or nobody has taken note of its end."""
    found = stat(process.pid) if process.pid > 0 else None
    return found is not None and found.started == process.started


def open_pidfd(process: Process, dead_too: bool = False) -> int | None:
    """A descriptor of exactly this process, or None when it is dead (a zombie is) or its pid is another's now.

    With `dead_too` also of a zombie: its first thread may have ended before the others, then nobody can reap it yet.
    Raises OSError when that cannot be seen: no descriptor is left.
    """
    if process.pid <= 0:
        return None
    try:
        fd = os.pidfd_open(process.pid)
    except OSError as refused:
        # EINVAL: it is a thread's by now. Whatever else is wrong says nothing about the process.
        if refused.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        return None
    # Looked at after the descriptor was opened: from here on the pid cannot change its meaning unnoticed.
    try:
        found = stat(process.pid)
    except OSError:
        os.close(fd)
        raise
    if found is None or found.started != process.started or (found.state in "ZX" and not dead_too):
        os.close(fd)
        return None
    return fd


def reap(process: Process) -> int | None:
    """Take the exit status of an orphan that came to us; None when it is not ours, or not dead.

    Only for processes we know, and only as zombies of their own start time: to wait for any child, or for a pid that
    means somebody else by now, would steal the end of a helper that asyncio waits for.
    """
    found = stat(process.pid) if process.pid > 0 else None
    if found is None or found.state != "Z" or found.started != process.started:
        return None
    try:
        result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else SIGNAL_BASE + result.si_status


def signal_all(pids: list[int], number: int) -> None:
    """Signal each that still lives. The pids were just read from the container's cgroup."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(inside: Callable[[], list[int]]) -> None:
    """Kill those that `inside` lists at the moment, again until there is nobody new."""
    killed: set[int] = set()
    while new := set(inside()) - killed:
        signal_all(sorted(new), signal.SIGKILL)
        killed |= new


def kill_session(pids: list[int], session: int) -> None:
    """Kill those of `pids` that belong to a session: an extra process and all it started."""
    mine = [pid for pid in pids if (found := stat(pid)) is not None and found.session == session]
    signal_all(mine, signal.SIGKILL)


def kill_family(inside: Callable[[], list[int]], leader: Process, session: int) -> None:
    """Kill a process, its session and everything below it, of the pids that `inside` lists at the moment.

    Again until there is nobody new: one that is just being made by another is seen only after that.
    """
    killed: set[int] = set()
    while new := _family(inside(), leader, session) - killed:
        signal_all(sorted(new), signal.SIGKILL)
        killed |= new


def _family(pids: list[int], leader: Process, session: int) -> set[int]:
    seen = {pid: found for pid in pids if (found := stat(pid)) is not None and found.state not in "ZX"}
    now = stat(leader.pid)
    if now is not None and now.started != leader.started:
        return set()  # A number is not given away while it is still the number of a session.
    family = {pid for pid, found in seen.items() if pid == leader.pid or found.session == session}
    while below := {pid for pid, found in seen.items() if found.parent in family} - family:
        family |= below
    return family


def strangers(pids: list[int], init: int, holder: int) -> list[int]:
    """Those of a container's processes that came in from outside (an exec) and did not descend from its init.

    Whose parent ended is the holder's child.
    """
    inside = {*pids, holder}
    found = []
    for pid in pids:
        seen = stat(pid)
        if pid != init and seen is not None and seen.parent not in inside:
            found.append(pid)
    return found


def orphans(name: str, group: int) -> list[Process]:
    """Our children of this name in a process group: helpers that the runtime left to us when it gave up half-way."""
    found = []
    for pid in children():
        with contextlib.suppress(OSError):
            seen = stat(pid)
            if seen is not None and seen.group == group and kernel_files.read(f"/proc/{pid}/comm") == name + "\n":
                found.append(Process(pid, seen.started))
    return found


def strays() -> list[Process]:
    """Our children in other pid namespaces: extra processes whose starter died, so that we, the subreaper, have them.

    A namespace does not end before the last of them is reaped. Helpers of our own are in our namespace, never here; and
    those that hold a namespace (ours when their maker died) are no strays.
    """
    found, depth, here = [], len(_namespace_pids(os.getpid())), pid_namespace(os.getpid())
    for pid in children():
        if pid_namespace(pid) == here:  # Nearly all are: the monitors. To ask this takes a tenth of what the rest does.
            continue
        pids = _namespace_pids(pid)
        if len(pids) > depth and pids[-1] != "1":
            found.append(identify(pid))
    return found


def pid_namespace(pid: int) -> str | None:
    """Which pid namespace a process is in, also of a dead one; None when there is no such process."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return None


def children() -> set[int]:
    """Ours, whichever thread of ours started them. Those of a thread that ends meanwhile may be missed this once."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found.update(map(int, kernel_files.read(f"/proc/self/task/{thread}/children").split()))
    return found


def _namespace_pids(pid: int) -> list[str]:
    """The pids that a process has in each pid namespace, from ours down."""
    with contextlib.suppress(OSError):
        for line in kernel_files.read(f"/proc/{pid}/status").splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []


def descendants(pids: list[int]) -> list[int]:
    """All children of these processes, and theirs, at this moment. Reads all of /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (found := stat(int(entry.name))) is not None:
            children.setdefault(found.parent, []).append(int(entry.name))
    below: list[int] = []
    waiting = list(pids)
    while waiting:
        mine = children.get(waiting.pop(), [])
        below += mine
        waiting += mine
    return below


def mentioning(*texts: str, argument: str | None = None) -> list[int]:
    """Pids of all processes of the host with `texts` in their command line, and with that as one whole argument.

    For recovery only: reads all of /proc.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = Path(entry.path, "cmdline").read_bytes()
                whole = argument is None or argument.encode() in command.split(b"\0")
                if whole and all(text.encode() in command for text in texts):
                    found.append(int(entry.name))
    return found


def kill(process: Process) -> None:
    """SIGKILL exactly this process; nothing happens when it is dead."""
    pidfd = open_pidfd(process)
    if pidfd is not None:
        try:
            kernel.send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
