"""Deviations in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from bbs.store.actual_lrps import Key
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import UpdateStrategy
from tests.simulation.memory_store.actual_lrps import TABLE
from tests.simulation.memory_store.cells import TABLE as CELLS
from tests.simulation.memory_store.desired_lrps import TABLE as DESIRED
from tests.simulation.memory_store.engine import MemoryTransactionCore


@frozen
class MemoryDeviations:
    """What `tables.Deviations` promises."""

    core: MemoryTransactionCore

    async def uneven(self) -> list[str]:
        await self.core.statement()
        wanted = {row.definition.process_guid: row.definition.instances for row in self.core.rows(DESIRED)}
        rows = self._listed()
        surplus = {lrp.process_guid for lrp in rows if lrp.index >= wanted.get(lrp.process_guid, 0)}
        ordinary = Counter(lrp.process_guid for lrp in rows if lrp.presence is Presence.ORDINARY)
        return sorted(surplus.union(guid for guid, instances in wanted.items() if ordinary[guid] != instances))

    async def emptied(self) -> list[str]:
        await self.core.statement()
        draining = {row.record.cell_id for row in self.core.rows(CELLS) if row.record.presence.draining}
        there = {lrp.process_guid for lrp in self._listed() if lrp.cell_id in draining}
        definitions = (row.definition for row in self.core.rows(DESIRED))
        never_two = {each.process_guid for each in definitions if each.update_strategy is UpdateStrategy.RECREATE}
        return sorted(there & never_two)

    async def keys(self, process_guids: Sequence[str], stale: datetime) -> list[Key]:
        await self.core.statement(*process_guids)
        now, cells = self.core.began_at, self.core.rows(CELLS)
        sound = {row.record.cell_id for row in cells if row.expires_at > now and not row.record.presence.draining}

        def deviates(lrp: ActualLRP) -> bool:
            alone = lrp.presence is Presence.ORDINARY and lrp.stop_asked_at is None
            left = _is_offered(lrp) and lrp.since > stale
            return lrp.process_guid in process_guids or not alone or (lrp.cell_id not in sound and not left)

        return sorted({(lrp.process_guid, lrp.index) for lrp in self._listed() if deviates(lrp)})

    async def offered_since(self, stale: datetime) -> datetime | None:
        await self.core.statement()
        return min((lrp.since for lrp in self._listed() if _is_offered(lrp) and lrp.since > stale), default=None)

    def _listed(self) -> list[ActualLRP]:
        return [row.lrp for row in self.core.rows(TABLE)]


def _is_offered(lrp: ActualLRP) -> bool:
    """No cell has it, and nothing of it failed."""
    return lrp.state is ActualLRPState.UNCLAIMED and lrp.next_attempt_at is None
