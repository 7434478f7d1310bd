"""Desired LRPs together with their rows, in memory: each change is one statement."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from bbs.labels import labels_of
from bbs.store.lrps import already_exists, not_found, still_being_deleted
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.workload import ModificationTag
from tests.simulation.memory_store.abandoned import live_attempts
from tests.simulation.memory_store.actual_lrps import TABLE as ROWS
from tests.simulation.memory_store.actual_lrps import WITHOUT_CELL, MemoryActualLRPs, key_of
from tests.simulation.memory_store.desired_lrps import TABLE
from tests.simulation.memory_store.engine import MemoryTransactionCore


@frozen
class MemoryLRPs:
    """What `tables.LRPTable` promises."""

    core: MemoryTransactionCore
    actual_lrps: MemoryActualLRPs

    async def desire(
        self,
        definition: DesiredLRPDefinition,
        tag_epoch: str,
        instance_guids: Sequence[str],
        tag_epochs: Sequence[str],
    ) -> tuple[DesiredLRP, list[ActualLRP]]:
        guid, domain = definition.process_guid, definition.domain
        await self.core.statement(guid, domain, *instance_guids)
        await self.core.take(TABLE, guid)
        if self.core.get(TABLE, guid) is not None:
            raise already_exists(guid)
        tag, now = ModificationTag(epoch=tag_epoch, index=0), self.core.now()
        desired = DesiredLRP(definition=definition, modification_tag=tag, created_at=now, updated_at=now)
        self.core.write(TABLE, guid, desired)
        if any(lrp.stop_asked_at is not None for lrp in self._rows_of(guid)):
            raise still_being_deleted(guid)
        indices = range(len(instance_guids))
        added = await self.actual_lrps.inserted(guid, domain, indices, instance_guids, tag_epochs, desired.revision)
        return desired, added

    async def undesire(self, process_guid: str) -> list[ActualLRP]:
        await self.core.statement(process_guid)
        removed = await self.core.update(TABLE, process_guid, lambda row: True, lambda row: None)
        if removed is None:
            raise not_found(process_guid)
        told = labels_of(removed[0].definition)
        left = []
        for lrp in self._rows_of(process_guid):
            row = await self.core.lock(ROWS, key_of(lrp))
            if row is None:
                continue
            if row.lrp.state in WITHOUT_CELL:
                self.core.write(ROWS, key_of(lrp), None)
                continue
            if row.lrp.stop_asked_at is None:
                row = evolve(row, lrp=self.actual_lrps.asked(row.lrp, True))
                self.core.write(ROWS, key_of(lrp), row)
            if self.core.get("labels", row.lrp.instance_guid) is None:
                self.core.write("labels", row.lrp.instance_guid, told)
            left.append(row.lrp)
        attempts = live_attempts(self.core, process_guid)
        return left + sorted(attempts, key=lambda attempt: (attempt.index, attempt.instance_guid))

    def _rows_of(self, process_guid: str) -> list[ActualLRP]:
        return [row.lrp for row in self.core.rows(ROWS) if row.lrp.process_guid == process_guid]
