"""Whether a container's processes have something to do, or wait for something to happen."""

from __future__ import annotations

import os

from cells.garden import kernel_files
from cells.garden.box import Box
from cells.garden.cgroups import Cgroups
from cells.garden.spec import Activity

DEAD = frozenset("ZX")
ASLEEP = frozenset("S")
"""Waiting, for however long it takes. Not D: that is a disk or a lock, which comes by itself."""
RUNTIME_NAME = "runc:["
"""What the process of the runtime is called until it becomes the user's."""


def of(box: Box | None, cgroups: Cgroups) -> Activity:
    """What the container does now; None is one that is not there."""
    if box is None:
        return "ended"
    if box.ended.done():
        return _of_those_left(box, cgroups) if box.ended.result().lingers else "ended"
    if box.state == "created":  # Between its start and the user's program it is the runtime, which does not rest.
        return "busy"
    pids = cgroups.processes(box.handle)
    if box.record.idle and not set(pids) - {box.init.pid}:
        return "ended"
    return _of(box.init.pid, pids)


def _of(init: int, pids: list[int]) -> Activity:
    if _states(init) <= DEAD:
        return "ended"
    return "waiting" if all(_states(pid) == ASLEEP for pid in (init, *pids)) else "busy"


def _of_those_left(box: Box, cgroups: Cgroups) -> Activity:
    """What those do that the container's own process left behind when it went to the background."""
    living = [states for pid in cgroups.processes(box.handle) if not (states := _states(pid)) <= DEAD]
    if not living:
        return "ended"
    return "waiting" if all(states == ASLEEP for states in living) else "busy"


def _states(pid: int) -> frozenset[str]:
    """Of every thread: the first one often does nothing but wait for the others. None when there is no such process."""
    try:
        return frozenset(_state(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return frozenset()


def _state(path: str) -> str:
    try:
        name, _, fields = kernel_files.read(path).rpartition(") ")
    except OSError:  # A thread that went while we looked: the process was doing something.
        return "R"
    return "R" if f"({RUNTIME_NAME}" in name else fields[0]
