"""A cell's report taken up: its presence renewed, rows and tasks brought in line. One transaction."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from bbs.convergence.backoff import CrashPolicy
from bbs.store import reconcile, task_reconcile
from bbs.store.reconcile import WriteProblem
from bbs.store.task_reconcile import WriteTaskProblem
from bbs.store.transaction import Transaction
from diego_py.errors import CellIdTaken
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.task import Task
from diego_py.models.work import CellReport


@frozen
class ReportOutcome:
    """What a cell's report changed, and what the cell must do."""

    accepted: bool
    """False: the report is older than what is known of the cell; nothing was changed."""
    stop: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    started: tuple[ActualLRP, ...] = ()
    crashed: tuple[ActualLRP, ...] = ()
    vanished: tuple[ActualLRP, ...] = ()
    lost_tasks: tuple[Task, ...] = ()


@frozen
class Rules:
    """What reports are taken up by."""

    new_guid: Callable[[], str]
    presence_ttl_s: float
    crash_policy: CrashPolicy
    vanished: WriteProblem
    task_vanished: WriteTaskProblem


async def take_up(tx: Transaction, report: CellReport, rules: Rules) -> ReportOutcome:
    """Touches no row of another cell. Raises CellIdTaken."""
    cell_id = report.presence.cell_id
    if not await tx.cells.upsert(report, rules.presence_ttl_s):
        await _refuse_namesake(tx, report)
        return ReportOutcome(accepted=False)
    guids = reconcile.reported_guids(report)
    known = await tx.actual_lrps.list_concerning(cell_id, guids)
    differences = reconcile.compare(report, known, await tx.now())
    reconciliation = reconcile.Reconciliation(tx, report, rules.new_guid, rules.vanished, rules.crash_policy)
    done = await reconciliation.apply(differences)
    there = [instance.instance_guid for instance in report.instances]
    await tx.abandoned.settle(cell_id, there, reconcile.SETTLED_S)
    stop_tasks, lost_tasks = await task_reconcile.apply(tx, report, rules.task_vanished)
    return ReportOutcome(
        accepted=True,
        stop=(*differences.stop, *stop_tasks),
        acknowledged=tuple(ended.instance_guid for ended in report.ended),
        started=done.started,
        crashed=done.crashed,
        vanished=done.vanished,
        lost_tasks=lost_tasks,
    )


async def _refuse_namesake(tx: Transaction, report: CellReport) -> None:
    """Nothing for a report that is merely late. Raises CellIdTaken if a live cell elsewhere has the same id."""
    cell_id = report.presence.cell_id
    known = await tx.cells.get(cell_id)
    if known is not None and known.live and known.presence.home_id != report.presence.home_id:
        raise CellIdTaken(f"cell {cell_id} reports already, from {known.presence.url}")
