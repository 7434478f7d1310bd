"""Whether a container's processes have something to do, or wait for something to happen."""

from __future__ import annotations

import os
from pathlib import Path

from cells.garden.spec import Activity

DEAD = frozenset("ZX")
ASLEEP = frozenset("S")
"""Waiting, for however long it takes. Not D: that is a disk or a lock, which comes by itself."""
RUNTIME_NAME = "runc:["
"""What the process of the runtime is called until it becomes the user's."""


def of(init: int, pids: list[int]) -> Activity:
    """What the container with this first process and these processes does now."""
    if _states(init) <= DEAD:
        return "ended"
    return "waiting" if all(_states(pid) == ASLEEP for pid in (init, *pids)) else "busy"


def _states(pid: int) -> frozenset[str]:
    """Of every thread: the first one often does nothing but wait for the others. None when there is no such process."""
    try:
        return frozenset(_state(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return frozenset()


def _state(path: str) -> str:
    try:
        name, _, fields = Path(path).read_text().rpartition(") ")
    except OSError:  # A thread that went while we looked: the process was doing something.
        return "R"
    return "R" if f"({RUNTIME_NAME}" in name else fields[0]
