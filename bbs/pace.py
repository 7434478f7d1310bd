"""How often cells say that they are there, and how long it counts: however many there are, the BBS bears it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

PRESENCE_TTL_S: Final = 15.0
BEATS_PER_SECOND_MAX: Final = 1_000.0
TTL_INTERVALS: Final = 3
"""So often a cell may say it while its presence lasts: one word that is lost, and one that is late, do no harm."""


@frozen
class Pace:
    """Follows the number of cells, each time that it is looked at."""

    presence_ttl_s: float = PRESENCE_TTL_S
    """As few cells have it."""
    per_second_max: float = BEATS_PER_SECOND_MAX
    """Of all cells, at all BBSes together."""
    cells: Callable[[], int] = lambda: 0
    """How many are live, as far as this BBS knows."""

    @property
    def pause_s(self) -> float:
        """Between two words of a cell that has nothing new to say; its own interval may be longer."""
        return self.cells() / self.per_second_max

    @property
    def ttl_s(self) -> float:
        """How long a presence lasts that is renewed now."""
        return max(self.presence_ttl_s, TTL_INTERVALS * self.pause_s)
