"""A process is an ordered list of parts: started in order, ready when all are, stopped in reverse.

The one place where tasks are made that outlive the function that made them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

import structlog
from attrs import define, field

from diego_py.errors import DiegoError, ShuttingDown

T = TypeVar("T")


class Part(Protocol):
    """A long-lived part of a process."""

    async def start(self) -> object:
        """Return when the part is ready."""

    async def stop(self) -> None:
        """Return when it holds nothing any more. Called once, also after other parts failed."""


@define
class OwnedTasks:
    """Work that belongs to the process and not to the connection that asked for it."""

    log: structlog.stdlib.BoundLogger
    grace_s: float = 10.0
    _tasks: set[asyncio.Task[Any]] = field(factory=set, init=False)
    _stopping: bool = field(default=False, init=False)

    async def start(self) -> None:
        """Nothing to do: tasks come with the requests."""

    def begin(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start `work`; it goes on when its caller stops waiting. Raises ShuttingDown once stopping began."""
        if self._stopping:
            work.close()
            raise ShuttingDown(f"{name}: this process is stopping", retry_after_s=1.0)
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Start `work` and wait for it; being cancelled ends the wait, not the work."""
        return await asyncio.shield(self.begin(work, name))

    async def stop(self) -> None:
        """Let what is under way finish within the grace time, then cancel the rest and wait for its undoing."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.grace_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, DiegoError):
            self.log.error("owned_task_defect", task=task.get_name(), exc_info=error)


@define
class Loop:
    """A loop that runs until it is stopped. A DiegoError inside a round is logged; anything else stops the process."""

    name: str
    round: Callable[[], Awaitable[None]]
    log: structlog.stdlib.BoundLogger
    on_defect: Callable[[], None] = lambda: None
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
            except DiegoError as error:
                self.log.warning("loop_round_failed", loop=self.name, code=error.root.code, detail=error.root.message)
            except Exception as defect:
                self.log.error("loop_defect", loop=self.name, exc_info=defect)
                self.on_defect()
                return

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None


@define
class Process:
    """The ordered parts of one process and its end."""

    log: structlog.stdlib.BoundLogger
    stopping: asyncio.Event = field(factory=asyncio.Event, init=False)
    failed: bool = field(default=False, init=False)

    def defect(self) -> None:
        """A part met a defect of ours: end the process, so that it is restarted whole and not limping."""
        self.failed = True
        self.stopping.set()

    async def run(self, parts: Sequence[Part], ready: Callable[[], None] = lambda: None) -> int:
        """Start the parts, wait for SIGTERM, SIGINT or a defect, stop them in reverse. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        async with AsyncExitStack() as started:
            for part in parts:
                started.push_async_callback(part.stop)
                await self._start(part)
            self.log.info("ready")
            ready()
            await self.stopping.wait()
            self.log.info("stopping")
        self.log.info("stopped")
        return 1 if self.failed else 0

    async def _start(self, part: Part) -> None:
        """Whoever reads the log alone learns there why there is no process."""
        try:
            await part.start()
        except DiegoError as failure:
            root = failure.root
            self.log.error("cannot_start", part=type(part).__name__, code=root.code, detail=root.message)
            raise
        except OSError as refused:
            self.log.error("cannot_start", part=type(part).__name__, detail=str(refused))
            raise
