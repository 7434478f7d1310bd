"""Resource limits of a process: open files, never above the cell's own hard limit (the kernel would refuse)."""

from __future__ import annotations

from cells.garden.bundle.plan import Config
from cells.garden.spec import Limits

NOFILE_DEFAULT = 16_384


def of(limits: Limits, nofile_max: int, nofile: int | None = None) -> list[Config]:
    """Of a process in a container with these limits; `nofile` is its own wish."""
    given = limits.nofile if nofile is None else nofile
    wanted = NOFILE_DEFAULT if given is None else given
    nofile = min(wanted, nofile_max)
    return [{"type": "RLIMIT_NOFILE", "soft": nofile, "hard": nofile}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
