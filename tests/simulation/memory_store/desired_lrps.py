"""Desired LRPs in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from bbs.store.desired_lrps import Filter, Reach, StoredLRP
from diego_py import wire
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, SchedulingInfo
from diego_py.models.work import EgressChange
from tests.simulation.memory_store.engine import MemoryTransactionCore

TABLE: Final = "desired_lrps"


@frozen
class MemoryDesiredLRPs:
    """What `tables.DesiredLRPTable` promises."""

    core: MemoryTransactionCore

    async def share_many(self, process_guids: Sequence[str]) -> list[Reach]:
        await self.core.statement(*process_guids)
        found = [await self.core.lock(TABLE, guid, shared=True) for guid in sorted(process_guids)]
        return [_reach(desired) for desired in found if desired is not None]

    async def get(self, process_guid: str, *, for_update: bool = False) -> DesiredLRP | None:
        await self.core.statement(process_guid)
        if for_update:
            locked: DesiredLRP | None = await self.core.lock(TABLE, process_guid)
            return locked
        desired: DesiredLRP | None = self.core.get(TABLE, process_guid)
        return desired

    async def list_stored(self, wanted: Filter, after: str | None = None, limit: int = 500) -> list[StoredLRP]:
        guids, prefixes = wanted.process_guids, wanted.prefixes
        await self.core.statement(wanted.domain, after, *(guids or ()), *(prefixes or ()))

        def fits(definition: DesiredLRPDefinition) -> bool:
            guid = definition.process_guid
            return (
                guid > (after or "")
                and wanted.domain in (None, definition.domain)
                and (guids is None or guid in guids)
                and (prefixes is None or guid.startswith(tuple(prefixes)))
            )

        found = [desired for desired in self._all() if fits(desired.definition)]
        return [
            StoredLRP(
                desired.definition.process_guid, wire.encode_revealed(desired.definition), desired.modification_tag
            )
            for desired in found[:limit]
        ]

    async def list_scheduling_infos(self, process_guids: Sequence[str]) -> list[SchedulingInfo]:
        await self.core.statement(*process_guids)
        return [
            SchedulingInfo(
                process_guid=desired.definition.process_guid,
                domain=desired.definition.domain,
                instances=desired.definition.instances,
                memory_mb=desired.definition.memory_mb,
                disk_mb=desired.definition.disk_mb,
                rootfs=desired.definition.rootfs,
                placement_tags=tuple(desired.definition.placement_tags),
                revision=desired.revision,
                modification_tag=desired.modification_tag,
                update_strategy=desired.definition.update_strategy,
            )
            for desired in self._all()
            if desired.definition.process_guid in process_guids
        ]

    async def update(self, definition: DesiredLRPDefinition, revision: int) -> DesiredLRP | None:
        await self.core.statement(definition.process_guid)
        changed = await self.core.update(
            TABLE,
            definition.process_guid,
            lambda row: True,
            lambda row: evolve(
                row,
                definition=definition,
                revision=revision,
                modification_tag=row.modification_tag.next(),
                updated_at=self.core.now(),
            ),
        )
        return None if changed is None else changed[1]

    def _all(self) -> list[DesiredLRP]:
        return list(self.core.rows(TABLE))


def _reach(desired: DesiredLRP) -> Reach:
    egress = EgressChange(egress_rules=desired.definition.egress_rules, version=desired.modification_tag.index)
    return Reach(desired.definition.process_guid, desired.revision, egress)
