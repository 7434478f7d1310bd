"""Blocking calls for one container that may take for ever, each in a thread that is kept in mind until it has ended.

Such a call waits in the kernel for a file system. No thread can be ended from outside, and in the pool that all share
a few of them would hold up the whole cell; so each has a thread of its own, and a container has one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field

from cells.garden import stuck
from diego_py.errors import ContainerStuck

T = TypeVar("T")


@define(eq=False)
class Job:
    """One call, and what becomes of it."""

    what: str
    ended: asyncio.Future[Any]
    tid: int = 0


@define(eq=False)
class Threads:
    """The calls for one container."""

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

        def ended(result: T | None, failure: Exception | None) -> None:
            thread.join()
            self._job = None
            if failure is None:
                job.ended.set_result(result)
            else:
                job.ended.set_exception(failure)
                job.ended.exception()  # Who asked for it may have been told long ago that it takes too long.

        def work() -> None:
            job.tid = threading.get_native_id()
            result, failure = None, None
            try:
                result = function()
            except Exception as raised:
                failure = raised
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody is left to be told.
                loop.call_soon_threadsafe(ended, result, failure)

        # A daemon: the end of this process does not wait for one that does not come back.
        thread = threading.Thread(target=work, name=what, daemon=True)
        thread.start()
        return job


async def _wait(job: Job, until_s: float) -> None:
    done, _ = await asyncio.wait([job.ended], timeout=max(0.0, until_s - asyncio.get_running_loop().time()))
    if not done:
        evidence = await asyncio.to_thread(stuck.by_thread, job.tid, job.what)
        raise ContainerStuck(f"{job.what}: it takes too long to wait for, and goes on", evidence=evidence)
