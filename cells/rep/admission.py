"""Whether this cell takes a piece of work at all, asked before anything is reserved."""

from __future__ import annotations

from attrs import define

from cells.rep.drain import DrainMark
from cells.rep.ended import EndedBook
from cells.rep.epoch import EpochFence
from cells.rep.lease import Lease
from diego_py.errors import CellDraining, ClaimLost, HandleTaken, Outcome
from diego_py.models.task_work import TaskEnd, TaskWork
from diego_py.models.work import EndedReport, Work


@define
class Admission:
    """The doors of the cell."""

    fence: EpochFence
    lease: Lease
    ended: EndedBook[EndedReport]
    task_ends: EndedBook[TaskEnd]
    drain: DrainMark

    def admit(self, work: Work) -> None:
        """Let the work in. Raises StaleEpoch, EpochNotKept, CellDraining, HandleTaken or ClaimLost: nothing changed."""
        if self.ended.has(work.instance_guid):
            raise HandleTaken("this instance ran here and has ended", outcome=Outcome.NOT_STARTED)
        self._admit(work.epoch)

    def admit_task(self, work: TaskWork) -> None:
        """The same for a task."""
        if self.task_ends.has(work.instance_guid):
            raise HandleTaken("this attempt was made here and has ended", outcome=Outcome.UNKNOWN)
        self._admit(work.epoch)

    def _admit(self, epoch: int) -> None:
        self.fence.admit(epoch)
        if self.drain.on:
            raise CellDraining("takes no work while it drains", outcome=Outcome.NOT_STARTED, retry_after_s=5.0)
        if (lacking := self.lease.lacks()) is not None:
            raise ClaimLost(f"claims nothing: {lacking}", outcome=Outcome.NOT_STARTED)
