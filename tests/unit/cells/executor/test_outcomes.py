"""Several things at once: no failure cancels the others, every waiter has its own exception."""

import asyncio

import pytest

from cells.executor.outcomes import first_of, outcome_of, unless
from diego_py.errors import DiegoError, GardenFailed, twin


async def forever() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def say(text: str) -> str:
    return text


async def fail() -> str:
    raise GardenFailed("create")


async def test_first_of() -> None:
    assert await first_of(forever(), say("me")) == "me"
    assert await first_of(say("earlier"), say("later")) == "earlier"
    with pytest.raises(GardenFailed):
        await first_of(forever(), fail())


async def test_outcome_of() -> None:
    assert await outcome_of(say("x")) == "x"
    assert isinstance(await outcome_of(fail()), GardenFailed)


def test_twin() -> None:
    error = GardenFailed("create", evidence={"a": 1})
    error.__cause__ = DiegoError("below")
    other = twin(error)
    assert other is not error
    assert (type(other), other.message, other.evidence) == (GardenFailed, "create", {"a": 1})
    assert other.__cause__ is error.__cause__


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_unless_nothing_happens() -> None:
    assert await unless((future(),), say("done"))
    with pytest.raises(GardenFailed):
        await unless((future(),), fail())


async def test_unless_something_happens() -> None:
    before, meanwhile = future(), future()
    before.set_result(None)
    assert not await unless((future(), before), say("done"))
    asyncio.get_running_loop().call_soon(meanwhile.set_result, None)
    assert not await unless((future(), meanwhile), forever())
    assert not await unless((before, meanwhile), forever())
    await asyncio.sleep(0)  # nothing comes later


async def test_unless_is_cancelled_itself() -> None:
    """Also in the moment in which it is interrupted; and a deadline around it is still one."""
    end = future()
    task = asyncio.get_running_loop().create_task(unless((end,), forever()))
    await asyncio.sleep(0)
    end.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await unless((future(),), forever())


async def test_what_happens_late_harms_nobody() -> None:
    end = future()

    async def ends() -> None:
        end.set_result(None)

    assert not await unless((end,), ends())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
