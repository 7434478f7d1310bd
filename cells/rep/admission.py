"""Whether this cell takes a piece of work at all, asked before anything is reserved."""

from __future__ import annotations

from attrs import define

from cells.rep.drain import DrainMark
from cells.rep.ended import EndedBook
from cells.rep.epoch import EpochFence
from cells.rep.lease import Lease
from diego_py.errors import CellDraining, ClaimLost, HandleTaken, Outcome
from diego_py.models.work import Work


@define
class Admission:
    """The doors of the cell."""

    fence: EpochFence
    lease: Lease
    ended: EndedBook
    drain: DrainMark

    def admit(self, work: Work) -> None:
        """Let the work in. Raises StaleEpoch, CellDraining, HandleTaken or ClaimLost; nothing was changed then."""
        self.fence.admit(work.epoch)
        if self.drain.on:
            raise CellDraining("takes no work while it drains", outcome=Outcome.NOT_STARTED, retry_after_s=5.0)
        if self.ended.has(work.instance_guid):
            raise HandleTaken("this instance ran here and has ended", outcome=Outcome.NOT_STARTED)
        if (lacking := self.lease.lacks()) is not None:
            raise ClaimLost(f"claims nothing: {lacking}", outcome=Outcome.NOT_STARTED)
