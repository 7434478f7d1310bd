"""How often cells say that they are there, and how long it counts: however many there are, the BBS bears it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

PRESENCE_TTL_S: Final = 15.0
BEATS_PER_SECOND_MAX: Final = 500.0
TTL_INTERVALS: Final = 3
"""So often a cell may say it while its presence lasts: one word that is lost, and one that is late, do no harm."""


@frozen
class Term:
    """What is true of a presence from when it was renewed: the cell is told exactly what its row has."""

    ttl_s: float = 0.0
    """How long it lasts. 0: it was not renewed."""
    pause_s: float = 0.0
    """So late the cell's next word may come, and shall, if nothing is new; its own interval may be longer."""


NOT_RENEWED: Final = Term()


@frozen
class Pace:
    """Follows the number of cells, each time that it is looked at."""

    presence_ttl_s: float = PRESENCE_TTL_S
    """As few cells have it."""
    per_second_max: float = BEATS_PER_SECOND_MAX
    """Of all cells, at all BBSes together."""
    cells: Callable[[], int] = lambda: 0
    """How many are live, as far as this BBS knows."""

    def term(self) -> Term:
        """Of presences that are renewed now."""
        pause_s = self.cells() / self.per_second_max
        return Term(max(self.presence_ttl_s, TTL_INTERVALS * pause_s), pause_s)
