"""`diego explain`: where an LRP, a task or a cell stands and why, also after its cell or the LRP itself is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import click
from attrs import frozen

from diego_py.cli import deciding, draw, instances, tasks
from diego_py.cli.lines import BAD, DIM, GOOD, HEAD, Line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient
from diego_py.clients.bbs_answers import CellStatus, Decisions, StoredFailure
from diego_py.errors import CellNotFound, DesiredLRPNotFound, TaskNotFound
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.task import Task, TaskState

T = TypeVar("T")


@frozen(kw_only=True)
class Lrp:
    """An LRP, what is there of it, what was decided about it and what went wrong with it."""

    desired_lrp: DesiredLRP | None
    actual_lrps: list[ActualLRP]
    decisions: Decisions
    failures: list[StoredFailure]


@frozen(kw_only=True)
class OneTask:
    """The same of a task."""

    task: Task | None
    decisions: Decisions
    failures: list[StoredFailure]


@frozen(kw_only=True)
class Cell:
    """A cell, what it has, and what was decided about that."""

    cell: CellStatus
    actual_lrps: list[ActualLRP]
    tasks: list[Task]
    decisions: Decisions


@click.command()
@click.argument("name", metavar="LRP|TASK|CELL")
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="So many stored failures.")
@with_session
def explain(session: Session, name: str, limit: int) -> None:
    """Say where an LRP, a task or a cell stands: each instance, why it is where it is, and when the next attempt is.

    What convergence decided in its last round comes with it, and the stored failures of an LRP or a task, the newest
    last. Failures are kept for 30 days, whatever becomes of the LRP, its containers and its cell.
    """

    async def read(bbs: BbsClient) -> Lrp | OneTask | Cell:
        lrp = await _lrp(bbs, name, limit)
        if lrp.desired_lrp is not None:
            return lrp
        task = await _task(bbs, name, limit)
        if task.task is not None:
            return task
        if (cell := await _cell(bbs, name)) is not None:
            return cell
        if not (lrp.failures or lrp.actual_lrps or task.failures):
            raise DesiredLRPNotFound(f"no LRP, task or cell is called {name[:200]}")
        return lrp if lrp.failures or lrp.actual_lrps else task

    found, now = session.run(f"read {name}", read), datetime.now(UTC)
    match found:
        case Lrp():
            session.say(found, [*standing(name, found, now), *history(found.failures)])
        case OneTask():
            told = [Line(f"{name} is gone", HEAD)] if found.task is None else tasks.standing(found.task, now)
            session.say(found, [*told, *deciding.lines(found.decisions, now), *history(found.failures)])
        case Cell():
            session.say(found, cell_lines(found, now))


async def _lrp(bbs: BbsClient, guid: str, limit: int) -> Lrp:
    desired = await _unless(DesiredLRPNotFound, bbs.get(guid))
    return Lrp(
        desired_lrp=desired,
        actual_lrps=await bbs.actual_lrps(guid),
        decisions=await bbs.decisions(guid),
        failures=await bbs.failures(guid, limit=limit),
    )


async def _task(bbs: BbsClient, guid: str, limit: int) -> OneTask:
    return OneTask(
        task=await _unless(TaskNotFound, bbs.task(guid)),
        decisions=await bbs.decisions(task_guid=guid),
        failures=await bbs.failures(task_guid=guid, limit=limit),
    )


async def _cell(bbs: BbsClient, cell_id: str) -> Cell | None:
    cell = await _unless(CellNotFound, bbs.cell(cell_id))
    if cell is None:
        return None
    return Cell(
        cell=cell,
        actual_lrps=await bbs.actual_lrps(cell_id=cell_id),
        tasks=await bbs.tasks(cell_id=cell_id, state=str(TaskState.RUNNING)),
        decisions=await bbs.decisions(cell_id=cell_id),
    )


async def _unless(missing: type[Exception], reading: Awaitable[T]) -> T | None:
    try:
        return await reading
    except missing:
        return None


def standing(guid: str, lrp: Lrp, now: datetime) -> list[Line]:
    """Each instance now: state, since when, why, what was decided, and when it is tried again."""
    desired = lrp.desired_lrp
    wanted = f"{guid} is not desired any more"
    if desired is not None:
        wanted = f"{guid}: {desired.definition.instances} instance(s) desired"
    lines = [Line(wanted, HEAD)]
    for instance in sorted(lrp.actual_lrps, key=lambda instance: (instance.index, instance.presence)):
        lines.append(_state(instance, now))
        outdated = "" if desired is None else instances.outdated(instance, desired)
        for why in (instances.reason(instance, now, characters=2_000), outdated):
            if why:
                lines.append(Line(f"     {why}"))
        lines += deciding.about(lrp.decisions, instance, now)
    rows = {instance.index for instance in lrp.actual_lrps}
    missing = [item for item in lrp.decisions.items if item.index not in rows]
    return [*lines, *(Line(f"  {item.index}  {item.decision}: {item.reason}", BAD) for item in missing),
            *deciding.round_lines(lrp.decisions, now)]  # fmt: skip


def cell_lines(found: Cell, now: datetime) -> list[Line]:
    """What a cell does, and each thing that it still has."""
    cell = found.cell
    does = "does not answer" if not cell.live else "drains: it takes no work" if cell.draining else "takes work"
    seen = f", seen {instances.ago(datetime.fromisoformat(cell.seen_at), now)}" if cell.seen_at else ""
    left = f"{len(found.actual_lrps)} instance(s) and {len(found.tasks)} task(s)"
    lines = [Line(f"{cell.cell_id} {does}{seen}; it has {left}", GOOD if cell.live else BAD)]
    for instance in found.actual_lrps:
        lines.append(_state(instance, now, instance.process_guid))
        lines += deciding.about(found.decisions, instance, now)
    waits = "  its end is waited for: tasks are never moved" if cell.draining else ""
    for task in found.tasks:
        lines.append(Line(f"  {task.task_guid}  {task.state} since {_second(task.updated_at)}{waits}"))
        items = [item for item in found.decisions.items if item.task_guid == task.task_guid]
        lines += [deciding.line(item, now) for item in items]
    return [*lines, *deciding.round_lines(found.decisions, now)]


def history(stored: Sequence[StoredFailure]) -> list[Line]:
    """The stored failures as chains, the oldest first."""
    if not stored:
        return [Line("no failure is stored", DIM)]
    lines = []
    for failure in reversed(stored):
        phase = f" ({failure.phase})" if failure.phase else ""
        where = f" on {failure.cell_id}" if failure.cell_id else ""
        at = f"{_second(datetime.fromisoformat(failure.created_at))}{where}{phase}  "
        lines += [Line(""), *draw.failure(failure.document, at=at)]
    return lines


def _state(instance: ActualLRP, now: datetime, of: str = "") -> Line:
    since = f"since {_second(instance.since)} ({instances.ago(instance.since, now)})"
    where = f" on {instance.cell_id}" if instance.cell_id else ""
    if instance.presence is not Presence.ORDINARY:
        where += f" ({instance.presence})"
    good = instance.state is ActualLRPState.RUNNING
    name = f"{of}/{instance.index}" if of else str(instance.index)
    return Line(f"  {name}  {instance.state}{where} {since}", GOOD if good else BAD)


def _second(moment: datetime) -> str:
    """A time to the second; microseconds help nobody at night."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
