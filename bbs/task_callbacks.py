"""Completion callbacks: a completed task is sent to the address its client named, then deleted. Diego: taskworkpool.

Driven by the row: who calls back makes it RESOLVING first, so that one does at a time. Should he die, convergence
recalls the row and has it called back again; so a callback may come more than once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec
import structlog
from attrs import define, field

from bbs.callback_client import Delivery
from bbs.task_completion import LOOK_S, Completions
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_status import TaskStatus
from diego_py.call import Call
from diego_py.errors import CallbackFailed, CallbackRefused, DiegoError, IllegalTransition, ShuttingDown, TaskNotFound
from diego_py.models.identifiers import TaskGuid
from diego_py.models.task import Task
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks

TRIES_MAX: Final = 3
AGAIN: Final = frozenset({503, 504})
"""Statuses after which it is tried again; with any other one the callback has been taken, as in Diego."""
PAUSE_MIN_S: Final = 0.5
JITTER: Final = 0.2
CALLBACKS_MAX: Final = 64
"""Callbacks under way at the same time; the others wait for them."""
BUDGET_MS: Final = 60_000.0
LINGER_S: Final = 2 * LOOK_S
"""How long a task that was handed out stays: whoever waits for it at another BBS reads its row so often."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CallbackCalls(Protocol):
    """Requests to the addresses that clients named."""

    async def post(self, url: str, body: bytes) -> Delivery:
        """Send JSON and wait for the status. Never raises for what the other side does or does not do."""


@define
class TaskCallbacks:
    """Calls back for completed tasks. One for each BBS."""

    lifecycle: TaskLifecycle
    completions: Completions
    client: CallbackCalls
    tasks: OwnedTasks
    clock: Clock
    log: structlog.stdlib.BoundLogger
    jitter: Callable[[], float]
    """A random number in [-1, 1]."""
    _under_way: set[TaskGuid] = field(factory=set, init=False)
    _slots: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(CALLBACKS_MAX), init=False)

    def completed(self, task: Task) -> None:
        """A task has come to its end here: tell whoever waits for it, and call back if it wants that."""
        self.completions.completed(task)
        if task.definition.completion_callback_url:
            self.begin(task.task_guid)

    def begin(self, task_guid: TaskGuid) -> None:
        """Call back in the background. A process that is stopping leaves it to another one's convergence."""
        if task_guid in self._under_way:
            return
        self._under_way.add(task_guid)
        try:
            self.tasks.begin(self._call_back(task_guid), f"call back {task_guid}")
        except ShuttingDown:
            self._under_way.discard(task_guid)

    async def _call_back(self, task_guid: TaskGuid) -> None:
        try:
            async with self._slots:
                call = Call.begin(self.clock, BUDGET_MS)  # The wait before it is for others.
                task = await self._handed_out(call, task_guid)
            await self.clock.sleep(LINGER_S)
            await self.lifecycle.forget(call, TaskStatus.of(task))
            self.completions.gone(task_guid)
        except (TaskNotFound, IllegalTransition):
            return  # somebody else has taken the result, or takes it
        except DiegoError as error:
            self.log.warning("callback_failed", task_guid=task_guid, code=error.root.code, detail=error.root.message)
        finally:
            self._under_way.discard(task_guid)

    async def _handed_out(self, call: Call, task_guid: TaskGuid) -> Task:
        """Take the task and hand it out; or give it back, to be called back later.

        Raises CallbackFailed or CallbackRefused when nobody took it.
        """
        task = await self.lifecycle.resolve(call, task_guid)
        delivery = await self._delivered(task)
        if delivery.status is None or delivery.status in AGAIN:
            await self.lifecycle.recall(call, TaskStatus.of(task))
            if delivery.denied:
                raise CallbackRefused(f"call back for task {task_guid}: {delivery.reason}")
            raise CallbackFailed(f"call back for task {task_guid}: {delivery.reason or delivery.status}")
        self.log.info("called_back", task_guid=task_guid, status=delivery.status)
        return task

    async def _delivered(self, task: Task) -> Delivery:
        """Up to three tries, with growing pauses between them."""
        url, body = task.definition.completion_callback_url, body_of(task)
        for number in range(1, TRIES_MAX):
            delivery = await self.client.post(url, body)
            if delivery.denied or (delivery.status is not None and delivery.status not in AGAIN):
                return delivery
            await self.clock.sleep(PAUSE_MIN_S * 2 ** (number - 1) * (1 + JITTER * self.jitter()))
        return await self.client.post(url, body)


def body_of(task: Task) -> bytes:
    """What is sent, in Diego's words: `created_at` is in nanoseconds."""
    return msgspec.json.encode(
        {
            "task_guid": task.task_guid,
            "failed": task.failed,
            "failure_reason": task.failure_reason or "",
            "result": task.result,
            "annotation": task.definition.annotation,
            "created_at": (task.created_at - _EPOCH) // timedelta(microseconds=1) * 1000,
        }
    )
