"""Instances with all that is told of them, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from bbs.labels import Labels, labels_of
from bbs.store import labels
from bbs.store.told_instances import Mark, ToldInstance, Wanted
from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from tests.simulation.memory_store.actual_lrps import Row
from tests.simulation.memory_store.engine import MemoryTransactionCore


@frozen
class MemoryToldInstances:
    """What `tables.ToldInstances` promises."""

    core: MemoryTransactionCore

    async def list_marks(self, wanted: Wanted, limit: int | None = None) -> list[Mark]:
        return [row.mark for row in await self.list_page(wanted, limit)]

    async def list_page(self, wanted: Wanted, limit: int | None = None) -> list[ToldInstance]:
        await self.core.statement(wanted.domain, wanted.cell_id, *(wanted.process_guids or ()))
        rows = [row for row in self.core.rows("actual_lrps") if _fits(row.lrp, wanted)]
        return [self._told(row) for row in rows[:limit]]

    def _told(self, row: Row) -> ToldInstance:
        desired = self.core.get("desired_lrps", row.lrp.process_guid)
        failure = None if row.failure_id is None else self.core.get("failures", row.failure_id)
        return told(
            row.lrp,
            self.core.get("labels", row.lrp.instance_guid) or (desired and labels_of(desired.definition)),
            desired and list(desired.definition.placement_tags),
            failure and failure.body,
        )


def told(
    row: ActualLRP, of_it: Labels | None = None, tags: Sequence[str] | None = None, document: bytes | None = None
) -> ToldInstance:
    """A row as it is read with what belongs to it."""
    values = (
        row.domain,
        row.instance_guid,
        row.cell_id,
        None if row.net_info is None else wire.encode(row.net_info),
        row.since,
        row.crash_count,
        row.crash_reason,
        row.placement_error,
        row.routable,
        row.availability_zone,
        row.modification_tag.epoch,
        row.modification_tag.index,
        labels.encoded(of_it) if of_it is not None and row.state is ActualLRPState.RUNNING else None,
        None if row.placement_error is None else tags,
        document,
    )
    place = (row.process_guid, row.index, row.presence.value)
    return ToldInstance(Mark(place, row.state.value, hash((*values[:-3], str(values[-3:])))), *values)


def _fits(row: ActualLRP, wanted: Wanted) -> bool:
    place = (row.process_guid, row.index, row.presence.value)
    return (
        (wanted.process_guids is None or row.process_guid in wanted.process_guids)
        and wanted.domain in (None, row.domain)
        and (wanted.cell_id is None or wanted.cell_id == row.cell_id)
        and (wanted.after is None or place > wanted.after)
        and (wanted.until is None or place <= wanted.until)
    )
