"""The fence against replaced leaders: the highest epoch this cell ever saw, kept on disk (reliability rule R6)."""

from __future__ import annotations

from attrs import define, field

from cells.rep.disk import Disk
from diego_py.errors import EpochNotKept, Outcome, StaleEpoch

NAME = "epoch"


@define
class EpochFence:
    """Refuses commands of any epoch below the highest seen."""

    disk: Disk
    highest: int = field(default=0, init=False)

    def load(self) -> None:
        """Read what an earlier boot saw. A file that is there and unreadable stops the start: guessing is unsafe."""
        content = self.disk.read(NAME)
        if content is not None:
            self.highest = int(content)

    def admit(self, epoch: int) -> None:
        """Let a command pass, remembering a new epoch before it does. 0 comes from a client's request, from no leader.

        Raises StaleEpoch, EpochNotKept.
        """
        if epoch == 0 or epoch == self.highest:
            return
        if epoch < self.highest:
            raise StaleEpoch(f"epoch {epoch} was replaced by {self.highest}", outcome=Outcome.NOT_STARTED)
        try:
            self.disk.write(NAME, str(epoch).encode())
        except OSError as refused:
            raise EpochNotKept(f"keep epoch {epoch} on disk", outcome=Outcome.NOT_STARTED) from refused
        self.highest = epoch
