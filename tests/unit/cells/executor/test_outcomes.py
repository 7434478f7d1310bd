"""Several things at once: no failure cancels the others, every waiter has its own exception."""

import asyncio

import pytest

from cells.executor.outcomes import first_of, outcome_of
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
