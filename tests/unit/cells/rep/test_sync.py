"""What a cell does with the answers to its reports."""

from __future__ import annotations

import asyncio
import json
from io import StringIO

from cells.app import Cell
from diego_py.errors import DestroyFailed
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, work
from tests.fakes.garden import FakeGarden

GUID = "i-1"


def orders(log: StringIO) -> int:
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()].count("stop_ordered")


async def test_a_stop_that_takes_long_is_obeyed_once(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, log: StringIO
) -> None:
    """Whatever many reports are answered with meanwhile. One that failed is obeyed again."""
    await cell.work.run_instance(call(), work())
    bbs.stop = (GUID,)
    garden.holds["destroy"] = asyncio.Event()
    garden.failures["destroy"] = DestroyFailed("destroy it")
    for _ in range(3):
        await cell.sync.report()
    await garden.called("destroy")
    await cell.sync.report()
    assert orders(log) == 1
    garden.holds["destroy"].set()
    while "ordered_stop_failed" not in log.getvalue():
        await asyncio.sleep(0)
    del garden.failures["destroy"]
    await cell.sync.report()
    assert orders(log) == 2
    while cell.work.books.instances.get(GUID) is not None:  # type: ignore[arg-type]
        await asyncio.sleep(0)
    await cell.sync.report()
    assert orders(log) == 2
    assert garden.containers() == []
