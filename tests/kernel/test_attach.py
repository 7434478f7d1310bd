"""Input for a container's own process, and its output as it comes, for any number of clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import ProcessSpec
from diego_py.errors import ContainerNotFound, IllegalTransition
from tests.kernel.containers import SOON_S, call, output, shell, spec, start, until_printed

pytestmark = pytest.mark.kernel

ECHO = "echo ready; while read line; do echo got $line; [ $line = end ] && exit 5; done; echo no more input"


async def test_several_clients_and_a_restart(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden()
    await start(garden, shell("a", ECHO, stdin=True))
    await until_printed(garden, "a", "ready")
    async with garden.attach("a") as one:
        lines = one.output
        following = asyncio.gather(anext(lines))
        await asyncio.sleep(0)
        assert await one.write(b"first\n")
        assert (await following)[0].text == "got first"
    async with garden.attach("a") as two, garden.attach("a") as three:
        assert await two.write(b"second\n")
        assert await three.write(b"third\n")
        await until_printed(garden, "a", "got third")
    await garden.close()
    again = await new_garden(garden.config)
    async with again.attach("a") as four:
        assert await four.write(b"end\n")
        assert (await again.wait("a")).status == 5
    texts = [line.text async for line in again.logs("a")]
    assert texts == ["ready", "got first", "got second", "got third", "got end"]
    with pytest.raises(IllegalTransition):
        again.attach("a")
    await again.destroy(call(), "a")
    garden._boxes.clear()


async def test_input_that_nobody_reads_holds_up_only_its_writer(garden: Garden) -> None:
    script = "echo ready; while :; do [ -e /tmp/go ] && break; sleep 0.05; done; yes | head -n 20000; echo done"
    await start(garden, shell("a", script, stdin=True))
    await until_printed(garden, "a", "ready")
    async with garden.attach("a") as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.write(bytes(32 << 20)), 1)
        await garden.exec(call(), "a", ProcessSpec("/bin/touch", ("/tmp/go",)), SOON_S)
        assert (await garden.wait("a")).status == 0
    assert [line.text async for line in garden.logs("a", tail=1)] == ["done"]


async def test_large_input_is_whole(garden: Garden) -> None:
    await start(garden, shell("a", "head -c 1000000 | md5sum | cut -c-32; echo end", stdin=True))
    async with garden.attach("a") as client:
        assert await client.write(b"0123456789" * 100_000)
        await garden.wait("a")
    assert [line.text async for line in garden.logs("a")][1:] == ["end"]
    expected = await output(garden, shell("b", "yes 0123456789 | tr -d '\\n' | head -c 1000000 | md5sum | cut -c-32"))
    assert [line.text async for line in garden.logs("a")][:1] == expected


async def test_without_input(garden: Garden) -> None:
    await start(garden, shell("a", "cat; echo ended; sleep 600"))
    await until_printed(garden, "a", "ended")
    async with garden.attach("a") as client:
        with pytest.raises(IllegalTransition):
            await client.write(b"x")
    with pytest.raises(ContainerNotFound):
        garden.attach("nobody")


async def test_the_end_of_the_process_ends_its_input(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600", stdin=True))
    async with garden.attach("a") as client:
        await garden.destroy(call(), "a")
        assert not await client.write(b"x")
