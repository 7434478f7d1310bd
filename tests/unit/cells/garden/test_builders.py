"""How many containers are built side by side."""

from __future__ import annotations

import asyncio

from cells.garden.builders import AT_ONCE, Builders


async def test_who_builds_is_alone_while_nobody_else_does() -> None:
    builders = Builders()
    async with builders.slot() as first:
        assert first()
        async with builders.slot() as second:
            assert not first()
            assert not second()
        assert first()


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
