"""Several things at once without one failure cancelling the rest: children return outcomes, the parent decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define

from diego_py.errors import DiegoError

T = TypeVar("T")


async def outcome_of(work: Coroutine[Any, Any, T]) -> T | DiegoError:
    """What `work` returns, or the DiegoError it raises."""
    try:
        return await work
    except DiegoError as failure:
        return failure


def value_of(outcome: T | DiegoError) -> T:
    """The value of an outcome; a failure is raised."""
    if isinstance(outcome, DiegoError):
        raise outcome
    return outcome


async def first_of(*contenders: Coroutine[Any, Any, T]) -> T:
    """What the first of `contenders` to end returns or raises; the others are cancelled. Ties: the earlier argument."""
    if len(contenders) == 1:
        return await contenders[0]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome_of(contender)) for contender in contenders]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
    finally:
        for contender in contenders:
            contender.close()  # One that was cancelled before it began was never awaited.
    return value_of(ended[0].result())


async def unless(ends: Sequence[asyncio.Future[Any]], work: Coroutine[Any, Any, object]) -> bool:
    """Do `work`, unless one of `ends` is done before: then it is cancelled. Whether it was done and none of them is.

    In the caller's own task: what hardly ever happens costs a callback, where `first_of` has a task for each contender.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before, interruption = task.cancelling(), _Interruption(task)
    for end in ends:
        end.add_done_callback(interruption)
    try:
        await work
    except asyncio.CancelledError:
        if not interruption.happened or task.cancelling() > cancelled_before + 1:
            raise
    finally:
        interruption.wanted = False
        if interruption.happened:
            task.uncancel()
        for end in ends:
            end.remove_done_callback(interruption)
    return not any(end.done() for end in ends)


@define(eq=False)
class _Interruption:
    """Cancels a task once, as long as that is wanted: callbacks of what is done may come late."""

    task: asyncio.Task[Any]
    wanted: bool = True
    happened: bool = False

    def __call__(self, end: asyncio.Future[Any]) -> None:
        if self.wanted and not self.happened:
            self.happened = True
            self.task.cancel()
