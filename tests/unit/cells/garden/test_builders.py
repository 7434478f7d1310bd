"""How many containers are built side by side."""

from __future__ import annotations

import asyncio

from cells.garden.builders import AT_ONCE, Builders


async def test_only_the_first_of_several_is_alone() -> None:
    builders = Builders()
    async with builders.slot() as first, builders.slot() as second:
        assert (first, second) == (True, False)
    async with builders.slot() as later:
        assert later


async def test_no_more_than_so_many_build_at_once() -> None:
    builders, inside, most = Builders(), 0, 0
    full, go = asyncio.Event(), asyncio.Event()

    async def build() -> None:
        nonlocal inside, most
        async with builders.slot():
            inside += 1
            most = max(most, inside)
            if inside == AT_ONCE:
                full.set()
            await go.wait()
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * AT_ONCE):
            group.create_task(build())
        await full.wait()
        go.set()
    assert (inside, most) == (0, AT_ONCE)
