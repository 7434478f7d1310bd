"""Cells in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from attrs import evolve, frozen

from bbs.store.cells import Boot, CellMark, CellRecord
from diego_py.models.identifiers import CellId
from diego_py.models.task import TaskState
from diego_py.models.work import CellReport, Heartbeat
from tests.simulation.memory_store.engine import MemoryTransactionCore

TABLE: Final = "cells"


@frozen(kw_only=True)
class Row:
    """A record with what only the store looks at."""

    record: CellRecord
    expires_at: datetime
    former_boot_id: str | None
    told: int = 0
    digest: str = ""
    settled: int | None = None

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

    async def upsert(self, reports: Sequence[CellReport], ttl_s: float) -> dict[CellId, int | None]:
        await self.core.statement(*(text for report in reports for text in (report.presence.cell_id, report.digest)))
        ordered = sorted(reports, key=lambda report: report.presence.cell_id)
        before = {report.presence.cell_id: self._fingerprint(report.presence.cell_id) for report in ordered}
        taken = [report.presence.cell_id for report in ordered if await self._upsert(report, ttl_s)]
        return {cell_id: before[cell_id] for cell_id in taken}

    async def settle(self, fingerprints: Mapping[CellId, int]) -> None:
        await self.core.statement(*fingerprints)
        for cell_id, fingerprint in fingerprints.items():
            await self.core.update(TABLE, cell_id, lambda row: True, partial(evolve, settled=fingerprint))

    async def renew(self, beats: Sequence[tuple[CellId, Heartbeat]], ttl_s: float) -> set[CellId]:
        await self.core.statement(*(text for cell_id, beat in beats for text in (cell_id, beat.boot_id, beat.digest)))
        ordered = sorted(beats, key=lambda told: told[0])
        before = {cell_id: self._fingerprint(cell_id) for cell_id, _ in ordered}
        renewed = set()
        for cell_id, beat in ordered:
            same = partial(_is_same, beat=beat, fingerprint=before[cell_id])
            if await self.core.update(TABLE, cell_id, same, partial(self._renewed, beat, ttl_s)) is not None:
                renewed.add(cell_id)
        return renewed

    def _renewed(self, beat: Heartbeat, ttl_s: float, row: Row) -> Row:
        now = self.core.now()
        expires_at = now + timedelta(seconds=ttl_s)
        record = evolve(row.record, sequence=beat.sequence, seen_at=now, expires_at=expires_at)
        return evolve(row, record=record, expires_at=expires_at)

    def _fingerprint(self, cell_id: str) -> int | None:
        if any(attempt.cell_id == cell_id for attempt in self.core.rows("abandoned_attempts")):
            return None
        lrps = (row.lrp for row in self.core.rows("actual_lrps"))
        instances = [(lrp.instance_guid, lrp.modification_tag.index) for lrp in lrps if lrp.cell_id == cell_id]
        tasks = [row.task for row in self.core.rows("tasks") if row.task.state is TaskState.RUNNING]
        return hash((frozenset(instances), frozenset(task.instance_guid for task in tasks if task.cell_id == cell_id)))

    async def list_marks(self) -> list[CellMark]:
        await self.core.statement()
        now = self.core.began_at
        return [_mark(row, now) for row in self.core.rows(TABLE)]

    async def list_many(self, cell_ids: Sequence[str]) -> list[CellRecord]:
        await self.core.statement(*cell_ids)
        return [record for record in self._all() if record.live and record.cell_id in cell_ids]

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
        row = Row(
            record=record,
            expires_at=expires_at,
            former_boot_id=former,
            told=report.sequence,
            digest=report.digest,
        )
        self.core.write(TABLE, cell_id, row)
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

    async def live_of(self, boots: Sequence[Boot]) -> set[Boot]:
        await self.core.statement(*(text for boot in boots for text in boot))
        now, found = self.core.now(), {cell_id: self.core.get(TABLE, cell_id) for cell_id, _ in boots}
        rows = ((boot, found[boot[0]]) for boot in boots)
        return {
            boot
            for boot, row in rows
            if row is not None and boot[1] in (None, row.boot_id) and row.expires_at > now
        }

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


def _is_same(row: Row, beat: Heartbeat, fingerprint: int | None) -> bool:
    """Whether the cell is as it said last, and what we have of it as it was when both agreed."""
    return (
        (row.boot_id, row.digest) == (beat.boot_id, beat.digest)
        and row.record.sequence <= beat.sequence
        and row.settled is not None
        and row.settled == fingerprint
    )


def _mark(row: Row, now: datetime) -> CellMark:
    live, seen_at = row.expires_at > now, row.record.seen_at
    return CellMark(
        cell_id=row.record.cell_id,
        boot_id=row.boot_id,
        told=row.told,
        live=live,
        draining=row.record.presence.draining,
        late=live and seen_at is not None and now - seen_at > (row.expires_at - seen_at) / 2,
        expires_at=row.expires_at,
    )
