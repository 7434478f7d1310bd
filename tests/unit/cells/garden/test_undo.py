"""What is left of a container whose creation failed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cells.garden.box import Box
from cells.garden.threads import Threads, Workers
from cells.garden.undo import Undo, in_time
from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.errors import BudgetSpent, DestroyFailed, MountFailed, Outcome
from diego_py.service.clock import SystemClock
from tests.unit.diego_py.service.hand_clock import HandClock

CALL = Call.begin(SystemClock(), 1_000)


class Demolition:
    """Takes as long as it is let, and may fail."""

    def __init__(self, failure: DestroyFailed | None = None) -> None:
        self.failure = failure
        self.begun, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), False

    async def __call__(self, call: Call | None, box: Box) -> None:
        self.begun.set()
        await self.may_end.wait()
        self.ended = True
        if self.failure is not None:
            raise self.failure


def half_built() -> Any:
    return SimpleNamespace(complete=False, threads=Threads(Workers()), runtime_silent=False)


async def run(demolition: Demolition, box: Any, error: BaseException) -> None:
    await Undo(CALL, cast(Box, box), demolition)(type(error), error, None)


@pytest.mark.parametrize(
    ("failure", "outcome", "listed"),
    [(None, Outcome.ROLLED_BACK, False), (DestroyFailed("unmount"), Outcome.PARTIAL, True)],
)
async def test_the_error_says_what_is_left(failure: DestroyFailed | None, outcome: Outcome, listed: bool) -> None:
    box, error, demolition = half_built(), MountFailed("mount"), Demolition(failure)
    demolition.may_end.set()
    await run(demolition, box, error)
    assert (error.outcome, box.complete) == (outcome, listed)


@pytest.mark.parametrize("failure", [None, DestroyFailed("unmount")])
async def test_it_ends_although_its_caller_has_no_more_time(failure: DestroyFailed | None) -> None:
    box, demolition = half_built(), Demolition(failure)
    async with asyncio.TaskGroup() as group:
        undoing = group.create_task(run(demolition, box, MountFailed("mount")))
        await demolition.begun.wait()
        undoing.cancel()
        await asyncio.sleep(0)
        demolition.may_end.set()
    assert undoing.cancelled()
    assert demolition.ended
    assert box.complete is (failure is not None)


@pytest.mark.parametrize(("left", "outcome"), [({}, Outcome.ROLLED_BACK), ({"a": None}, Outcome.PARTIAL)])
async def test_what_failed_is_told_when_undoing_it_takes_longer_than_its_caller_has_time(
    left: dict[str, Any], outcome: Outcome
) -> None:
    box, error, demolition = half_built(), MountFailed("mount"), Demolition()
    hurried = Call.begin(HandClock(), ANSWER_MARGIN_MS + 1)

    async def create() -> None:
        async with in_time(hurried, "a", left), AsyncExitStack() as undo:
            undo.push_async_exit(Undo(hurried, box, demolition))
            asyncio.get_running_loop().call_later(0.002, demolition.may_end.set)
            raise error

    with pytest.raises(BudgetSpent) as told:
        await create()
    assert (list(told.value.links()), told.value.outcome) == ([told.value, error], outcome)
    assert demolition.ended


async def test_no_failure_is_told_when_only_time_was_over() -> None:
    hurried = Call.begin(HandClock(), ANSWER_MARGIN_MS + 1)
    with pytest.raises(BudgetSpent) as told:
        async with in_time(hurried, "a", {}):
            await asyncio.Event().wait()
    assert told.value.root is told.value
