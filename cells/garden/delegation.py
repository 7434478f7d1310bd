"""Controllers of cgroup v2: a cgroup has those that the one above passes on, and one with processes in it passes none.

The root of the kernel's tree alone is free of that rule. The root of a view (a cell in a container) is not.
"""

from __future__ import annotations

import errno
from pathlib import Path

from diego_py.errors import CgroupFailed

NEEDED = ("cpu", "memory", "pids")
"""Those that hold the limits of containers."""
PROCESSES_TOLD_MAX = 20


def pass_down(mount: str, parent: str) -> None:
    """Have the controllers in every cgroup below `parent`, which is there. Raises CgroupFailed.

    The runtime would do it for the first container, and say nothing when it cannot, but that files are missing.
    """
    place = Path(mount)
    _pass_on(place)
    for name in parent.strip("/").split("/"):
        place /= name
        _pass_on(place)


def _pass_on(place: Path) -> None:
    control = place / "cgroup.subtree_control"
    try:
        lacking = set(NEEDED) - set((place / "cgroup.controllers").read_text().split())
        if lacking:
            raise CgroupFailed(f"find the controllers {', '.join(sorted(lacking))} in cgroup {place}")
        if not set(NEEDED) <= set(control.read_text().split()):
            control.write_text(" ".join(f"+{name}" for name in NEEDED))
    except OSError as refused:
        evidence = {"errno": errno.errorcode.get(refused.errno or 0, "?"), "processes": _processes(place)}
        raise CgroupFailed(f"have controllers in the cgroups below {place}", evidence=evidence) from refused


def _processes(place: Path) -> list[int]:
    """Some of those who are in the way."""
    try:
        return [int(pid) for pid in (place / "cgroup.procs").read_text().split()][:PROCESSES_TOLD_MAX]
    except OSError:
        return []
