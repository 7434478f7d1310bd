"""What killed cells leave to this process, which is a subreaper: in production that is the host's init, which reaps.

Unreaped, a process keeps the namespace it was in from ending, and with it the holder of a sandbox from dying.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cells.garden import processes

HOLDER = "memfd:sandbox"
PATIENCE_S = 20.0
LOOK_S = 0.02


@contextlib.contextmanager
def reaped() -> Iterator[None]:
    """Meanwhile whoever dies in a container is reaped at once, as by init, so that its container can go.

    A monitor that is killed with its container leaves that to us. Nothing that this process waits for itself is in
    another pid namespace.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for stray in processes.strays():
                processes.reap(stray)

    thread = threading.Thread(target=look, name="reap who dies in a container")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reap() -> None:
    """Return when no holder is left among our children, dead or dying, and nothing else that is dead."""
    until_s = time.monotonic() + PATIENCE_S
    reap_dead()
    while any(_name(pid) == HOLDER for pid in processes.children()) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        reap_dead()


def reap_dead() -> None:
    """Reap whoever is dead now."""
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
