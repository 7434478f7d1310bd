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


@define
class Completions:
    """Who waits for which task, in this process."""

    lifecycle: TaskLifecycle
    _waiting: dict[TaskGuid, list[asyncio.Event]] = field(factory=dict, init=False)

    def require_room(self) -> None:
        """Nothing while more may wait. Raises Saturated."""
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:
            raise Saturated(f"{WAITING_MAX} requests wait for tasks", retry_after_s=1.0)

    def changed(self, task_guid: TaskGuid) -> None:
        """A task ended, or its row went: whoever waits for it looks again."""
        for event in self._waiting.get(task_guid, ()):
            event.set()

    async def wait(self, call: Call, task_guid: TaskGuid, limit_ms: float | None = None) -> Task:
        """The task when it has completed, or as it is when `limit_ms` or the budget is over. Raises TaskNotFound."""
        until_s = call.clock.monotonic() + (call.remaining_ms() - 2 * ANSWER_MARGIN_MS) / 1000
        if limit_ms is not None:
            until_s = min(until_s, call.clock.monotonic() + limit_ms / 1000)
        with self._told(task_guid) as told:
            while True:
                told.clear()
                task = await self.lifecycle.get(call, task_guid)
                left_s = until_s - call.clock.monotonic()
                if is_over(task.state) or left_s <= 0:
                    return task
                await _either(told, min(LOOK_S, left_s))

    @contextmanager
    def _told(self, task_guid: TaskGuid) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        events = self._waiting.setdefault(task_guid, [])
        events.append(event)
        try:
            yield event
        finally:
            events.remove(event)
            if not events:
                del self._waiting[task_guid]


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set or the time has passed."""
    try:
        async with asyncio.timeout(seconds) as scope:
            await event.wait()
    except TimeoutError:
        if not scope.expired():
            raise
