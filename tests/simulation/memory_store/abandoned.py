"""Abandoned attempts in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from attrs import frozen

from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.workload import ModificationTag
from tests.simulation.memory_store.cells import TABLE as CELLS
from tests.simulation.memory_store.engine import MemoryTransactionCore

TABLE: Final = "abandoned_attempts"
DAY: Final = timedelta(days=1)


@frozen
class MemoryAbandoned:
    """What `tables.AbandonedTable` promises."""

    core: MemoryTransactionCore

    async def insert_many(self, rows: Sequence[ActualLRP]) -> None:
        await self.core.statement(*(row.instance_guid for row in rows))
        for row in sorted(rows, key=lambda row: row.instance_guid or ""):
            await self._insert(row)

    async def _insert(self, row: ActualLRP) -> None:
        assert row.instance_guid is not None
        await self.core.take(TABLE, row.instance_guid)
        if self.core.get(TABLE, row.instance_guid) is None:
            attempt = ActualLRP(
                process_guid=row.process_guid,
                index=row.index,
                domain=row.domain,
                state=ActualLRPState.CLAIMED,
                instance_guid=row.instance_guid,
                cell_id=row.cell_id,
                since=self.core.now(),
                revision=row.revision,
                modification_tag=ModificationTag(epoch=row.instance_guid, index=0),
            )
            self.core.write(TABLE, row.instance_guid, attempt)

    async def list_of(self, process_guid: str, first: int = 0) -> list[ActualLRP]:
        await self.core.statement(process_guid)
        found = [row for row in live_attempts(self.core, process_guid) if row.index >= first]
        return sorted(found, key=lambda row: (row.index, row.instance_guid))

    async def settle(self, cell_ids: Sequence[str], reported: Sequence[str], older_than_s: float) -> None:
        await self.core.statement(*cell_ids, *reported)
        until = self.core.now() - timedelta(seconds=older_than_s)
        await self._delete(
            lambda row: row.cell_id in cell_ids and row.instance_guid not in reported and row.since <= until
        )

    async def prune(self) -> None:
        await self.core.statement()
        until = self.core.began_at - DAY
        await self._delete(lambda row: row.since < until and not _is_live(self.core, row))

    async def _delete(self, where: Callable[[ActualLRP], bool]) -> None:
        for row in [row for row in self.core.rows(TABLE) if where(row)]:
            await self.core.update(TABLE, row.instance_guid, where, lambda row: None)


def live_attempts(core: MemoryTransactionCore, process_guid: str) -> list[ActualLRP]:
    """Those of an LRP, on cells whose presence lasts."""
    return [row for row in core.rows(TABLE) if row.process_guid == process_guid and _is_live(core, row)]


def _is_live(core: MemoryTransactionCore, row: ActualLRP) -> bool:
    cell = core.get(CELLS, row.cell_id)
    return cell is not None and cell.expires_at > core.now()
