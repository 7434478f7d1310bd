"""The kernel's grace period before a process may move into a cgroup, over before the runtime moves one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event

from cells.garden.cgroups import Cgroups

PAUSE_S = 0.004
"""Between moves. Less than a grace period, which takes a few ticks of the kernel (of 4 ms, with 250 a second)."""
MOVES_MAX = 100
"""Who has not asked the runtime by then waits for something that takes longer than any grace period."""


async def beside(cgroups: Cgroups, needed: Callable[[], bool], work: Awaitable[object]) -> None:
    """Let the grace period pass beside the work, and keep moves quick until its end. Raises what the work does.

    The kernel goes back to waiting one grace period after the last move, so one in advance may be too early. No longer
    than `needed`: whoever builds beside others moves processes soon after they did.
    """
    done = Event()
    # Not waited for: it ends by itself, a move later at most, and leaves nothing.
    asyncio.get_running_loop().run_in_executor(None, _keep, cgroups, needed, done)
    try:
        await work
    finally:
        done.set()


def _keep(cgroups: Cgroups, needed: Callable[[], bool], done: Event) -> None:
    for _ in range(MOVES_MAX):
        if not needed():
            return
        cgroups.warm()
        if done.wait(PAUSE_S):
            return
