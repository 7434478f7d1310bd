"""Whether the BBSes still count on this cell: it claims nothing once its presence may have run out (rule R6)."""

from __future__ import annotations

import math

from attrs import define, field

from diego_py.service.clock import Clock


@define
class Lease:
    """The cell's presence as this side can know it: by its own monotonic clock, from before the report was sent."""

    clock: Clock
    _renewed_s: float = field(default=-math.inf, init=False)
    _ttl_s: float = field(default=0.0, init=False)
    _refusal: str = field(default="", init=False)

    def renew(self, sent_s: float, ttl_ms: int) -> None:
        """A report sent at `sent_s` was taken."""
        self._renewed_s = max(self._renewed_s, sent_s)
        self._ttl_s = ttl_ms / 1000
        self._refusal = ""

    def refused(self, why: str) -> None:
        """A report was not taken."""
        self._refusal = why

    def share_ms(self, most_ms: float) -> float:
        """A third of the presence's life, but not over `most_ms`: so that one BBS that hangs does not outlast it."""
        return min(most_ms, self._ttl_s * 1000 / 3) if self._ttl_s else most_ms

    def held(self) -> bool:
        return self.clock.monotonic() < self._renewed_s + self._ttl_s

    def lacks(self) -> str | None:
        """What keeps it from being held, in words; None while it is."""
        if self.held():
            return None
        why = f": {self._refusal}" if self._refusal else ""
        if self._renewed_s == -math.inf:
            return f"no BBS has taken a report of this cell since it started{why}"
        return f"no BBS has taken a report of this cell for {self.clock.monotonic() - self._renewed_s:.0f} s{why}"
