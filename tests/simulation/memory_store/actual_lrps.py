"""Instances in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from attrs import evolve, frozen

from bbs.store.actual_lrps import Key, Locked, RemovedRow, RowKey
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.identifiers import Domain, InstanceGuid, ProcessGuid
from diego_py.models.workload import ModificationTag
from tests.simulation.memory_store.abandoned import TABLE as ABANDONED
from tests.simulation.memory_store.abandoned import live_attempts
from tests.simulation.memory_store.engine import ConstraintViolated, MemoryTransactionCore

TABLE: Final = "actual_lrps"
WITHOUT_CELL: Final = (ActualLRPState.UNCLAIMED, ActualLRPState.CRASHED)
PLACED: Final = (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)


@frozen
class Row:
    """An instance with the document behind its failure."""

    lrp: ActualLRP
    failure_id: str | None


@frozen
class MemoryActualLRPs:
    """What `tables.ActualLRPTable` promises."""

    core: MemoryTransactionCore

    async def insert_unclaimed(
        self,
        process_guid: str,
        domain: str,
        indices: Sequence[int],
        instance_guids: Sequence[str | None],
        tag_epochs: Sequence[str],
        revision: int,
    ) -> list[ActualLRP]:
        await self.core.statement(process_guid, domain, *instance_guids)
        return await self.inserted(process_guid, domain, indices, instance_guids, tag_epochs, revision)

    async def inserted(
        self,
        process_guid: str,
        domain: str,
        indices: Sequence[int],
        instance_guids: Sequence[str | None],
        tag_epochs: Sequence[str],
        revision: int,
    ) -> list[ActualLRP]:
        """The same within a statement."""
        inserted = []
        for index, instance_guid, epoch in zip(indices, instance_guids, tag_epochs, strict=True):
            key = (process_guid, index, Presence.ORDINARY.value)
            await self.core.take(TABLE, key)
            if self.core.get(TABLE, key) is not None:
                continue
            lrp = ActualLRP(
                process_guid=ProcessGuid(process_guid),
                index=index,
                domain=Domain(domain),
                state=ActualLRPState.UNCLAIMED,
                instance_guid=None if instance_guid is None else InstanceGuid(instance_guid),
                since=self.core.now(),
                revision=revision,
                modification_tag=ModificationTag(epoch=epoch, index=0),
            )
            self._write(key, Row(lrp, None))
            inserted.append(lrp)
        return sorted(inserted, key=lambda lrp: lrp.index)

    async def get(self, process_guid: str, index: int, presence: str = "ORDINARY") -> ActualLRP | None:
        await self.core.statement(process_guid)
        row = self.core.get(TABLE, (process_guid, index, presence))
        return None if row is None else self._with_failure(row)

    async def lock(self, process_guid: str, index: int, presence: str = "ORDINARY") -> Locked | None:
        await self.core.statement(process_guid)
        row = await self.core.lock(TABLE, (process_guid, index, str(presence)))
        return None if row is None else Locked(row.lrp, row.failure_id, self.core.now())

    async def lock_many(self, keys: Sequence[Key]) -> list[Locked]:
        await self.core.statement(*(guid for guid, _ in keys))
        found = [await self.core.lock(TABLE, (*key, Presence.ORDINARY.value)) for key in sorted(keys)]
        return [Locked(row.lrp, row.failure_id, self.core.now()) for row in found if row is not None]

    async def list_of(self, process_guid: str) -> list[ActualLRP]:
        await self.core.statement(process_guid)
        return self._listed(lambda lrp: lrp.process_guid == process_guid)

    async def list_of_cell(self, cell_id: str) -> list[ActualLRP]:
        await self.core.statement(cell_id)
        return self._listed(lambda lrp: lrp.cell_id == cell_id)

    async def list_concerning(self, cell_ids: Sequence[str], instance_guids: Sequence[str]) -> list[ActualLRP]:
        await self.core.statement(*cell_ids, *instance_guids)
        guids = set(instance_guids)
        return self._listed(lambda lrp: lrp.cell_id in cell_ids or lrp.instance_guid in guids)

    async def list_all(self) -> list[ActualLRP]:
        await self.core.statement()
        return self._listed(lambda lrp: True)

    async def list_of_keys(self, keys: Sequence[Key]) -> list[ActualLRP]:
        await self.core.statement(*(guid for guid, _ in keys))
        wanted = set(keys)
        return self._listed(lambda lrp: (lrp.process_guid, lrp.index) in wanted)

    async def save_many(self, changes: Sequence[tuple[ActualLRP, str | None]]) -> None:
        await self.core.statement(*(text for row, _ in changes for text in (row.crash_reason, row.placement_error)))
        for row, failure_id in changes:
            await self.written(row, failure_id)

    async def save(self, row: ActualLRP, failure_id: str | None) -> None:
        await self.core.statement(row.crash_reason, row.placement_error)
        await self.written(row, failure_id)

    async def written(self, row: ActualLRP, failure_id: str | None) -> None:
        """Write one within a statement."""
        key = (row.process_guid, row.index, row.presence.value)
        stored = await self.core.lock(TABLE, key)
        if stored is None:
            return
        kept = stored.lrp
        tag = evolve(kept.modification_tag, index=row.modification_tag.index)
        written = evolve(row, domain=kept.domain, stop_asked_at=kept.stop_asked_at, modification_tag=tag, failure=None)
        self._write(key, Row(written, failure_id))

    async def ask_stop(self, process_guid: str, first: int) -> None:
        await self.core.statement(process_guid)
        for lrp in self._listed(lambda lrp: lrp.process_guid == process_guid):
            key = (lrp.process_guid, lrp.index, lrp.presence.value)
            await self.core.update(
                TABLE,
                key,
                lambda row: (row.lrp.stop_asked_at is None) == (row.lrp.index >= first),
                lambda row: evolve(row, lrp=self.asked(row.lrp, row.lrp.index >= first)),
            )

    async def close(self, row: ActualLRP) -> None:
        await self.core.statement(row.process_guid)
        await self.core.update(
            TABLE,
            (row.process_guid, row.index, row.presence.value),
            lambda stored: stored.lrp.instance_guid == row.instance_guid and stored.lrp.stop_asked_at is None,
            lambda stored: evolve(stored, lrp=evolve(self.asked(stored.lrp, True), routable=False)),
        )

    def asked(self, lrp: ActualLRP, asked: bool) -> ActualLRP:
        """A row that is to be stopped, or is not any more."""
        tag = evolve(lrp.modification_tag, index=lrp.modification_tag.index + 1)
        return evolve(lrp, stop_asked_at=self.core.now() if asked else None, modification_tag=tag)

    async def move_many(self, changes: Sequence[tuple[ActualLRP, Presence, str | None]]) -> None:
        await self.core.statement()
        for row, presence, failure_id in changes:
            stored = await self.core.lock(TABLE, key_of(row))
            if stored is None:
                continue
            await self._delete(key_of(row), lambda row: True)
            lrp: ActualLRP = stored.lrp
            await self._insert(evolve(lrp, presence=presence, modification_tag=lrp.modification_tag.next()), failure_id)

    async def insert_many(self, rows: Sequence[tuple[ActualLRP, str | None]]) -> None:
        await self.core.statement(*(text for row, _ in rows for text in (row.process_guid, row.placement_error)))
        for row, failure_id in rows:
            await self._insert(row, failure_id)

    async def _insert(self, row: ActualLRP, failure_id: str | None) -> None:
        await self.core.take(TABLE, key_of(row))
        if self.core.get(TABLE, key_of(row)) is not None:
            raise ConstraintViolated("UniqueViolation: actual_lrps_pkey")
        self._write(key_of(row), Row(evolve(row, failure=None), failure_id))

    async def delete(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> bool:
        await self.core.statement(process_guid, instance_guid)
        return await self._delete(
            (process_guid, index, str(presence)),
            lambda row: instance_guid is None or row.lrp.instance_guid == instance_guid,
        )

    async def delete_many(self, rows: Sequence[ActualLRP]) -> set[RowKey]:
        await self.core.statement(*(row.process_guid for row in rows))
        deleted = set()
        for wanted in sorted(rows, key=key_of):
            guid = wanted.instance_guid
            if await self._delete(key_of(wanted), lambda row, guid=guid: guid in (None, row.lrp.instance_guid)):
                deleted.add(key_of(wanted))
        return deleted

    async def remove(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> RemovedRow:
        await self.core.statement(process_guid, instance_guid)
        key = (process_guid, index, str(presence))
        others = {key_of(lrp) for lrp in self._listed(lambda lrp: lrp.process_guid == process_guid)}
        attempts = [row for row in live_attempts(self.core, process_guid) if row.instance_guid != instance_guid]
        deleted = await self._delete(
            key, lambda row: instance_guid is None or row.lrp.instance_guid == instance_guid
        )
        if deleted:
            others.discard(key)
        if instance_guid is not None:
            await self.core.update(ABANDONED, instance_guid, lambda row: True, lambda row: None)
        return RemovedRow(deleted, not others and not attempts)

    async def _delete(self, key: tuple[str, int, str], where: Callable[[Row], bool]) -> bool:
        return await self.core.update(TABLE, key, where, lambda row: None) is not None

    def _listed(self, wanted: Callable[[ActualLRP], bool]) -> list[ActualLRP]:
        return [row.lrp for row in self.core.rows(TABLE) if wanted(row.lrp)]

    def _with_failure(self, row: Row) -> ActualLRP:
        failure = None if row.failure_id is None else self.core.get("failures", row.failure_id)
        if failure is None:
            return row.lrp
        return evolve(row.lrp, failure=msgspec.json.decode(failure.body, type=dict[str, Any]))

    def _write(self, key: tuple[str, int, str], row: Row) -> None:
        check(row.lrp)
        guid = row.lrp.instance_guid
        if guid is not None:
            for other in self.core.rows(TABLE):
                if other.lrp.instance_guid == guid and (other.lrp.process_guid, other.lrp.index) != key[:2]:
                    raise ConstraintViolated("UniqueViolation: actual_lrps_instance_guid")
        self.core.write(TABLE, key, row)


def key_of(lrp: ActualLRP) -> tuple[str, int, str]:
    return lrp.process_guid, lrp.index, lrp.presence.value


def check(lrp: ActualLRP) -> None:
    """The CHECK constraints of the table. Raises ConstraintViolated."""
    placed, running = lrp.state in PLACED, lrp.state is ActualLRPState.RUNNING
    kept = (
        (lrp.cell_id is not None) == placed
        and (lrp.instance_guid is not None or not placed)
        and (lrp.instance_guid is None or lrp.state is not ActualLRPState.CRASHED)
        and (lrp.net_info is not None) == running
        and (running or not lrp.routable)
        and (lrp.placement_error is None or lrp.state is ActualLRPState.UNCLAIMED)
        and (lrp.presence is Presence.ORDINARY or running)
        and lrp.index >= 0
    )
    if not kept:
        raise ConstraintViolated(f"CheckViolation: {lrp.state} {lrp.process_guid}/{lrp.index}")
