"""Which limit the end of a process is laid to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cells.executor.failures import exited
from cells.garden.spec import DiskUsage, Exit
from diego_py.errors import DiegoError, DiskExceeded, OutOfMemory, PidsExceeded, ProcessExited

FULL, ROOM = DiskUsage(1 << 30, 1 << 30), DiskUsage(0, 1 << 30)


@pytest.mark.parametrize(
    ("status", "oom", "disk", "pids_refused", "kind"),
    [
        (1, False, None, 0, ProcessExited),
        (1, False, ROOM, 0, ProcessExited),
        (1, False, FULL, 0, DiskExceeded),
        (1, False, ROOM, 3, PidsExceeded),
        (1, False, FULL, 3, DiskExceeded),
        (137, True, FULL, 3, OutOfMemory),
        (None, False, FULL, 0, DiskExceeded),
        (0, True, FULL, 3, ProcessExited),
    ],
)
def test_the_limit_that_was_met(
    status: int | None, oom: bool, disk: DiskUsage | None, pids_refused: int, kind: type[DiegoError]
) -> None:
    ended = Exit(status, None, oom, (), {"pids_refused": pids_refused}, datetime(2026, 1, 2, tzinfo=UTC), disk)
    error = exited(ended)
    assert type(error) is kind
    told = error.evidence.get("disk") if error.evidence else None
    assert told == (None if disk is None else {**told, "used_bytes": disk.used_bytes, "limit_bytes": disk.limit_bytes})
