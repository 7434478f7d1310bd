"""Cells in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from attrs import evolve, frozen

from bbs.store.cells import CellRecord
from diego_py.models.identifiers import CellId
from diego_py.models.work import CellReport
from tests.simulation.memory_store.engine import MemoryTransactionCore

TABLE: Final = "cells"


@frozen(kw_only=True)
class Row:
    """A record with what only the store looks at."""

    record: CellRecord
    expires_at: datetime
    former_boot_id: str | None

    @property
    def boot_id(self) -> str:
        return self.record.presence.boot_id

    def takes(self, report: CellReport, now: datetime) -> bool:
        """Whether the report is newer than this."""
        boot_id = report.presence.boot_id
        if self.record.presence.home_id != report.presence.home_id and self.expires_at > now:
            return False
        if boot_id == self.boot_id:
            return self.record.sequence <= report.sequence
        return self.former_boot_id != boot_id or self.expires_at <= now


@frozen
class MemoryCells:
    """What `tables.CellTable` promises."""

    core: MemoryTransactionCore

    async def upsert(self, reports: Sequence[CellReport], ttl_s: float) -> set[CellId]:
        await self.core.statement(*(report.presence.cell_id for report in reports))
        ordered = sorted(reports, key=lambda report: report.presence.cell_id)
        return {report.presence.cell_id for report in ordered if await self._upsert(report, ttl_s)}

    async def _upsert(self, report: CellReport, ttl_s: float) -> bool:
        cell_id = report.presence.cell_id
        await self.core.take(TABLE, cell_id)
        now, known = self.core.now(), self.core.get(TABLE, cell_id)
        if known is not None and not known.takes(report, now):
            return False
        former = None
        if known is not None:
            former = known.former_boot_id if known.boot_id == report.presence.boot_id else known.boot_id
        expires_at = now + timedelta(seconds=ttl_s)
        record = CellRecord(
            presence=report.presence,
            available=report.available,
            sequence=report.sequence,
            seen_at=now,
            expires_at=expires_at,
        )
        self.core.write(TABLE, cell_id, Row(record=record, expires_at=expires_at, former_boot_id=former))
        return True

    async def list_live(self) -> list[CellRecord]:
        await self.core.statement()
        return [record for record in self._all() if record.live]

    async def list_all(self) -> list[CellRecord]:
        await self.core.statement()
        return self._all()

    async def get(self, cell_id: str) -> CellRecord | None:
        await self.core.statement(cell_id)
        row = self.core.get(TABLE, cell_id)
        return None if row is None else self._record(row)

    async def is_live(self, cell_id: str, boot_id: str) -> bool:
        await self.core.statement(cell_id, boot_id)
        row = self.core.get(TABLE, cell_id)
        return row is not None and row.boot_id == boot_id and row.expires_at > self.core.now()

    async def live_of(self, boots: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        await self.core.statement(*(text for boot in boots for text in boot))
        now, found = self.core.now(), {cell_id: self.core.get(TABLE, cell_id) for cell_id, _ in boots}
        rows = ((boot, found[boot[0]]) for boot in boots)
        return {boot for boot, row in rows if row is not None and row.boot_id == boot[1] and row.expires_at > now}

    async def expire(self, cell_id: str) -> bool:
        await self.core.statement(cell_id)
        changed = await self.core.update(
            TABLE, cell_id, lambda row: True, lambda row: evolve(row, expires_at=self.core.now())
        )
        return changed is not None

    async def delete(self, cell_id: str) -> bool:
        await self.core.statement(cell_id)
        return await self.core.update(TABLE, cell_id, lambda row: True, lambda row: None) is not None

    def _all(self) -> list[CellRecord]:
        return [self._record(row) for row in self.core.rows(TABLE)]

    def _record(self, row: Row) -> CellRecord:
        return evolve(row.record, expires_at=row.expires_at, live=row.expires_at > self.core.now())
