"""The cgroup of a container, on v1, hybrid and v2 hosts alike: what it used, who is in it, and taking it away."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from cells.garden import delegation, kernel_files
from diego_py.errors import CgroupFailed

SANDBOXES = "_sandboxes"
"""Beside the containers, and no handle: where the processes are that hold namespaces. They count for no container."""

LINKS_OF_LEAF = 2
"""Of a directory without directories in it: spares a listing on each look."""

UNLIMITED = 1 << 62
"""v1 says "no limit" with the largest multiple of a page; anything above this is none."""


@frozen
class Hierarchy:
    """One mounted cgroup tree."""

    mount: str
    controllers: frozenset[str]
    v2: bool


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The cgroup trees in a /proc/PID/mountinfo, each once. Pure."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        mount = before.split(" ")[4]
        words = frozenset(options.split(" ")[-1].split(",")) - {"rw", "ro"}
        found.setdefault(mount, Hierarchy(mount, words if kind == "cgroup" else frozenset(), kind == "cgroup2"))
    return list(found.values())


@define
class Cgroups:
    """All cgroup trees of the host, and our parent directory in each."""

    parent: str
    trees: list[Hierarchy]
    _v1: dict[str, str] = field(init=False)
    _v2: str | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.parent = "/" + self.parent.strip("/")
        self._v1 = {name: tree.mount for tree in self.trees if not tree.v2 for name in tree.controllers}
        self._v2 = next((tree.mount for tree in self.trees if tree.v2), None)

    @classmethod
    def of_host(cls, parent: str) -> Cgroups:
        """Raises CgroupFailed when the host has no cgroups that we can use."""
        cgroups = cls(parent, hierarchies(Path("/proc/self/mountinfo").read_text()))
        if "memory" not in cgroups._v1 and cgroups._v2 is None:
            raise CgroupFailed("find a cgroup hierarchy with the memory controller")
        return cgroups

    @property
    def _listing(self) -> str | None:
        return self._v1.get("pids") or self._v1.get("memory") or self._v2

    def path(self, handle: str) -> str:
        """The absolute path for the runtime. A relative one would nest below the cgroup of this very process."""
        return f"{self.parent}/{handle}"

    def warm(self) -> None:
        """Make the next move of a process into a cgroup quick; may block for about ten milliseconds itself.

        The first move after a while waits for an RCU grace period, in which the kernel turns a lock to the side of its
        writers; those that follow soon do not wait. We move ourselves to where we are: that takes the lock and changes
        nothing.
        """
        tree = self._v1.get("pids") or self._v2
        with contextlib.suppress(OSError):
            here = _own_path(kernel_files.read("/proc/self/cgroup"), "pids" if "pids" in self._v1 else "")
            kernel_files.write(f"{tree}{here}/cgroup.procs", str(os.getpid()))

    def prepare(self) -> None:
        """Make the parent in every tree, with what holds limits in it. Raises CgroupFailed."""
        for tree in self.trees:
            try:
                Path(tree.mount + self.parent).mkdir(parents=True, exist_ok=True)
            except OSError as refused:
                raise CgroupFailed(f"make cgroup {self.parent}", evidence={"tree": tree.mount}) from refused
        if self._v2 is not None and "memory" not in self._v1:
            delegation.pass_down(self._v2, self.parent)

    def hold(self, pid: int) -> None:
        """Have a process, and all it will start, listed as holders of namespaces. Raises CgroupFailed.

        In the tree in which we list processes. In the others only so that nothing of where the cell is shows in a
        container's /proc/1/cgroup, if they take it.
        """
        for tree in self.trees:
            path = Path(tree.mount + self.path(SANDBOXES))
            try:
                path.mkdir(exist_ok=True)
                if "cpuset" in tree.controllers:
                    _allow_processors(Path(tree.mount), path)
                (path / "cgroup.procs").write_text(str(pid))
            except OSError as refused:
                if tree.mount == self._listing:
                    raise CgroupFailed(f"move a process to {path}", evidence={"pid": pid}) from refused

    def remove_empty(self, handle: str) -> None:
        """Remove the directories in which nobody is."""
        for tree in self.trees:
            with contextlib.suppress(OSError):
                os.rmdir(tree.mount + self.path(handle))

    def processes(self, handle: str) -> list[int]:
        """Pids in the container, also of extra processes and in cgroups that it made; empty when its own is gone."""
        return _members(f"{self._listing}{self.path(handle)}")

    def worked_s(self, handle: str) -> float:
        """Seconds of processor time that the container has used; 0 when the cgroup is gone."""
        if "cpuacct" in self._v1:
            return (_number(f"{self._v1['cpuacct']}{self.path(handle)}/cpuacct.usage") or 0) / 1e9
        return (_counter(f"{self._v2}{self.path(handle)}/cpu.stat", "usage_usec") or 0) / 1e6

    def thaw(self, handle: str) -> None:
        """Let frozen processes run, so that they can die, those in cgroups below too."""
        places = [(self._v1.get("freezer"), "freezer.state", "THAWED"), (self._v2, "cgroup.freeze", "0")]
        for tree, name, value in places:
            if tree is not None:
                for directory in _with_those_below(f"{tree}{self.path(handle)}"):
                    with contextlib.suppress(OSError):
                        kernel_files.write(f"{directory}/{name}", value)

    def usage(self, handle: str) -> dict[str, int]:
        """The figures of `Exit.cgroup`; those the kernel does not give are left out."""
        return {**self._memory(handle), **self._pids(handle)}

    def _memory(self, handle: str) -> dict[str, int]:
        if "memory" in self._v1:
            base = f"{self._v1['memory']}{self.path(handle)}/memory."
            limit, peak = _number(base + "limit_in_bytes"), _number(base + "max_usage_in_bytes")
            killed = _counter(base + "oom_control", "oom_kill")
        else:
            base = f"{self._v2}{self.path(handle)}/memory."
            limit, peak = _number(base + "max"), _number(base + "peak")
            killed = _out_of_memory(base + "events")
        if limit is not None and limit > UNLIMITED:
            limit = None
        return _present(memory_limit_bytes=limit, memory_peak_bytes=peak, oom_kill=killed)

    def memory_bytes(self, handle: str) -> int | None:
        """Memory in use, without file pages that the kernel would give up at once; None when the cgroup is gone."""
        if "memory" in self._v1:
            base = f"{self._v1['memory']}{self.path(handle)}/memory."
            used, idle = _number(base + "usage_in_bytes"), _counter(base + "stat", "total_inactive_file")
        else:
            base = f"{self._v2}{self.path(handle)}/memory."
            used, idle = _number(base + "current"), _counter(base + "stat", "inactive_file")
        return None if used is None else max(0, used - (idle or 0))

    def _pids(self, handle: str) -> dict[str, int]:
        tree = self._v1.get("pids") or self._v2
        base = f"{tree}{self.path(handle)}/pids."
        return _present(
            pids=_number(base + "current"),
            pids_limit=_number(base + "max"),
            pids_peak=_number(base + "peak"),
            pids_refused=_counter(base + "events", "max"),
        )

    def remove(self, handle: str) -> None:
        """Remove the container's directories and any below, in every tree. Idempotent. Raises CgroupFailed."""
        for tree in self.trees:
            _remove_tree(tree.mount + self.path(handle))

    def handles(self) -> set[str]:
        """Every container that has a directory in some tree."""
        found: set[str] = set()
        for tree in self.trees:
            with contextlib.suppress(FileNotFoundError):
                found |= {entry.name for entry in os.scandir(tree.mount + self.parent) if entry.is_dir()}
        return found - {SANDBOXES}


