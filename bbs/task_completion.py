"""Waiting for the end of a task: told at once when this BBS takes it up, else read from the row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from bbs.store.task_moves import is_over
from bbs.task_lifecycle import TaskLifecycle
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import Saturated
from diego_py.models.identifiers import TaskGuid
from diego_py.models.task import Task

LOOK_S = 0.5
"""Between two looks at the row of a task whose end another BBS may have taken up."""
WAITING_MAX = 10_000
"""Requests that wait at the same time."""


@define(eq=False)
class _Waiter:
    """One request that waits."""

    told: asyncio.Event = field(factory=asyncio.Event)
    task: Task | None = None
    """As it ended, if this BBS took that up."""


@define
class Completions:
    """Who waits for which task, in this process."""

    lifecycle: TaskLifecycle
    _waiting: dict[TaskGuid, list[_Waiter]] = field(factory=dict, init=False)

    def require_room(self) -> None:
        """Nothing while more may wait. Raises Saturated."""
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:
            raise Saturated(f"{WAITING_MAX} requests wait for tasks", retry_after_s=1.0)

    def completed(self, task: Task) -> None:
        """A task has come to its end: whoever waits for it has it, whatever becomes of the row."""
        for waiter in self._waiting.get(task.task_guid, ()):
            waiter.task = task
            waiter.told.set()

    def gone(self, task_guid: TaskGuid) -> None:
        """The row went: whoever still waits for it looks again."""
        for waiter in self._waiting.get(task_guid, ()):
            waiter.told.set()

    async def wait(self, call: Call, task_guid: TaskGuid, limit_ms: float | None = None) -> Task:
        """The task when it has completed, or as it is when `limit_ms` or the budget is over. Raises TaskNotFound."""
        until_s = call.clock.monotonic() + (call.remaining_ms() - 2 * ANSWER_MARGIN_MS) / 1000
        if limit_ms is not None:
            until_s = min(until_s, call.clock.monotonic() + limit_ms / 1000)
        with self._waiter(task_guid) as waiter:
            while waiter.task is None:
                waiter.told.clear()
                task = await self.lifecycle.get(call, task_guid)
                left_s = until_s - call.clock.monotonic()
                if is_over(task.state) or left_s <= 0:
                    return task
                await _either(waiter.told, min(LOOK_S, left_s))
            return waiter.task

    @contextmanager
    def _waiter(self, task_guid: TaskGuid) -> Iterator[_Waiter]:
        waiter = _Waiter()
        waiters = self._waiting.setdefault(task_guid, [])
        waiters.append(waiter)
        try:
            yield waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[task_guid]


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set or the time has passed."""
    try:
        async with asyncio.timeout(seconds) as scope:
            await event.wait()
    except TimeoutError:
        if not scope.expired():
            raise
