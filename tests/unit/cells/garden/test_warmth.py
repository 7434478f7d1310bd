"""How long moves into cgroups are kept quick."""

from __future__ import annotations

from threading import Event, Semaphore

import pytest
from attrs import define, field

from cells.garden import warmth
from cells.garden.cgroups import Cgroups
from cells.garden.children import in_thread


@define
class Moves(Cgroups):
    """Tells of each move instead of making it."""

    made: Semaphore = field(factory=lambda: Semaphore(0))
    count: int = 0

    def warm(self) -> None:
        self.count += 1
        self.made.release()

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert await in_thread(self.made.acquire, True, 10.0)

    async def wait_and_fail(self, count: int) -> None:
        await self.wait_for(count)
        raise ZeroDivisionError


@pytest.fixture
def moves() -> Moves:
    return Moves("/diego", [])


async def test_they_go_on_beside_the_work_and_end_with_it(moves: Moves) -> None:
    await warmth.beside(moves, lambda: True, moves.wait_for(3))
    assert 3 <= moves.count < warmth.MOVES_MAX


async def test_what_the_work_raises_ends_them_too(moves: Moves) -> None:
    with pytest.raises(ZeroDivisionError):
        await warmth.beside(moves, lambda: True, moves.wait_and_fail(2))
    assert moves.count < warmth.MOVES_MAX


async def test_whoever_is_not_alone_makes_none(moves: Moves) -> None:
    await warmth.beside(moves, lambda: False, moves.wait_for(0))
    assert moves.count == 0


async def test_they_end_when_somebody_else_comes(moves: Moves) -> None:
    await warmth.beside(moves, lambda: moves.count < 2, moves.wait_for(2))
    assert moves.count == 2


def test_they_end_by_themselves(moves: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmth, "PAUSE_S", 0.0)
    warmth._keep(moves, lambda: True, Event())
    assert moves.count == warmth.MOVES_MAX
