"""Tells the BBS what the cell has, regularly and soon after every change, and does what the answer asks for.

This is repair, not the first attempt: whoever started or stopped something has had his answer already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from random import Random

import structlog
from attrs import define, evolve, field

from cells.rep.admission import Admission
from cells.rep.bbs import BBS
from cells.rep.books import Books
from cells.rep.presence import Presence
from cells.rep.task_work import CellTaskWork
from cells.rep.work import CellWork
from diego_py import telling
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import CellReport, EndedReport, Heartbeat, HeartbeatAnswer, InstanceState, ReportAnswer
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks

JITTER = 0.2
DEBOUNCE_S = 0.02
"""Changes within this time go into one report."""
PAUSE_S = 0.2
"""Between two reports while one change follows the other: each names all that the cell has."""
REPORT_BUDGET_MS = 5_000.0
WHOLE_S = 600.0
"""A whole report at least so often, whatever heartbeats say."""
STOP_BUDGET_MS = 120_000.0


@define
class Sync:
    """The report loop's round, and the snapshot that `GET /v1/state` answers."""

    interval_s: float
    books: Books
    admission: Admission
    bbs: BBS
    work: CellWork
    task_work: CellTaskWork
    presence: Presence
    owned: OwnedTasks
    clock: Clock
    random: Random
    log: structlog.stdlib.BoundLogger
    _sent_s: float = field(default=-PAUSE_S, init=False)
    _obeyed: set[InstanceGuid] = field(factory=set, init=False)
    """Whose stop was ordered and is under way: the next order of it would only wait for the same."""
    _settled: CellReport | None = field(default=None, init=False)
    """What was reported last, if the BBS wants exactly that."""
    _told_pause_s: float = field(default=0.0, init=False)
    """What the BBS asked for last, for there are many cells."""
    _whole_s: float = field(default=0.0, init=False)
    """When a whole report was sent last."""

    async def round(self) -> None:
        """Wait until a report is due and send it. Raises DiegoError when no BBS took it."""
        await self._due()
        await self.report()

    async def report(self) -> None:
        """Send one report and obey its answer; or a heartbeat, if all is as it was reported last and wanted."""
        sent_s = self._sent_s = self.clock.monotonic()
        report = self.snapshot()
        settled, call = self._settled, Call.begin(self.clock, self.admission.lease.share_ms(REPORT_BUDGET_MS))
        try:
            if settled is not None and _same(settled, report) and sent_s - self._whole_s < WHOLE_S:
                await self._beat(call, settled, report.sequence, sent_s)
                return
            self._settled, self._whole_s = None, sent_s
            report = evolve(report, digest=_digest(report))
            answer = await self.bbs.report(call, report)
        except DiegoError as refused:
            self.admission.lease.refused(refused.root.message)
            raise
        self._renewed(sent_s, answer)
        self._settled = report if answer.settled else None
        await self._obey(answer, report)

    async def _beat(self, call: Call, settled: CellReport, sequence: int, sent_s: float) -> None:
        """Say that all is as it was, and have a whole report sent if that is not taken or not enough.

        When no BBS answers, the next one is a heartbeat again: who comes back to life is not told everything at once.
        """
        beat = Heartbeat(boot_id=settled.presence.boot_id, sequence=sequence, digest=settled.digest)
        answer = await self.bbs.heartbeat(call, beat)
        if answer.taken:
            self._renewed(sent_s, answer)
        if answer.whole:
            self._settled = None
            self.books.changed.set()

    def _renewed(self, sent_s: float, answer: ReportAnswer | HeartbeatAnswer) -> None:
        self.admission.lease.renew(sent_s, answer.presence_ttl_ms)
        self._told_pause_s = answer.pause_ms / 1000

    async def _obey(self, answer: ReportAnswer, report: CellReport) -> None:
        await self.books.ended.acknowledge(answer.acknowledged)
        if answer.acknowledged and len(self.books.ended) > 0:
            self.books.changed.set()
        unclaimed = {i.instance_guid for i in report.instances if i.state is InstanceState.RESERVED}
        unclaimed |= {task.instance_guid for task in report.tasks if task.state is CellTaskState.RESERVED}
        for guid in answer.stop:
            if guid not in unclaimed:
                self._stop(guid)

    def snapshot(self) -> CellReport:
        """Everything as of now, under a sequence number of its own."""
        return CellReport(
            presence=self.presence.now(self.admission.drain.on),
            sequence=self.books.reservations.next_sequence(),
            available=self.books.reservations.available(),
            instances=tuple(instance.report() for instance in self.books.instances),
            ended=self._told_ends(),
            tasks=self._tasks(),
        )

    def next_in_s(self) -> float:
        """How long from now on nothing is said if nothing changes; by chance a fifth more or less."""
        return max(self.interval_s, self._told_pause_s) * self.random.uniform(1 - JITTER, 1 + JITTER)

    async def _due(self) -> None:
        pause_s = self.next_in_s()
        try:
            async with asyncio.timeout(pause_s) as scope:
                await self.books.changed.wait()
                due_in_s = max(DEBOUNCE_S, self._sent_s + PAUSE_S - self.clock.monotonic())
                await self.clock.sleep(min(due_in_s, pause_s / 2))
        except TimeoutError:
            if not scope.expired():
                raise
        self.books.changed.clear()

    def _tasks(self) -> tuple[TaskReport, ...]:
        """Those that are here, and those whose end no BBS has acknowledged: none of them has vanished."""
        ended = [end for end in self.books.task_ends.all() if self.books.tasks.get(end.instance_guid) is None]
        untold = [
            TaskReport(
                task_guid=end.task_guid,
                domain=end.domain,
                instance_guid=end.instance_guid,
                state=CellTaskState.COMPLETED,
            )
            for end in ended
        ]
        return (*(task.report() for task in self.books.tasks), *untold)

    def _told_ends(self) -> tuple[EndedReport, ...]:
        """Ends are told when the container is gone, so that a replacement never runs beside what it replaces."""
        return tuple(report for report in self.books.ended.reports() if not self._is_ending(report.instance_guid))

    def _is_ending(self, guid: InstanceGuid) -> bool:
        instance = self.books.instances.get(guid)
        return instance is not None and instance.watching is not None

    def _stop(self, guid: InstanceGuid) -> None:
        """Obey in the background: a process that takes its grace time must not hold up the next report."""
        instance, task = self.books.instances.get(guid), self.books.tasks.get(guid)
        if instance is not None and instance.state is not InstanceState.RESERVED:
            self._begin_stop(guid, self.work.stop_instance)
        if task is not None and task.state is not CellTaskState.RESERVED:
            self._begin_stop(guid, self.task_work.stop_task)

    def _begin_stop(self, guid: InstanceGuid, stop: Callable[[Call, InstanceGuid], Awaitable[object]]) -> None:
        if guid in self._obeyed:
            return
        self.log.info("stop_ordered", instance_guid=guid)
        self.owned.begin(self._stop_told(guid, stop), f"obey stop {guid}")
        self._obeyed.add(guid)

    async def _stop_told(self, guid: InstanceGuid, stop: Callable[[Call, InstanceGuid], Awaitable[object]]) -> None:
        try:
            await stop(Call.begin(self.clock, STOP_BUDGET_MS), guid)
        except DiegoError as failure:
            root = failure.root
            self.log.warning("ordered_stop_failed", instance_guid=guid, code=root.code, detail=root.message)
        finally:
            self._obeyed.discard(guid)


def _same(before: CellReport, now: CellReport) -> bool:
    """Whether two reports differ in nothing but their numbers."""
    return evolve(now, sequence=before.sequence, digest=before.digest) == before


def _digest(report: CellReport) -> str:
    """Of all but the numbers of a report."""
    return blake2b(telling.encode(evolve(report, sequence=0, digest="")), digest_size=16).hexdigest()
