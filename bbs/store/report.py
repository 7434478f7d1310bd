"""Reports of cells taken up: presences renewed, rows and tasks brought in line. One transaction for all of them.

When a report and the rows of its cell agree, the fingerprint of these rows is kept with the cell. It is taken before
the rows are compared: whatever changes from then on makes it another one, and the next heartbeat is answered with the
wish for a whole report.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import evolve, frozen

from bbs.convergence.backoff import CrashPolicy
from bbs.pace import NOT_RENEWED, Term
from bbs.store import reconcile, task_reconcile
from bbs.store.actual_lrps import Key
from bbs.store.reconcile import Differences, WriteProblem
from bbs.store.task_reconcile import TasksReconciled, WriteTaskProblem
from bbs.store.transaction import Transaction
from diego_py.errors import CellIdTaken, DiegoError
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import CellId
from diego_py.models.task import Task
from diego_py.models.work import CellReport


@frozen
class ReportOutcome:
    """What a cell's report changed, and what the cell must do."""

    accepted: bool
    """False: the report is older than what is known of the cell; nothing was changed."""
    term: Term = NOT_RENEWED
    """Of the presence, as it was renewed."""
    stop: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    started: tuple[ActualLRP, ...] = ()
    crashed: tuple[ActualLRP, ...] = ()
    vanished: tuple[ActualLRP, ...] = ()
    lost_tasks: tuple[Task, ...] = ()
    settled: bool = False
    """The cell has exactly what it should have: until that changes, heartbeats do."""


@frozen
class Rules:
    """What reports are taken up by."""

    new_guid: Callable[[], str]
    crash_policy: CrashPolicy
    vanished: WriteProblem
    task_vanished: WriteTaskProblem


@frozen(eq=False)
class Told:
    """A report that came, and what it is taken up by."""

    report: CellReport
    rules: Rules

    @property
    def cell_id(self) -> CellId:
        return self.report.presence.cell_id


async def take_up(tx: Transaction, told: Sequence[Told], term: Term) -> list[ReportOutcome | DiegoError]:
    """All of them; most change nothing but their presences, which is a statement for all. Each may be CellIdTaken.

    Touches no row of other cells. A second report of a cell is taken up after the first.
    """
    first: dict[CellId, Told] = {}
    for one in told:
        first.setdefault(one.cell_id, one)
    outcomes = await _taken_up(tx, list(first.values()), term)
    again = [one for one in told if first[one.cell_id] is not one]
    if again:
        outcomes |= dict(zip(again, await take_up(tx, again, term), strict=True))
    return [outcomes[one] for one in told]


async def _taken_up(
    tx: Transaction, told: Sequence[Told], term: Term
) -> dict[Told, ReportOutcome | DiegoError]:
    """One report of each of some cells."""
    renewed = await tx.cells.upsert([one.report for one in told], term.ttl_s)
    taken = sorted((one for one in told if one.cell_id in renewed), key=lambda one: one.cell_id)
    differences = await _compared(tx, taken)
    await _lock(tx, differences.values())
    busy = await tx.tasks.cells_with_any([one.cell_id for one in taken]) if taken else set()
    outcomes: dict[Told, ReportOutcome | DiegoError] = {}
    settled: dict[CellId, int] = {}
    for one in taken:
        tasks = bool(one.report.tasks) or one.cell_id in busy
        outcome = await _applied(tx, one, differences[one.cell_id], tasks)
        fingerprint = renewed[one.cell_id]
        if outcome.settled and fingerprint is not None:
            settled[one.cell_id] = fingerprint
        outcomes[one] = evolve(outcome, term=term, settled=one.cell_id in settled)
    if settled:
        await tx.cells.settle(settled)
    if taken:
        there = [instance.instance_guid for one in taken for instance in one.report.instances]
        await tx.abandoned.settle([one.cell_id for one in taken], there, reconcile.SETTLED_S)
    for one in told:
        if one.cell_id not in renewed:
            outcomes[one] = await _late(tx, one.report)
    return outcomes


async def _compared(tx: Transaction, told: Sequence[Told]) -> dict[CellId, Differences]:
    """What each report changes, from rows that are read in one statement."""
    if not told:
        return {}
    guids = [guid for one in told for guid in reconcile.reported_guids(one.report)]
    known = await tx.actual_lrps.list_concerning([one.cell_id for one in told], guids)
    now = await tx.now()
    of_cell: dict[str | None, list[ActualLRP]] = {}
    for row in known:
        of_cell.setdefault(row.cell_id, []).append(row)
    by_guid = {row.instance_guid: row for row in known}
    differences = {}
    for one in told:
        named = (by_guid.get(guid) for guid in reconcile.reported_guids(one.report))
        elsewhere = [row for row in named if row is not None and row.cell_id != one.cell_id]
        rows = [*of_cell.get(one.cell_id, ()), *elsewhere]
        differences[one.cell_id] = reconcile.compare(one.report, rows, now)
    return differences


async def _lock(tx: Transaction, differences: Collection[Differences]) -> None:
    """All rows that may change, in order: reports that are taken up together wait for nobody half-way."""
    keys: set[Key] = set()
    for each in differences:
        keys |= {(instance.process_guid, instance.index) for instance in each.started}
        keys |= {(ended.process_guid, ended.index) for ended in each.ended}
        keys |= {(row.process_guid, row.index) for row in each.vanished}
    if len(keys) > 1:
        await tx.actual_lrps.lock_many(sorted(keys))


async def _applied(tx: Transaction, told: Told, differences: Differences, tasks: bool) -> ReportOutcome:
    report, rules = told.report, told.rules
    reconciliation = reconcile.Reconciliation(tx, report, rules.new_guid, rules.vanished, rules.crash_policy)
    done = await reconciliation.apply(differences)
    reconciled = TasksReconciled()
    if tasks:
        reconciled = await task_reconcile.apply(tx, report, rules.task_vanished)
    return ReportOutcome(
        accepted=True,
        stop=(*differences.stop, *reconciled.stop),
        acknowledged=tuple(ended.instance_guid for ended in report.ended),
        started=done.started,
        crashed=done.crashed,
        vanished=done.vanished,
        lost_tasks=reconciled.lost,
        settled=bool(report.digest) and differences.none and reconciled.agree,
    )


async def _late(tx: Transaction, report: CellReport) -> ReportOutcome | CellIdTaken:
    """Nothing for a report that is merely late; CellIdTaken if a live cell elsewhere has the same id."""
    cell_id = report.presence.cell_id
    known = await tx.cells.get(cell_id)
    if known is not None and known.live and known.presence.home_id != report.presence.home_id:
        return CellIdTaken(f"cell {cell_id} reports already, from {known.presence.url}")
    return ReportOutcome(accepted=False)
