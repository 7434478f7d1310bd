"""Blocking calls for one container that may take for ever, each in a thread that is kept in mind until it has ended.

Such a call waits in the kernel for a file system. No thread can be ended from outside, and in the pool that all share
a few of them would hold up the whole cell; so each has a thread of its own, and a container has one at a time. A thread
whose call has ended takes the next one: to start another costs as much as most of these calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import define, field

from cells.garden import stuck
from diego_py.errors import ContainerStuck

T = TypeVar("T")

IDLE = "garden, idle"
"""The name of a thread that has no call."""
IDLE_MAX = 8


@define(eq=False)
class Worker:
    """A thread, and the calls that it is given. A daemon: the end of this process does not wait for its call."""

    _given: SimpleQueue[Callable[[], None] | None] = field(factory=SimpleQueue, init=False)

    def __attrs_post_init__(self) -> None:
        threading.Thread(target=self._work, name=IDLE, daemon=True).start()

    def give(self, call: Callable[[], None]) -> None:
        """Have it call this, which raises nothing, after what it was given before."""
        self._given.put(call)

    def end(self) -> None:
        """End when that is done."""
        self._given.put(None)

    def _work(self) -> None:
        while (call := self._given.get()) is not None:
            call()


@define(eq=False)
class Workers:
    """Those that have no call: few, whatever there was to do at once."""

    _idle: list[Worker] = field(factory=list, init=False)
    _closed: bool = field(default=False, init=False)

    def take(self) -> Worker:
        """One that has nothing to do."""
        return self._idle.pop() if self._idle else Worker()

    def give_back(self, worker: Worker) -> None:
        """Its call has ended."""
        if len(self._idle) < IDLE_MAX and not self._closed:
            self._idle.append(worker)
        else:
            worker.end()

    def close(self) -> None:
        """End all that have nothing to do, and the others when their call has ended."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()


@define(eq=False)
class Job:
    """One call, and what becomes of it."""

    what: str
    ended: asyncio.Future[Any]
    tid: int = 0


@define(eq=False)
class Threads:
    """The calls for one container."""

    workers: Workers
    _job: Job | None = field(default=None, init=False)

    @property
    def busy(self) -> bool:
        """A call is under way."""
        return self._job is not None

    async def run(self, limit_s: float, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call it as soon as the one before it has ended. Raises what it raises.

        Raises ContainerStuck when it takes too long; it goes on, and whoever comes next waits for it first.
        """
        until_s = asyncio.get_running_loop().time() + limit_s
        await self.none(limit_s)
        job = self._begin(what, lambda: function(*arguments))
        await _wait(job, until_s)
        return job.ended.result()  # type: ignore[no-any-return]

    async def none(self, limit_s: float) -> None:
        """Return when no call is under way. Raises ContainerStuck."""
        if self._job is not None:
            await _wait(self._job, asyncio.get_running_loop().time() + limit_s)

    def _begin(self, what: str, function: Callable[[], T]) -> Job:
        loop = asyncio.get_running_loop()
        job = self._job = Job(what, loop.create_future())
        worker = self.workers.take()

        def ended(result: T | None, failure: Exception | None) -> None:
            self.workers.give_back(worker)
            self._job = None
            if failure is None:
                job.ended.set_result(result)
            else:
                job.ended.set_exception(failure)
                job.ended.exception()  # Who asked for it may have been told long ago that it takes too long.

        def work() -> None:
            thread = threading.current_thread()
            thread.name, job.tid = what, threading.get_native_id()
            result, failure = None, None
            try:
                result = function()
            except Exception as raised:
                failure = raised
            thread.name = IDLE
            try:
                loop.call_soon_threadsafe(ended, result, failure)
            except RuntimeError:  # The loop is closed: nobody is left to be told.
                worker.end()

        worker.give(work)
        return job


async def _wait(job: Job, until_s: float) -> None:
    done, _ = await asyncio.wait([job.ended], timeout=max(0.0, until_s - asyncio.get_running_loop().time()))
    if not done:
        evidence = await asyncio.to_thread(stuck.by_thread, job.tid, job.what)
        raise ContainerStuck(f"{job.what}: it takes too long to wait for, and goes on", evidence=evidence)
