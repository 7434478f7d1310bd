"""Several things at once without one failure cancelling the rest: children return outcomes, the parent decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

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
