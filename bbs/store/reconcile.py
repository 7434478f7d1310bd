"""A cell's report against the rows: what started, ended or vanished, and what the cell must stop.

`compare` decides, from unlocked rows; `Reconciliation.apply` locks each row that differs and looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from attrs import define, frozen

from bbs.convergence.backoff import CrashPolicy, after_failure_s
from bbs.outcome import after_crash, is_no_crash
from bbs.store import moves, rows
from bbs.store.actual_lrps import Locked
from bbs.store.failures import Document, document_of, document_of_cell
from bbs.store.transaction import Transaction
from diego_py.chain import Problem
from diego_py.errors import ContainerVanished, Fault, Outcome
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.work import CellReport, EndedReport, InstanceReport, InstanceState

SETTLED_S: Final = 5.0
"""A row younger than this may have been claimed after the report was written."""
JUST_BEGUN_S: Final = 60.0
"""What ends sooner by the platform's fault could end as soon again."""
PLACED: Final = (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
WriteProblem = Callable[[ActualLRP, ContainerVanished, datetime], Problem]
"""Makes the numbered document of a vanished container, given when it is tried again."""


@frozen
class Gone:
    """A row beside the ordinary one whose container ended, with its story if there is one."""

    row: ActualLRP
    ended: EndedReport | None


@frozen
class Differences:
    """Where a report and the rows disagree."""

    started: tuple[InstanceReport, ...]
    ended: tuple[EndedReport, ...]
    vanished: tuple[ActualLRP, ...]
    stop: tuple[InstanceGuid, ...]
    gone: tuple[Gone, ...] = ()
    """What was about to be replaced anyway: no crash of the instance, whose ordinary row is another one."""
    beside: tuple[tuple[ActualLRP, InstanceReport], ...] = ()
    """Rows beside ordinary ones that became routable, or are not any more."""
    none: bool = False
    """The cell runs what its rows say, all of it and nothing else, and nothing of it is under way."""


def compare(report: CellReport, known: Sequence[ActualLRP], now: datetime) -> Differences:
    """What a report changes. `known` are all rows of the cell and all rows of the reported instances.

    Only rows that carry this cell's id, or that wait for exactly the reported instance, are touched.
    """
    cell_id = report.presence.cell_id
    by_guid = {row.instance_guid: row for row in known if row.instance_guid is not None}
    started: list[InstanceReport] = []
    stop: list[InstanceGuid] = []
    for instance in report.instances:
        row = by_guid.get(instance.instance_guid)
        ends = instance.state is InstanceState.STOPPING  # asked for again: an end that failed half-way is finished so
        if row is None or ends or not _is_of(row, instance, cell_id):
            stop.append(instance.instance_guid)
        elif _has_started(row, instance):
            started.append(instance)
    ended = [ended for ended in report.ended if _may_crash(by_guid.get(ended.instance_guid), ended, cell_id)]
    reported = set(reported_guids(report))
    vanished = [row for row in known if has_vanished(row, cell_id, reported, now)]
    stories = {ended.instance_guid: ended for ended in report.ended}
    beside = (row for row in known if _is_beside(row, cell_id))
    gone = [Gone(row, stories.get(row.instance_guid)) for row in beside if row.instance_guid is not None]
    told = {instance.instance_guid: instance for instance in report.instances}
    named = ((item.row, told.get(item.row.instance_guid or InstanceGuid(""))) for item in gone)
    reopened = tuple((row, now) for row, now in named if now is not None and row.routable is not _is_open(row, now))
    ours = {row.instance_guid for row in known if row.cell_id == cell_id}
    all_run = all(instance.state is InstanceState.RUNNING for instance in report.instances)
    return Differences(
        tuple(started),
        tuple(ended),
        tuple(row for row in vanished if row.presence is Presence.ORDINARY),
        tuple(stop),
        tuple(item for item in gone if item.ended is not None or item.row in vanished),
        reopened,
        none=ours == reported and all_run and not (started or stop or reopened or report.ended),
    )


def reported_guids(report: CellReport) -> list[InstanceGuid]:
    """Every instance that the cell has or that ended on it."""
    return [item.instance_guid for item in report.instances] + [item.instance_guid for item in report.ended]


def has_vanished(row: ActualLRP, cell_id: CellId, reported: set[InstanceGuid], now: datetime) -> bool:
    """Whether the cell should have the instance, for long enough, and does not."""
    return (
        row.cell_id == cell_id
        and row.state in PLACED
        and row.instance_guid not in reported
        and now - row.since > timedelta(seconds=SETTLED_S)
    )


def _is_open(row: ActualLRP, instance: InstanceReport) -> bool:
    """Whether requests may come to it: it is ready, and nobody has closed it to end it."""
    return instance.routable and row.stop_asked_at is None


def _is_beside(row: ActualLRP, cell_id: CellId) -> bool:
    return row.presence is not Presence.ORDINARY and row.cell_id == cell_id


def _is_of(row: ActualLRP, instance: InstanceReport | EndedReport, cell_id: CellId) -> bool:
    """Whether the row is this very instance and belongs to this cell, or to none yet."""
    same = (row.process_guid, row.index, row.instance_guid) == (
        instance.process_guid,
        instance.index,
        instance.instance_guid,
    )
    return same and row.cell_id in (None, cell_id)


def _has_started(row: ActualLRP, instance: InstanceReport) -> bool:
    running = instance.state is InstanceState.RUNNING and instance.net_info is not None
    known = row.state is ActualLRPState.RUNNING and row.routable is instance.routable
    return running and not (known and row.net_info == instance.net_info) and row.presence is Presence.ORDINARY


def _may_crash(row: ActualLRP | None, ended: EndedReport, cell_id: CellId) -> bool:
    ours = row is not None and row.cell_id == cell_id and _is_of(row, ended, cell_id)
    return ours and row is not None and row.state in PLACED and row.presence is Presence.ORDINARY


@frozen
class Reconciled:
    """What was changed, as it is now."""

    started: tuple[ActualLRP, ...] = ()
    crashed: tuple[ActualLRP, ...] = ()
    vanished: tuple[ActualLRP, ...] = ()


@define
class Reconciliation:
    """Applies differences to the rows, in key order, so that two of them never wait for each other."""

    tx: Transaction
    report: CellReport
    new_guid: Callable[[], str]
    write_problem: WriteProblem
    crash_policy: CrashPolicy

    async def apply(self, differences: Differences) -> Reconciled:
        """Each difference that is still one once its row is locked."""
        items: list[InstanceReport | EndedReport | ActualLRP] = []
        items += differences.started
        items += differences.ended
        items += differences.vanished
        by_key = {(item.process_guid, item.index): item for item in reversed(items)}
        started: list[ActualLRP] = []
        crashed: list[ActualLRP] = []
        vanished: list[ActualLRP] = []
        for key, item in sorted(by_key.items(), key=lambda entry: entry[0]):
            locked = await self.tx.actual_lrps.lock(*key)
            if locked is None:
                continue
            match item:
                case InstanceReport():
                    started += await self._start(locked, item)
                case EndedReport():
                    crashed += await self._crash(locked, item)
                case ActualLRP():
                    vanished += await self._vanish(locked, item)
        for seen, instance in differences.beside:
            await self._reopen(seen, instance)
        for gone in sorted(differences.gone, key=lambda gone: (gone.row.process_guid, gone.row.index)):
            await self._forget(gone)
        return Reconciled(tuple(started), tuple(crashed), tuple(vanished))

    async def _reopen(self, seen: ActualLRP, instance: InstanceReport) -> None:
        """Requests may come to it, or may not any more; it serves beside another one all the same."""
        locked = await self.tx.actual_lrps.lock(seen.process_guid, seen.index, seen.presence)
        if locked is not None and locked.row.modification_tag == seen.modification_tag:
            await rows.save(self.tx, locked, moves.reopened(locked.row, _is_open(locked.row, instance)))

    async def _forget(self, gone: Gone) -> None:
        """Its story is kept; its replacement is on its way."""
        row = gone.row
        if gone.ended is not None:
            document = document_of_cell(gone.ended.failure, self.new_guid())
            await self.tx.failures.insert(document, "run", row)
        await self.tx.actual_lrps.delete(row.process_guid, row.index, row.instance_guid, row.presence)

    async def _start(self, locked: Locked, instance: InstanceReport) -> list[ActualLRP]:
        presence, row = self.report.presence, locked.row
        still = _is_of(row, instance, presence.cell_id) and _has_started(row, instance)
        if not still or instance.net_info is None:
            return []
        after = moves.started(row, presence.cell_id, instance.net_info, presence.zone, locked.now, instance.routable)
        return [await rows.save(self.tx, locked, after)]

    async def _crash(self, locked: Locked, ended: EndedReport) -> list[ActualLRP]:
        if not _may_crash(locked.row, ended, self.report.presence.cell_id):
            return []
        document = document_of_cell(ended.failure, self.new_guid())
        if locked.row.state is ActualLRPState.RUNNING and is_no_crash(document.members):
            return [await self._lose(locked, document)]
        after = moves.crashed(locked.row, document.detail, locked.now, self.crash_policy)
        document = document.with_members(**after_crash(document.members, after))
        return [await rows.save_failed(self.tx, locked, after, document, "run", gone=True)]

    async def _lose(self, locked: Locked, document: Document) -> ActualLRP:
        """It ended by no fault of the app: placed anew, at once unless it had only just begun to run."""
        ran_s = (locked.now - locked.row.since).total_seconds()
        wait_s = 0.0 if ran_s > JUST_BEGUN_S else after_failure_s(1, Fault.PLATFORM, jitter=0.0)
        at = locked.now + timedelta(seconds=wait_s)
        after = moves.lost(locked.row, document.detail, locked.now, at)
        return await rows.save_failed(self.tx, locked, after, document, "run", gone=True)

    async def _vanish(self, locked: Locked, seen: ActualLRP) -> list[ActualLRP]:
        row = locked.row
        if row.modification_tag != seen.modification_tag:
            return []
        if row.state is ActualLRPState.RUNNING:
            document = self._vanished(row, locked.now)
            after = moves.lost(row, document.detail, locked.now)
        else:
            fault = ContainerVanished.fault
            at = locked.now + timedelta(seconds=after_failure_s(row.attempts + 1, fault, jitter=0.0))
            document = self._vanished(row, at)
            after = moves.failed(row, document.detail, at, locked.now)
        return [await rows.save_failed(self.tx, locked, after, document, "run", gone=True)]

    def _vanished(self, row: ActualLRP, next_attempt_at: datetime) -> Document:
        told = f"cell {row.cell_id} no longer has instance {row.process_guid}/{row.index} ({row.instance_guid})"
        evidence: Mapping[str, Any] = {"state": str(row.state), "since": row.since.isoformat()}
        vanished = ContainerVanished(told, evidence=dict(evidence), outcome=Outcome.ROLLED_BACK)
        return document_of(self.write_problem(row, vanished, next_attempt_at))
