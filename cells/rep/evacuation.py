"""Leaving in order: before its process ends, the cell has a BBS move its instances elsewhere, if it is told to."""

from __future__ import annotations

import structlog
from attrs import define

from cells.rep.bbs import BBS
from cells.rep.drain import DrainMark
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.service.clock import Clock

ANSWER_S = 30.0
"""What a BBS may take beyond the time for moving, to put in order what could not be moved."""


@define
class Evacuation:
    """The part that is stopped first."""

    bbs: BBS
    drain: DrainMark
    timeout_s: int
    """0: containers run on, and the next start adopts them."""
    clock: Clock
    log: structlog.stdlib.BoundLogger

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Empty the cell, if that is wanted; what is left when the time is over runs on and is adopted later.

        This is no drain by an operator: the next start takes work again.
        """
        if self.timeout_s == 0 or self.drain.on:
            return
        self.log.info("evacuating", timeout_s=self.timeout_s)
        try:
            moved = await self.evacuate(self.timeout_s)
            self.log.info("evacuated", moved=moved)
        except DiegoError as failure:
            root = failure.root
            self.log.error("not_evacuated", code=root.code, detail=root.message, outcome=str(failure.outcome))
        try:
            self.drain.until_the_end()
        except DiegoError as failure:
            self.log.error("drain_mark_left", code=failure.root.code)

    async def evacuate(self, timeout_s: int) -> int:
        """How many instances were moved. Raises what the BBS said, with each instance that is left."""
        return await self.bbs.evacuate(Call.begin(self.clock, (timeout_s + ANSWER_S) * 1000), timeout_s)
