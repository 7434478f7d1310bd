"""So much is begun in a turn of the event loop, in the order in which it came, and nothing stays behind."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from diego_py.clients.turns import Turns


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(1, 4))
def test_each_comes_once_in_order_and_never_more_in_a_turn(arrivals: list[int], in_a_turn: int) -> None:
    """`arrivals`: how many come in each turn of the loop."""

    async def run() -> list[list[int]]:
        begun: list[list[int]] = [[]]
        turns = Turns[int](in_a_turn, lambda item: begun[-1].append(item))
        number = 0
        for count in arrivals + [0] * (sum(arrivals) + 2):
            for _ in range(count):
                turns.take(number)
                number += 1
            await asyncio.sleep(0)
            begun.append([])
        return begun

    begun = asyncio.run(run())
    assert [item for turn in begun for item in turn] == list(range(sum(arrivals)))
    assert all(len(turn) <= 2 * in_a_turn for turn in begun), "what comes, and what the loop begins before the next"


async def test_who_comes_alone_is_begun_at_once_and_another_one_in_the_next_turn() -> None:
    begun: list[str] = []
    turns = Turns[str](1, begun.append)
    for first, second in (("a", "b"), ("c", "d")):
        begun.clear()
        turns.take(first)
        turns.take(second)
        assert begun == [first]
        await asyncio.sleep(0)
        assert begun == [first, second]
        await asyncio.sleep(0)
