"""What is known of a container once its process ended: read at that moment, before anything is taken away."""

from __future__ import annotations

from datetime import UTC, datetime

from cells.garden import logs, oci
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.processes import SIGNAL_BASE
from cells.garden.spec import Exit

SIGNALS_MAX = 64


def read(box: Box, host: Host, status: int | None, now: datetime) -> Exit:
    """The end of a container. `status` is used when its monitor left none (it was killed, say)."""
    found = oci.exit_status(box.directory, box.handle)
    if found is not None:
        status = found
        now = datetime.fromtimestamp((box.directory.exit / box.handle).stat().st_mtime, UTC)
    return of_process(box, host, status, now)


def of_process(box: Box, host: Host, status: int | None, now: datetime) -> Exit:
    """The end of a process of the container, with what the container has and uses at this moment."""
    usage = host.cgroups.usage(box.handle)
    return Exit(
        status=status,
        signal=_signal(status),
        # The counter belongs to the cgroup, and the cgroup to this container alone: it began at 0.
        oom_killed=usage.get("oom_kill", 0) > 0,
        log_tail=logs.tail_text(box.directory.log),
        cgroup=usage,
        at=now,
        disk=host.volumes.usage(box.directory.volume),
    )


def _signal(status: int | None) -> int | None:
    if status is None or not SIGNAL_BASE < status <= SIGNAL_BASE + SIGNALS_MAX:
        return None
    return status - SIGNAL_BASE
