"""What of a cell's containers is on this host, and taking it away: by the cell's own names and nothing else.

The cell cleans up after itself; this looks from outside whether it did, and removes what a killed cell left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

PROGRAM_TIMEOUT_S = 20.0
SANDBOXES = "_sandboxes"
"""The cgroup of the processes that hold namespaces, beside those of the containers."""
DEATH_WAIT_S = 5.0
DEATH_POLL_S = 0.02


@frozen
class CellNames:
    """The names under which one cell puts things on its host."""

    state_dir: Path
    interface_prefix: str
    nft_table: str
    cgroup_parent: str


@frozen
class Thing:
    """Something on the host.

    Its kind: process, sandbox, mount, link, element, cgroup, directory, table, parent, store, memory.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def of_containers(names: CellNames) -> list[Thing]:
    """All that is there only because of a container. Nothing of this is left when the last one is gone."""
    processes, links = _processes(names), _links(names)
    idle = _idle(names)  # Read last: what comes meanwhile is idle.
    cgroups = [path for parent in _cgroup_parents(names) for path in _below(parent) if path.name != SANDBOXES]
    kept = {str(_store(names)), *map(str, _in_memory(names))}
    return [
        *(Thing("process", f"{pid} {_command(pid)}") for pid in processes if pid not in idle),
        *(Thing("mount", path) for path in _mounts(names) if path not in kept),
        *(Thing("link", name) for name in links if name not in idle.values()),
        *(Thing("element", element) for element in _elements(names)),
        *(Thing("cgroup", str(path)) for path in cgroups),
        *(Thing("directory", str(path)) for path in _container_directories(names)),
    ]


def of_cell(names: CellNames) -> list[Thing]:
    """What a cell keeps while it has no containers: firewall table, cgroup parents, idle sandboxes; while it runs, its
    store and its directories in memory.
    """
    mounts = _mounts(names)
    stores = [Thing("store", path) for path in mounts if path == str(_store(names))]
    in_memory = [Thing("memory", str(path)) for path in _in_memory(names) if str(path) in mounts]
    tables = [Thing("table", names.nft_table)] if _table(names) is not None else []
    parents = _cgroup_parents(names)
    return [
        *stores,
        *in_memory,
        *tables,
        *(Thing("parent", str(path)) for path in parents),
        *(Thing("parent", str(path)) for parent in parents for path in _below(parent) if path.name == SANDBOXES),
        *(Thing("sandbox", f"{pid} {_command(pid)}") for pid in _idle(names)),
    ]


def remove(names: CellNames) -> list[Thing]:
    """Take away everything of a cell that is not running, and return what would not go. The state directory stays.

    What its containers wrote goes as well, so the store goes with its file.
    """
    _kill(_processes(names))
    for mount_point in reversed(_mounts(names)):
        _run("umount", "--lazy", "--no-canonicalize", mount_point)
    _store_image(names).unlink(missing_ok=True)
    for name in _links(names):
        _run("ip", "link", "delete", name)
    if _table(names) is not None:
        _run("nft", "delete", "table", "inet", names.nft_table)
    for parent in _cgroup_parents(names):
        for path in (*reversed(_below(parent)), parent):
            _rmdir(path)
        _remove_empty_parents(parent)
    for path in _container_directories(names):
        shutil.rmtree(path, ignore_errors=True)
    return [*of_containers(names), *of_cell(names)]


def _processes(names: CellNames) -> list[int]:
    """Processes in the containers, and the monitors that were started with a path of this cell."""
    found = set()
    for parent in _cgroup_parents(names):
        for path in (parent, *_below(parent)):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
    mark = f"{names.state_dir}/".encode()
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if Path(os.fsdecode(words[0])).name in ("conmon", "runc", "crun") and any(mark in word for word in words):
                found.add(pid)
    return sorted(pid for pid in found if _is_alive(pid))


def _idle(names: CellNames) -> dict[int, str]:
    """Holders of namespaces that no container has yet, and what makes them: pid and, of a holder, its link."""
    used = set()
    for path in (names.state_dir / "containers").glob("*/state.json"):
        with contextlib.suppress(OSError, ValueError):
            used.add(json.loads(path.read_bytes()).get("holder_pid"))
    found = {}
    for parent in _cgroup_parents(names):
        with contextlib.suppress(OSError):
            for pid in map(int, (parent / SANDBOXES / "cgroup.procs").read_text().split()):
                if pid not in used:
                    found[pid] = _command(pid).partition(" ")[2]
    return found


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80].strip()
    except OSError:
        return "?"


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + DEATH_WAIT_S
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(DEATH_POLL_S)


def _mounts(names: CellNames) -> list[str]:
    """Mount points below the state directory, in the order they were made."""
    mark = f"{names.state_dir}/"
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    unescaped = (point.replace("\\040", " ") for point in points)
    return [point for point in unescaped if point.startswith(mark)]


def _links(names: CellNames) -> list[str]:
    # Not of /sys/class/net: there a link stays for a moment after the kernel has told that it is gone.
    prefix = names.interface_prefix
    found = (name for _, name in socket.if_nameindex())
    return sorted(name for name in found if name.startswith(prefix) and name[len(prefix) :].isdigit())


def _table(names: CellNames) -> list[dict[str, object]] | None:
    """The firewall table as nft lists it; None when there is none, or no nft."""
    listed = _run("nft", "--json", "list", "table", "inet", names.nft_table)
    if listed is None or listed.returncode != 0:
        return None
    entries: list[dict[str, object]] = json.loads(listed.stdout)["nftables"]
    return entries


def _elements(names: CellNames) -> Iterator[str]:
    for entry in _table(names) or ():
        for kind in ("set", "map"):
            told = entry.get(kind)
            if isinstance(told, dict):
                yield from (f"{told['name']} {json.dumps(element)}" for element in told.get("elem", ()))


def _cgroup_parents(names: CellNames) -> list[Path]:
    """Our parent directory in every mounted cgroup tree that has one."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in ("cgroup", "cgroup2"):
            path = Path(before.split(" ")[4] + "/" + names.cgroup_parent.strip("/"))
            if path.is_dir():
                found[path.resolve()] = path
    return list(found.values())


def _below(directory: Path) -> list[Path]:
    """All cgroups below one, each before those inside it."""
    return [Path(path) for path, _, _ in os.walk(directory)][1:]


def _container_directories(names: CellNames) -> list[Path]:
    places = (*_in_memory(names), *_store(names).glob("*/"))
    return [entry for place in places if place.is_dir() for entry in sorted(place.iterdir())]


def _in_memory(names: CellNames) -> tuple[Path, Path]:
    """Where a cell keeps what it knows of its containers, and its runtime what that knows: each mounted there."""
    return names.state_dir / "containers", names.state_dir / "runtime"


def _store(names: CellNames) -> Path:
    """Where a cell's containers write, by the cell's id; a store of its own is mounted there."""
    return names.state_dir / "volumes"


def _store_image(names: CellNames) -> Path:
    return names.state_dir / "volumes.btrfs"


def _remove_empty_parents(parent: Path) -> None:
    """The directory that the cells of one cluster share goes with the last of them."""
    if parent.parent.name.startswith("diego"):
        _rmdir(parent.parent)


def _rmdir(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _run(*argv: str) -> subprocess.CompletedProcess[str] | None:
    """A helper program's answer; None when the host does not have it, or it does not come back."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PROGRAM_TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None


def all_of(cells: Sequence[CellNames], look: Callable[[CellNames], list[Thing]]) -> list[Thing]:
    """What `look` finds of several cells."""
    return [thing for names in cells for thing in look(names)]
