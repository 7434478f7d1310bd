"""Heartbeats of cells: presences renewed without a look at what runs there, many in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from bbs.pace import NOT_RENEWED, Pace, Term
from bbs.store.together import Together
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.identifiers import CellId
from diego_py.models.work import Heartbeat

TOGETHER_MAX: Final = 512
"""Heartbeats in one transaction."""
GATHER_S: Final = 0.05
"""So long others are waited for: no cell is in a hurry with it, and each transaction costs as much as many of them."""

Told = tuple[CellId, Heartbeat]


@define
class Heartbeats:
    """Takes them up. What it says no to is said by a whole report then."""

    store: Store
    pace: Pace
    _together: Together[Told, Term] = field(init=False)

    def __attrs_post_init__(self) -> None:
        limits = {"lanes": 1, "together_max": TOGETHER_MAX}
        self._together = Together(
            self.store, "heartbeats", self._take_up, None, reserved=True, gather_s=GATHER_S, **limits
        )

    async def take_up(self, call: Call, cell_id: CellId, beat: Heartbeat) -> Term:
        """Renew the presence of a cell that is as it said last. NOT_RENEWED: it is not, or is wanted otherwise."""
        return await self._together.ask(call, (cell_id, beat))

    async def _take_up(self, tx: Transaction, told: Sequence[Told]) -> Sequence[Term | DiegoError]:
        """All of them. Of two of one cell the one with the higher count is taken: the other came late, or twice."""
        last: dict[CellId, Heartbeat] = {}
        for cell_id, beat in told:
            if cell_id not in last or beat.sequence >= last[cell_id].sequence:
                last[cell_id] = beat
        term = self.pace.term()
        renewed = await tx.cells.renew(list(last.items()), term.ttl_s)
        return [term if cell_id in renewed and beat == last[cell_id] else NOT_RENEWED for cell_id, beat in told]
