"""A wall clock of its own for a process, which a file sets while it runs."""

from __future__ import annotations

from pathlib import Path

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
SHARED = Path("/dev/shm")
SHARED_NAMES = ("faketime_shm_", "sem.faketime_sem_")
"""Followed by the pid of who made it."""


def environment(clock: Path) -> dict[str, str]:
    """What a process is started with to go by the offset in the file `clock`; its monotonic clock stays."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def sweep() -> None:
    """Remove the memory that processes shared with what they started: one that is killed leaves it."""
    for name in SHARED_NAMES:
        for path in SHARED.glob(f"{name}*"):
            if not Path("/proc", path.name.removeprefix(name)).exists():
                path.unlink(missing_ok=True)
