"""What a cell asks of the BBS. The client of `diego_py` is one answer, the simulation's another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.identifiers import TaskGuid
from diego_py.models.task_work import TaskClaim, TaskEnd
from diego_py.models.work import (
    CellReport,
    ClaimGranted,
    Claims,
    Heartbeat,
    HeartbeatAnswer,
    ReportAnswer,
)


class BBS(Protocol):
    """The calls a cell makes."""

    async def claim(self, call: Call, claims: Claims) -> Sequence[ClaimGranted | DiegoError]:
        """Take the rows of instances; what became of each, in order.

        ClaimRefused says that one is not ours to take, ClaimLost that nobody said. Raises ClaimLost for all.
        """

    async def claim_task(self, call: Call, task_guid: TaskGuid, request: TaskClaim) -> None:
        """Take the row of a task. Raises ClaimRefused when it is not ours to take, ClaimLost when nobody said."""

    async def task_ended(self, call: Call, end: TaskEnd) -> None:
        """Say how a task ended; returns when that is stored, or nobody waits for it any more."""

    async def evacuate(self, call: Call, timeout_s: int) -> int:
        """Have all instances of this cell moved elsewhere; returns how many were."""

    async def report(self, call: Call, report: CellReport) -> ReportAnswer:
        """Say what the cell has; returns what it must do."""

    async def heartbeat(self, call: Call, beat: Heartbeat) -> HeartbeatAnswer:
        """Say that the cell is as it said last; returns whether that was taken."""