def _own_path(text: str, controller: str) -> str:
    """Where a process is in one tree, by its /proc/PID/cgroup; the v2 tree has no controllers in it. Pure."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _allow_processors(top: Path, path: Path) -> None:
    """Let a cpuset of v1 have what the one above has, all the way down, unless it is set: without, it takes nobody."""
    if path == top:
        return
    _allow_processors(top, path.parent)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (path / name).read_text().strip():
            (path / name).write_text((path.parent / name).read_text())


def _with_those_below(path: str) -> Iterator[str]:
    """This cgroup and the cgroups in it: most have none, which the number of links tells."""
    try:
        links = os.stat(path).st_nlink
    except OSError:
        return
    yield from [path] if links <= LINKS_OF_LEAF else (directory for directory, _, _ in os.walk(path))


def _remove_tree(path: str) -> None:
    try:
        os.rmdir(path)
        return
    except FileNotFoundError:
        return
    except OSError as refused:
        if refused.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise CgroupFailed(f"remove cgroup {path}") from refused
    try:
        for directory, _, _ in os.walk(path, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as refused:
        raise CgroupFailed(f"remove cgroup {path}", evidence={"processes": _text(path + "/cgroup.procs")}) from refused


def _members(path: str) -> list[int]:
    """Pids in a cgroup and in those below it, which a privileged container may make."""
    try:
        found = [int(pid) for pid in kernel_files.read(f"{path}/cgroup.procs").split()]
        if os.stat(path).st_nlink > LINKS_OF_LEAF:
            with os.scandir(path) as entries:
                found += [pid for entry in entries if entry.is_dir() for pid in _members(entry.path)]
        return found
    except OSError:
        return []


def _text(path: str) -> str | None:
    try:
        return kernel_files.read(path)
    except OSError:
        return None


def _number(path: str) -> int | None:
    """A file with one figure; None when it is missing or says `max`."""
    text = (_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def _counter(path: str, name: str) -> int | None:
    """A figure by its name in a file of `name figure` lines."""
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


def _out_of_memory(events: str) -> int | None:
    """How many processes the kernel killed in this cgroup, or anywhere in it for want of its memory.

    v2 counts for a cgroup what happens below it, too: a privileged container may hold parts of itself to less memory.
    """
    killed = _counter(events, "oom_kill")
    own = _counter(f"{events}.local", "oom_kill") if killed else None
    return killed if own is None or _counter(f"{events}.local", "oom") else own


def _present(**figures: int | None) -> dict[str, int]:
    return {name: figure for name, figure in figures.items() if figure is not None}
