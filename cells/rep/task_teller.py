"""Tells a BBS how tasks ended: at once, and again with growing pauses until one says that it knows."""

from __future__ import annotations

import asyncio
from random import Random

import structlog
from attrs import define, field

from cells.rep.bbs import BBS
from cells.rep.ended import EndedBook
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import TaskEnd
from diego_py.service.clock import Clock

TELL_BUDGET_MS = 5_000.0
TOLD_AT_ONCE_MAX = 16
PAUSE_MIN_S = 0.25
PAUSE_MAX_S = 30.0
JITTER = 0.2


@define
class Due:
    """When an end is told next, on our monotonic clock, and how often that failed."""

    at_s: float
    failures: int = 0


@define
class TaskTeller:
    """The round of a loop. What is to be told is in the book; here is only when."""

    book: EndedBook[TaskEnd]
    bbs: BBS
    clock: Clock
    random: Random
    log: structlog.stdlib.BoundLogger
    _due: dict[InstanceGuid, Due] = field(factory=dict, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)

    def tell(self, guid: InstanceGuid, after_s: float = 0.0) -> None:
        """Tell this end, which is in the book, from `after_s` seconds on."""
        self._due[guid] = Due(self.clock.monotonic() + after_s)
        self._wake.set()

    async def round(self) -> None:
        """Wait until something is to be told, and tell all that is."""
        await self._until_due()
        now_s = self.clock.monotonic()
        ends = [end for end in self.book.all() if self._is_due(end, now_s)]
        slots = asyncio.Semaphore(TOLD_AT_ONCE_MAX)

        async def bounded(end: TaskEnd) -> None:
            async with slots:
                await self._tell(end)

        async with asyncio.TaskGroup() as group:
            for end in ends:
                group.create_task(bounded(end))

    async def _until_due(self) -> None:
        self._wake.clear()
        self._due = {guid: due for guid, due in self._due.items() if self.book.has(guid)}
        pause_s = min((due.at_s for due in self._due.values()), default=float("inf")) - self.clock.monotonic()
        if pause_s <= 0:
            return
        try:
            async with asyncio.timeout(None if pause_s == float("inf") else pause_s) as scope:
                await self._wake.wait()
        except TimeoutError:
            if not scope.expired():
                raise

    def _is_due(self, end: TaskEnd, now_s: float) -> bool:
        due = self._due.get(end.instance_guid)
        return due is not None and due.at_s <= now_s

    async def _tell(self, end: TaskEnd) -> None:
        guid = end.instance_guid
        try:
            await self.bbs.task_ended(Call.begin(self.clock, TELL_BUDGET_MS), end)
        except DiegoError as failure:
            self._put_off(guid)
            self.log.warning("task_end_not_told", instance_guid=guid, code=failure.root.code)
            return
        self._due.pop(guid, None)
        await self.book.acknowledge([guid])

    def _put_off(self, guid: InstanceGuid) -> None:
        due = self._due[guid]
        due.failures += 1
        pause_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** min(due.failures, 10))
        due.at_s = self.clock.monotonic() + pause_s * self.random.uniform(1 - JITTER, 1 + JITTER)
