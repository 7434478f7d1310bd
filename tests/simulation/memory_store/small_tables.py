"""The tables of domains, failure documents, Idempotency-Keys and the leader, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from attrs import evolve, fields, frozen

from bbs.labels import Labels
from bbs.store.decisions import LastRound
from bbs.store.domains import DomainFreshness
from bbs.store.failures import PRUNE_ROWS, Document, FailureRecord, Filter, columns_of
from bbs.store.idempotency import KEPT_S, IdempotencyKey, KeyRecord, StoredAnswer
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.identifiers import CellId, Domain, InstanceGuid
from diego_py.models.task import Task
from tests.simulation.memory_store.engine import MemoryTransactionCore

DAY: Final = timedelta(days=1)
NEVER: Final = datetime.min.replace(tzinfo=UTC)
LEADER: Final = "singleton"
FAILURE_COLUMNS: Final = tuple(a.name for a in fields(FailureRecord) if a.name not in ("document", "created_at"))
"""As `columns_of` gives them."""


@frozen
class MemoryDomains:
    """What `tables.DomainTable` promises."""

    core: MemoryTransactionCore

    async def upsert(self, domain: str, ttl_s: float | None) -> None:
        await self.core.statement(domain)
        await self.core.take("domains", domain)
        expires_at = None if ttl_s is None else self.core.now() + timedelta(seconds=ttl_s)
        self.core.write("domains", domain, DomainFreshness(Domain(domain), expires_at))

    async def list_fresh(self) -> list[DomainFreshness]:
        await self.core.statement()
        rows: list[DomainFreshness] = list(self.core.rows("domains"))
        return [row for row in rows if row.expires_at is None or row.expires_at > self.core.began_at]

    async def prune(self) -> None:
        await self.core.statement()
        for row in list(self.core.rows("domains")):
            if row.expires_at is not None and row.expires_at < self.core.began_at - DAY:
                await self.core.update("domains", row.domain, lambda row: True, lambda row: None)


@frozen
class MemoryLabels:
    """What `tables.LabelTable` promises."""

    core: MemoryTransactionCore

    async def tell(self, instance_guid: str, labels: Labels) -> None:
        await self.core.statement(instance_guid)
        if self.core.get("labels", instance_guid) == labels:
            return
        if await self._raise_tags(lambda lrp: lrp.instance_guid == instance_guid):
            await self.core.take("labels", instance_guid)
            self.core.write("labels", instance_guid, labels)

    async def changed(self, process_guid: str) -> None:
        await self.core.statement(process_guid)
        await self._raise_tags(lambda lrp: lrp.process_guid == process_guid and lrp.state is ActualLRPState.RUNNING)

    async def _raise_tags(self, wanted: Callable[[ActualLRP], bool]) -> bool:
        rows = [row.lrp for row in self.core.rows("actual_lrps") if wanted(row.lrp)]
        for lrp in rows:
            await self.core.update(
                "actual_lrps",
                (lrp.process_guid, lrp.index, lrp.presence.value),
                lambda row: wanted(row.lrp),
                lambda row: evolve(row, lrp=evolve(row.lrp, modification_tag=row.lrp.modification_tag.next())),
            )
        return bool(rows)


@frozen
class FailureRow:
    """A stored document with its bytes."""

    record: FailureRecord
    body: bytes


@frozen
class MemoryFailures:
    """What `tables.FailureTable` promises."""

    core: MemoryTransactionCore

    async def insert(self, document: Document, phase: str, row: ActualLRP | Task | None) -> None:
        await self.insert_many([(document, phase, row)])

    async def insert_many(self, found: Sequence[tuple[Document, str, ActualLRP | Task | None]]) -> None:
        rows = [columns_of(*one) for one in found]
        await self.core.statement(*(text for row in rows for text in row[:-1] if isinstance(text, str)))
        for (document, _, _), row in zip(found, rows, strict=True):
            await self._insert(document, row)

    async def _insert(self, document: Document, row: tuple[Any, ...]) -> None:
        *columns, body = row
        await self.core.take("failures", document.id)
        if self.core.get("failures", document.id) is not None:
            return
        members = dict(zip(FAILURE_COLUMNS, columns, strict=True))
        now = self.core.now()
        record = FailureRecord(document=msgspec.json.decode(body), created_at=now, **members)
        self.core.write("failures", document.id, FailureRow(record, body))

    async def get(self, id: str) -> FailureRecord | None:
        await self.core.statement(id)
        row = self.core.get("failures", id)
        return None if row is None else row.record

    async def get_document(self, id: str) -> bytes | None:
        await self.core.statement(id)
        row = self.core.get("failures", id)
        return None if row is None else row.body

    async def list_page(
        self, wanted: Filter, after: tuple[datetime, str] | None = None, limit: int = 500
    ) -> list[FailureRecord]:
        await self.core.statement(wanted.process_guid, wanted.task_guid, wanted.domain, wanted.code)

        def fits(record: FailureRecord) -> bool:
            return (
                (after is None or (record.created_at, record.id) < after)
                and wanted.process_guid in (None, record.process_guid)
                and wanted.task_guid in (None, record.task_guid)
                and wanted.domain in (None, record.domain)
                and wanted.code in (None, record.code)
            )

        return self._newest_first(fits)[:limit]

    async def last_on_a_cell(self, process_guid: str, index: int) -> tuple[CellId, InstanceGuid] | None:
        await self.core.statement(process_guid)

        def fits(record: FailureRecord) -> bool:
            same = (record.process_guid, record.index) == (process_guid, index)
            return same and record.cell_id is not None and record.instance_guid is not None

        found = self._newest_first(fits)
        return (CellId(str(found[0].cell_id)), InstanceGuid(str(found[0].instance_guid))) if found else None

    async def prune(self) -> None:
        await self.core.statement()
        limit = self.core.began_at - timedelta(days=30)
        old = self._newest_first(lambda record: record.created_at < limit)
        for record in reversed(old[-PRUNE_ROWS:]):
            await self.core.update("failures", record.id, lambda row: True, lambda row: None)

    def _newest_first(self, wanted: Any) -> list[FailureRecord]:
        found = [row.record for row in self.core.rows("failures") if wanted(row.record)]
        return sorted(found, key=lambda record: (record.created_at, record.id), reverse=True)


@frozen(kw_only=True)
class KeyRow:
    """A key with its time."""

    route: str
    request_hash: bytes
    owner: str
    answer: StoredAnswer | None
    expires_at: datetime


@frozen
class MemoryIdempotency:
    """What `tables.IdempotencyTable` promises."""

    core: MemoryTransactionCore

    async def insert(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        await self.core.statement(key.key, key.route)
        await self.core.take("idempotency_keys", key.key)
        row = self.core.get("idempotency_keys", key.key)
        if row is not None and (row.answer is None or row.expires_at > self.core.now()):
            return False
        fresh = KeyRow(
            route=key.route,
            request_hash=key.request_hash,
            owner=key.owner,
            answer=None,
            expires_at=self.core.now() + timedelta(seconds=in_flight_s),
        )
        self.core.write("idempotency_keys", key.key, fresh)
        return True

    async def get(self, key: str) -> KeyRecord | None:
        await self.core.statement(key)
        row = self.core.get("idempotency_keys", key)
        if row is None:
            return None
        return KeyRecord(
            route=row.route,
            request_hash=row.request_hash,
            owner=row.owner,
            answer=row.answer,
            expired=row.expires_at <= self.core.now(),
        )

    async def take_over(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        await self.core.statement(key.key)
        now = self.core.now()
        changed = await self.core.update(
            "idempotency_keys",
            key.key,
            lambda row: row.answer is None and row.expires_at <= self.core.now(),
            lambda row: evolve(row, owner=key.owner, expires_at=now + timedelta(seconds=in_flight_s)),
        )
        return changed is not None

    async def answered(self, key: IdempotencyKey, answer: StoredAnswer) -> bool:
        await self.core.statement(key.key)
        until = self.core.now() + timedelta(seconds=KEPT_S)
        changed = await self.core.update(
            "idempotency_keys",
            key.key,
            lambda row: row.owner == key.owner,
            lambda row: evolve(row, answer=answer, expires_at=until),
        )
        return changed is not None

    async def prune(self) -> None:
        await self.core.statement()
        over = self.core.began_at - DAY
        tables = self.core.database.tables
        for key, row in list(tables["idempotency_keys"].items()):
            if row.expires_at < over:
                await self.core.update("idempotency_keys", key, lambda row: row.expires_at < over, lambda row: None)


@frozen
class MemoryDecisions:
    """What `tables.DecisionTable` promises."""

    core: MemoryTransactionCore

    async def tell(self, epoch: int, owner: str, document: bytes | None) -> None:
        await self.core.statement(owner)
        now = self.core.began_at
        await self.core.update(
            "decisions",
            LEADER,
            lambda row: row.epoch <= epoch,
            lambda row: LastRound(epoch, owner, now, row.document if document is None else document),
        )

    async def last(self) -> LastRound | None:
        await self.core.statement()
        row: LastRound = self.core.get("decisions", LEADER)
        return None if row.decided_at == NEVER else row


@frozen
class LeaderRow:
    """Who leads, in which epoch, until when."""

    epoch: int
    owner: str
    expires_at: datetime


NOBODY: Final = LeaderRow(0, "", NEVER)
UNDECIDED: Final = LastRound(0, "", NEVER, b"{}")


@frozen
class MemoryLeader:
    """What `tables.LeaderTable` promises."""

    core: MemoryTransactionCore

    async def acquire_or_renew(self, owner: str, ttl_s: float) -> int | None:
        await self.core.statement(owner)

        def renewed(row: LeaderRow) -> LeaderRow:
            now = self.core.now()
            keeps = row.owner == owner and row.expires_at > now
            return LeaderRow(row.epoch if keeps else row.epoch + 1, owner, now + timedelta(seconds=ttl_s))

        changed = await self.core.update(
            "leader", LEADER, lambda row: row.owner == owner or row.expires_at <= self.core.now(), renewed
        )
        return None if changed is None else changed[1].epoch

    async def hold_epoch(self) -> int:
        await self.core.statement()
        row: LeaderRow = await self.core.lock("leader", LEADER, shared=True)
        return row.epoch

    async def release(self, owner: str, epoch: int) -> None:
        await self.core.statement(owner)
        await self.core.update(
            "leader",
            LEADER,
            lambda row: (row.owner, row.epoch) == (owner, epoch),
            lambda row: LeaderRow(row.epoch, "", NEVER),
        )
