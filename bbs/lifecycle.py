"""Transitions met with the database, in one way for all: lock the row, ask the state table, save with the reason.

Every method is one transaction. What Postgres fails comes as hop `postgres` of the chain; what a method refuses comes
without a frame and takes that of the hop it is called in. Undone work may be done again: nothing here has an effect
outside of the database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from attrs import define, evolve, field, frozen

from bbs.convergence.backoff import DIEGO, CrashPolicy
from bbs.outcome import framed_by_cell, subject
from bbs.pace import Pace
from bbs.store import attempts, desires, failures, moves, replay, rows
from bbs.store.actual_lrps import Locked, RemovedRow
from bbs.store.attempts import Claim, Claimed, Start
from bbs.store.desires import Desired, Updated, etag
from bbs.store.failures import Document, document_of
from bbs.store.fence import run_fenced
from bbs.store.gone import Gone, abandon
from bbs.store.idempotency import IdempotencyKey, StoredAnswer
from bbs.store.replay import Replay
from bbs.store.report import ReportOutcome, Rules, Told, take_up
from bbs.store.seen import SeenRows
from bbs.store.together import Together
from bbs.store.transaction import Store, Transaction
from bbs.task_outcome import tell
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import ContainerVanished, DiegoError, IllegalTransition, InstanceFailed
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task import Task
from diego_py.models.work import CellReport
from diego_py.models.workload import ModificationTag
from diego_py.service.clock import Clock

T = TypeVar("T")

REPORTS_WAITING_MAX = 256
"""Reports that wait; a cell whose report is refused sends the next one in its turn."""
REPORTS_MAX = 64
"""Reports in one transaction. Each reads all rows of its cell."""


@frozen
class Restarted:
    """An instance whose row waits for a new start."""

    before: ActualLRP
    ends: tuple[ActualLRP, ...]
    """What to stop: that one if a cell has it, one that served until it would run, and abandoned attempts."""
    after: ActualLRP
    """UNCLAIMED, with the instance_guid that it is offered under."""


@define
class Lifecycle:
    """Every change of a row. With an `epoch`, only as the convergence leader of that epoch: else NotLeader."""

    store: Store
    clock: Clock
    new_guid: Callable[[], str]
    pace: Pace = field(factory=Pace)
    crash_policy: CrashPolicy = DIEGO
    _seen: SeenRows = field(init=False)
    _claims: Together[Claim, Claimed] = field(init=False)
    _starts: Together[Start, ActualLRP] = field(init=False)
    _abandons: Together[Gone, bool] = field(init=False)
    _reports: Together[Told, ReportOutcome] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._seen = SeenRows(self.store)
        self._claims = Together(self.store, "claim_instance", attempts.claim, self._seen.claim)
        self._starts = Together(self.store, "start_instance", attempts.start, self._seen.start)
        self._abandons = Together(self.store, "abandon_instance", abandon)
        limits = {"lanes": 1, "together_max": REPORTS_MAX, "waiting_max": REPORTS_WAITING_MAX}
        self._reports = Together(self.store, "cell_report", self._take_up, None, reserved=True, **limits)

    async def desire(self, call: Call, definition: DesiredLRPDefinition, key: IdempotencyKey | None = None) -> Desired:
        """Store an LRP and its rows. Raises AlreadyExists, IdempotencyInFlight, IdempotencyMismatch."""

        async def work(tx: Transaction) -> Desired:
            await self.keep(call, tx, key)
            return await desires.desire(tx, definition, self.new_guid)

        made = await self.store.run(call, "desire_lrp", work, single=key is None)
        self._seen.stored(made)
        return made

    async def update(
        self,
        call: Call,
        process_guid: str,
        update: DesiredLRPUpdate,
        if_match: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Updated:
        """Change an LRP and add rows. Raises DesiredLRPNotFound, PreconditionFailed and what keys raise."""

        async def work(tx: Transaction) -> Updated:
            await self.keep(call, tx, key)
            return await desires.update(tx, process_guid, update, if_match, self.new_guid)

        return await self.store.run(call, "update_lrp", work)

    async def undesire(
        self, call: Call, process_guid: str, key: IdempotencyKey | None = None, only: ModificationTag | None = None
    ) -> tuple[ActualLRP, ...]:
        """Remove an LRP and the rows that no cell has; gives the others and abandoned attempts, to be stopped.

        Raises DesiredLRPNotFound, PreconditionFailed, and what keys raise.
        """

        async def work(tx: Transaction) -> tuple[ActualLRP, ...]:
            await self.keep(call, tx, key)
            return await desires.undesire(tx, process_guid, only)

        return await self.store.run(call, "undesire_lrp", work, single=key is None and only is None)

    async def add_missing(self, call: Call, process_guid: str, epoch: int | None) -> tuple[ActualLRP, ...]:
        """Add UNCLAIMED rows for the indices of a desired LRP that have none; each is still to be offered."""

        async def work(tx: Transaction) -> tuple[ActualLRP, ...]:
            return await desires.add_missing(tx, process_guid, self.new_guid)

        return await run_fenced(self.store, call, "add_instances", work, epoch)

    async def offer(
        self,
        call: Call,
        row: ActualLRP,
        epoch: int | None = None,
        revision: int | None = None,
        gone: bool = False,
    ) -> ActualLRP:
        """A new instance_guid, for this revision of its definition (None: the one it was given before).

        Whoever has the old instance_guid can no longer claim; who has claimed by it is remembered, unless the cell said
        that it is `gone`. Raises IllegalTransition if the row moved on; for a leader, if it changed at all.
        """

        async def work(tx: Transaction) -> ActualLRP:
            locked = await rows.lock(tx, row.process_guid, row.index)
            changed = epoch is not None and locked.row.modification_tag != row.modification_tag
            if changed or locked.row.instance_guid != row.instance_guid:
                raise _moved_on("OFFER", row, locked.row)
            given = locked.row.revision if revision is None else revision
            return await rows.save(tx, locked, moves.offered(locked.row, self.new_guid(), given, locked.now), gone=gone)

        return await run_fenced(self.store, call, "offer_instance", work, epoch)

    async def take_up(self, call: Call, row: ActualLRP, revision: int) -> ActualLRP:
        """What another process left of a row: as it is if it runs, else offered anew, whatever became of it since.

        Raises ActualLRPNotFound.
        """

        async def work(tx: Transaction) -> ActualLRP:
            locked = await rows.lock(tx, row.process_guid, row.index)
            now = locked.row
            if now.state is ActualLRPState.RUNNING:
                return now
            if now.state is ActualLRPState.CRASHED:
                now = moves.retried(now, locked.now)
            return await rows.save(tx, locked, moves.offered(now, self.new_guid(), revision, locked.now))

        return await self.store.run(call, "take_up_instance", work)

    async def claim(self, call: Call, claim: Claim) -> Claimed:
        """Give a row to the cell that it was offered to; again, if it has it already. Raises ClaimRefused."""

        return await self._claims.ask(call, claim)

    async def claim_all(self, call: Call, claims: Sequence[Claim]) -> Sequence[Claimed | DiegoError]:
        """The same for several rows; what became of each, in order."""
        return await self._claims.ask_all(call, claims)

    async def start(self, call: Call, started: Start) -> ActualLRP:
        """The instance runs on the cell. Raises ClaimRefused if the row belongs to another one, or is gone."""
        return await self._starts.ask(call, started)

    async def fail(
        self,
        call: Call,
        row: ActualLRP,
        problem: Problem,
        next_attempt_at: datetime | None = None,
        gone: bool = False,
    ) -> ActualLRP | None:
        """The attempt of `row` was not placed or not created: UNCLAIMED, with the document. `gone` as for `offer`.

        Gives the row as it is now. If it moved on meanwhile (another attempt, RUNNING, gone: None) it is left alone
        and only the document is stored.
        """
        document = document_of(problem)

        async def work(tx: Transaction) -> ActualLRP | None:
            locked = await tx.actual_lrps.lock(row.process_guid, row.index)
            if locked is None or not _attempt_is_open(locked.row, row.instance_guid):
                await tx.failures.insert(document, "place", row)
                return None if locked is None else locked.row
            at = self._by_database(next_attempt_at, locked.now)
            after = moves.failed(locked.row, document.detail, at, locked.now)
            return await rows.save_failed(tx, locked, after, document, "place", gone=gone)

        return await self.store.run(call, "fail_instance", work)

    async def crash(
        self,
        call: Call,
        process_guid: str,
        index: int,
        instance_guid: str,
        cell_id: str,
        problem: Problem,
        gone: bool = False,
    ) -> ActualLRP | None:
        """The app's own failure on that cell: CRASHED, with its count, its next attempt and the document.

        `gone` as for `offer`. Gives the row as it is now, None if there is none. If it moved on meanwhile (the cell may
        have reported the same end already) it is left alone and only the document is stored.
        """
        document = document_of(problem)

        async def work(tx: Transaction) -> ActualLRP | None:
            locked = await tx.actual_lrps.lock(process_guid, index)
            if locked is None or not _runs_there(locked.row, instance_guid, cell_id):
                about = None if locked is None else _attempt_of(locked.row, instance_guid, cell_id)
                await tx.failures.insert(document, "run", about)
                return None if locked is None else locked.row
            after = moves.crashed(locked.row, document.detail, locked.now, self.crash_policy)
            return await rows.save_failed(tx, locked, after, document, "run", gone=gone)

        return await self.store.run(call, "crash_instance", work)

    async def record_failure(self, call: Call, problem: Problem, phase: str, row: ActualLRP | None = None) -> None:
        """Store a document, and leave the row alone."""
        document = document_of(problem)

        async def work(tx: Transaction) -> None:
            await tx.failures.insert(document, phase, row)

        await self.store.run(call, "record_failure", work)

    async def lose(self, call: Call, row: ActualLRP, epoch: int | None, problem: Problem) -> ActualLRP:
        """The cell vanished: UNCLAIMED and due now. Raises IllegalTransition if the row changed since it was read."""
        document: Document = document_of(problem)

        async def work(tx: Transaction) -> ActualLRP:
            locked = await self._unchanged(tx, row, "LOSE")
            after = moves.lost(locked.row, document.detail, locked.now)
            return await rows.save_failed(tx, locked, after, document, "run")

        return await run_fenced(self.store, call, "lose_instance", work, epoch)

    async def retry(self, call: Call, row: ActualLRP, epoch: int | None) -> ActualLRP:
        """CRASHED long enough: UNCLAIMED and due now. Raises IllegalTransition if the row changed since it was read."""

        async def work(tx: Transaction) -> ActualLRP:
            locked = await self._unchanged(tx, row, "RETRY")
            return await rows.save(tx, locked, moves.retried(locked.row, locked.now))

        return await run_fenced(self.store, call, "retry_instance", work, epoch)

    async def restart(self, call: Call, process_guid: str, index: int, revision: int | None = None) -> Restarted:
        """A user wants a new one, of this revision, whatever became of the old one. Raises ActualLRPNotFound."""

        async def work(tx: Transaction) -> Restarted:
            locked = await rows.lock(tx, process_guid, index)
            return await self.start_anew(tx, locked, locked.row.revision if revision is None else revision)

        return await self.store.run(call, "restart_instance", work)

    async def start_anew(self, tx: Transaction, locked: Locked, revision: int) -> Restarted:
        """Within a transaction: give a row up to a new start of this revision."""
        before = locked.row
        after = moves.restarted(before, self.new_guid(), revision, locked.now)
        abandoned = await tx.abandoned.list_of(before.process_guid, before.index)
        beside = await tx.actual_lrps.get(before.process_guid, before.index, Presence.EVACUATING)
        ends = (before, *abandoned, *([beside] if beside is not None else []))
        claimed = [row for row in ends if row.index == before.index and row.cell_id is not None]
        return Restarted(before, tuple(claimed), await rows.save(tx, locked, after))

    async def remove(
        self,
        call: Call,
        process_guid: str,
        index: int,
        instance_guid: str | None,
        presence: Presence = Presence.ORDINARY,
    ) -> RemovedRow:
        """Delete the row of this instance, which is gone; None: of whichever."""

        async def work(tx: Transaction) -> RemovedRow:
            return await tx.actual_lrps.remove(process_guid, index, instance_guid, presence)

        return await self.store.run(call, "remove_instance", work, single=True)

    async def abandon(self, call: Call, row: ActualLRP, epoch: int | None = None) -> bool:
        """Delete the row of an instance whose cell cannot be asked, and remember that it may have it. False if there is
        no such row."""

        return await self._abandons.ask(call, Gone(row, epoch))

    async def report(self, call: Call, report: CellReport) -> ReportOutcome:
        """Renew a cell's presence and bring its rows in line with what it has. Touches no row of another cell."""

        def vanished(row: ActualLRP, error: ContainerVanished, next_attempt_at: datetime) -> Problem:
            return self._vanished(call, row, error, next_attempt_at)

        def task_vanished(task: Task, error: ContainerVanished) -> Problem:
            _, problem = tell(call, f"run {task.task_guid}", task, framed_by_cell(error, task.cell_id))
            return evolve(problem, instance=failures.PATH + self.new_guid())

        rules = Rules(self.new_guid, self.crash_policy, vanished, task_vanished)
        return await self._reports.ask(call, Told(report, rules))

    async def _take_up(self, tx: Transaction, told: Sequence[Told]) -> Sequence[ReportOutcome | DiegoError]:
        return await take_up(tx, told, self.pace.term())

    @property
    def reports_waiting(self) -> int:
        """Reports that wait for those of others to be taken up."""
        return self._reports.waiting

    async def replay(self, call: Call, key: IdempotencyKey) -> Replay:
        """What became of the first request with this key. Raises IdempotencyInFlight, IdempotencyMismatch.

        If its owner died under way, the key is the new owner's, who goes on from the present state.
        """

        async def work(tx: Transaction) -> Replay:
            return await replay.replay(tx, key, replay.in_flight_s(call))

        return await self.store.run(call, "find_key", work)

    async def answered(self, call: Call, key: IdempotencyKey, answer: StoredAnswer) -> None:
        """Keep the answer for whoever asks again with the key. Nothing if the request had no effect that stored it."""
        await self.store.run(call, "store_answer", lambda tx: tx.idempotency.answered(key, answer))

    async def keep(self, call: Call, tx: Transaction, key: IdempotencyKey | None) -> None:
        """Store the key of the request with its effect."""
        if key is not None:
            await replay.keep(tx, key, replay.in_flight_s(call))

    async def _unchanged(self, tx: Transaction, row: ActualLRP, event: str) -> Locked:
        """The locked row if it is the very revision that was decided on. Raises IllegalTransition."""
        locked = await rows.lock(tx, row.process_guid, row.index)
        if locked.row.modification_tag != row.modification_tag:
            raise _moved_on(event, row, locked.row)
        return locked

    def _by_database(self, at: datetime | None, now: datetime) -> datetime | None:
        """A time of our wall clock as one of the database's clock."""
        return None if at is None else now + max(timedelta(), at - self.clock.now())

    def _vanished(self, call: Call, row: ActualLRP, error: ContainerVanished, next_attempt_at: datetime) -> Problem:
        outer = call.framed(InstanceFailed(f"keep {row.process_guid}/{row.index} running"))
        outer.__cause__ = framed_by_cell(error, row.cell_id)
        return evolve(
            chain.problem(outer, call, subject(row)),
            instance=failures.PATH + self.new_guid(),
            next_attempt_at=next_attempt_at.isoformat(timespec="milliseconds"),
        )


def _attempt_is_open(row: ActualLRP, instance_guid: str | None) -> bool:
    waiting = row.state in (ActualLRPState.UNCLAIMED, ActualLRPState.CLAIMED)
    return waiting and row.instance_guid == instance_guid


def _attempt_of(row: ActualLRP, instance_guid: str, cell_id: str) -> ActualLRP:
    """The row as a failure of an earlier attempt is filed under."""
    return evolve(row, instance_guid=InstanceGuid(instance_guid), cell_id=CellId(cell_id))


def _runs_there(row: ActualLRP, instance_guid: str, cell_id: str) -> bool:
    placed = row.state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
    return placed and (row.instance_guid, row.cell_id) == (instance_guid, cell_id)


def _moved_on(event: str, seen: ActualLRP, now: ActualLRP) -> IllegalTransition:
    told = f"{event} instance {seen.process_guid}/{seen.index} ({seen.instance_guid}): it is {now.state} by now"
    evidence = {"from": str(now.state), "event": event, "instance_guid": now.instance_guid}
    return IllegalTransition(told, evidence=evidence)


__all__ = ["Desired", "Lifecycle", "ReportOutcome", "Restarted", "Updated", "etag"]
