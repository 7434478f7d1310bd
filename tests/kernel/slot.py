"""Which names of the host this run of the tests has: several runs may go on at once, each with a slot of its own."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import IO

SLOTS = 8


def _take() -> tuple[int, IO[str]]:
    """A free slot, or the first one as soon as it is; held until this process ends."""
    paths = [Path(tempfile.gettempdir(), f"kernel-tests-{number}.lock") for number in range(SLOTS)]
    for number, path in enumerate(paths):
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return number, lock
    lock = paths[0].open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return 0, lock


SLOT, _LOCK = _take()

STATE_PREFIX = f"kernel-garden-{SLOT}-"
ID_BASE = 1_000_000_000 + SLOT * 100_000_000
ID_END = ID_BASE + 100_000_000
PORT_FIRST = 61_500 + SLOT * 500
CGROUP_PREFIX = f"kernel-test-{SLOT}-"
TABLE_PREFIX = f"kernel_test_{SLOT}_"
LINK_PREFIX = f"kt{SLOT}"
NETWORK_PREFIX = f"10.{232 + SLOT}"
HOST_LINK = f"kerntest{SLOT}"
HOST_ADDRESS = f"198.18.7.{SLOT + 1}"
"""From the range for benchmarks: an address of the host that no network has."""
OUTSIDE_NETWORK = f"198.18.{100 + SLOT}"
"""Its .1 is the host's, its .2 is that of a machine beyond it."""
OUTSIDE_LINK = f"ktout{SLOT}"
"""Name of the link to that machine; its other end has a `p` after it."""
