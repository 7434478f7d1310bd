"""Rows that are as their writer saw them last, changed in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve, frozen

from bbs.store.actual_lrps import Key
from bbs.store.unchanged import Change, Terms
from diego_py.models.actual_lrp import ActualLRP
from tests.simulation.memory_store.actual_lrps import TABLE, MemoryActualLRPs, key_of
from tests.simulation.memory_store.cells import TABLE as CELLS
from tests.simulation.memory_store.desired_lrps import TABLE as DESIRED
from tests.simulation.memory_store.engine import MemoryTransactionCore


@frozen
class MemoryUnchanged:
    """What `tables.UnchangedRows` promises."""

    core: MemoryTransactionCore
    actual_lrps: MemoryActualLRPs

    async def save(self, changes: Sequence[Change]) -> dict[Key, datetime]:
        await self.core.statement(*(change.row.process_guid for change in changes))
        ordered = sorted(changes, key=lambda change: key_of(change.row))
        for row, terms in ((change.row, change.claim) for change in ordered):
            if terms is not None and self._is_desired(row, terms):
                await self.core.lock(DESIRED, row.process_guid, shared=True)
        saved = {}
        for row, terms in ((change.row, change.claim) for change in ordered):
            granted = terms is None or (self._is_desired(row, terms) and self._is_live(row, terms))
            if granted and self._is_before(self.core.get(TABLE, key_of(row)), row):
                stored = await self.core.lock(TABLE, key_of(row))
                if self._is_before(stored, row):
                    saved[row.process_guid, row.index] = now = self.core.now()
                    await self.actual_lrps.written(evolve(row, since=now), None)
        return saved

    def _is_desired(self, row: ActualLRP, terms: Terms) -> bool:
        desired = self.core.get(DESIRED, row.process_guid)
        return desired is not None and desired.modification_tag == terms.desired

    def _is_before(self, stored: object, after: ActualLRP) -> bool:
        """Whether this is the row of which that one is made."""
        lrp = getattr(stored, "lrp", None)
        return isinstance(lrp, ActualLRP) and lrp.modification_tag.next() == after.modification_tag

    def _is_live(self, row: ActualLRP, terms: Terms) -> bool:
        cell = self.core.get(CELLS, row.cell_id)
        return cell is not None and terms.boot_id in (None, cell.boot_id) and cell.expires_at > self.core.now()
