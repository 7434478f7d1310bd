"""Work that is done once however many ask for it, and goes on when they stop asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from attrs import define, field

from cells.executor.outcomes import outcome_of
from diego_py.errors import DiegoError, Outcome, ShuttingDown, twin
from diego_py.service.run import OwnedTasks

T = TypeVar("T")


@define
class SharedWork(Generic[T]):
    """One task a key at a time; everybody who joins it gets the same outcome."""

    name: str
    owned: OwnedTasks
    _tasks: dict[str, asyncio.Task[T | DiegoError]] = field(factory=dict, init=False)

    async def join(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the work under way for `key`; `begin` starts it if there is none."""
        task = self._tasks.get(key)
        if task is None:
            task = self.owned.begin(_carried_out(begin), f"{self.name} {key}")
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        await self._wait(task)
        if task.cancelled():
            raise ShuttingDown(f"{self.name}: this process is stopping", outcome=Outcome.UNKNOWN, retry_after_s=1.0)
        outcome = task.result()
        if isinstance(outcome, DiegoError):
            raise twin(outcome)
        return outcome

    async def settled(self, key: str) -> None:
        """Return when no work is under way for `key`; how it ended does not matter here."""
        if (task := self._tasks.get(key)) is not None:
            await self._wait(task)

    def under_way(self, key: str) -> bool:
        return key in self._tasks

    @staticmethod
    async def _wait(task: asyncio.Task[Any]) -> None:
        """Wait without owning: being cancelled here does not cancel the work."""
        await asyncio.wait([task])


async def _carried_out(begin: Callable[[], Coroutine[Any, Any, T]]) -> T | DiegoError:
    """The coroutine is made only when the task runs: one that is refused leaves nothing behind that was not awaited."""
    return await outcome_of(begin())
