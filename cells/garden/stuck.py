"""What keeps a container from going away, for the reader of the failure: who waits in the kernel, for what, and where.

A killed process dies when it next leaves the kernel. One that waits there for a file system whose server does not
answer, or that is frozen, does so only when that has ended. Reads /proc and nothing that could make us wait too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cells.garden.processes import stat

SHOWN_MAX = 16
SERVED = ("fuse", "nfs", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs")
"""How the kinds of file systems begin that a process or another machine answers for."""
DEAD, DEEP = "ZX", "D"
"""States of processes: those that are over, and waiting where no signal is looked at."""


def by_processes(pids: Iterable[int]) -> dict[str, Any]:
    """Evidence about processes that were killed and did not die, and the mounts that they may wait for."""
    waiting: list[dict[str, Any]] = []
    mounts: dict[str, dict[str, Any]] = {}
    for pid in sorted(set(pids)):
        threads = _threads(pid)
        waiting += threads or _unreaped(pid)
        if threads:
            mounts |= {mount["at"]: mount for mount in _served_mounts(pid)}
    waiting.sort(key=lambda thread: str(thread["state"]) != DEEP)  # The others wait for these.
    return {"waiting": waiting[:SHOWN_MAX], "mounts": list(mounts.values())[:SHOWN_MAX]}


def by_thread(tid: int, what: str) -> dict[str, Any]:
    """Evidence about a thread of ours that does not come back."""
    return {"waiting": [{"what": what, **_thread(Path(f"/proc/self/task/{tid}"))}], "mounts": []}


def in_namespace_of(holder: int) -> list[int]:
    """Every process of the pid namespace whose PID 1 this is, but that one. Reads all of /proc."""
    with contextlib.suppress(OSError):
        wanted = os.readlink(f"/proc/{holder}/ns/pid")
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_in(pid, wanted, holder)]
    return []


def _is_in(pid: int, namespace: str, holder: int) -> bool:
    with contextlib.suppress(OSError):
        return pid != holder and os.readlink(f"/proc/{pid}/ns/pid") == namespace
    return False


def _threads(pid: int) -> list[dict[str, Any]]:
    """Those of a process that live: the first one may be dead before the others."""
    with contextlib.suppress(OSError):
        found = [_thread(path) for path in Path(f"/proc/{pid}/task").iterdir()]
        return [{"pid": pid, **thread} for thread in found if thread["state"] not in DEAD]
    return []


def _unreaped(pid: int) -> list[dict[str, Any]]:
    """One that is dead: its namespace does not end before its parent has asked how it ended."""
    with contextlib.suppress(OSError):
        seen = stat(pid)
        if seen is not None and seen.state in DEAD:
            parent = Path(f"/proc/{seen.parent}/comm").read_text().strip()
            return [{"pid": pid, **_thread(Path(f"/proc/{pid}/task/{pid}")), "parent": f"{seen.parent} {parent}"}]
    return []


def _thread(path: Path) -> dict[str, Any]:
    seen = stat(int(path.name))
    name, wchan = "", ""
    with contextlib.suppress(OSError):
        name = (path / "comm").read_text().strip()
        wchan = (path / "wchan").read_text()
    return {"name": name, "state": seen.state if seen is not None else "X", "wchan": wchan}


def _served_mounts(pid: int) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError):
        return served(Path(f"/proc/{pid}/mountinfo").read_text())
    return []


def served(mountinfo: str) -> list[dict[str, Any]]:
    """The mounts in a /proc/PID/mountinfo that somebody outside the kernel answers for. Pure."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, device, at = after.split(" ")[0], before.split(" ")[2], before.split(" ")[4]
        if kind.startswith(SERVED):
            mount = {"kind": kind, "at": at, "device": device}
            if kind.startswith("fuse"):
                mount["ended_by"] = f"echo 1 > /sys/fs/fuse/connections/{device.partition(':')[2]}/abort"
            found.append(mount)
    return found
