"""Whether the cell is being emptied: a mark on disk, so that a cell which starts again takes no work either."""

from __future__ import annotations

from attrs import define, field

from cells.rep.disk import Disk
from diego_py.errors import DrainNotKept, Outcome

NAME = "draining"


@define
class DrainMark:
    """The mark of this cell."""

    disk: Disk
    on: bool = field(default=False, init=False)

    def load(self) -> None:
        """Read what an earlier boot was told."""
        self.on = self.disk.read(NAME) is not None

    def set(self, on: bool) -> None:
        """Take no new work from now on, or take it again. Raises DrainNotKept, with nothing changed."""
        try:
            if on:
                self.disk.write(NAME, b"draining\n")
            else:
                self.disk.remove(NAME)
        except OSError as refused:
            raise DrainNotKept("keep the mark on disk", outcome=Outcome.NOT_STARTED) from refused
        self.on = on

    def until_the_end(self) -> None:
        """Take no new work for as long as this process lives; the next one will. Raises DrainNotKept."""
        self.set(False)
        self.on = True
