"""What a cell does with the answers to its reports."""

from __future__ import annotations

import asyncio
import errno
import json
from io import StringIO

import pytest

from cells.app import Cell
from cells.rep.disk import Directory
from diego_py.errors import DestroyFailed
from diego_py.models.identifiers import InstanceGuid
from tests.chain.awaited import until_true
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, work
from tests.fakes.garden import FakeGarden

GUID = "i-1"


def events(log: StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()]


async def test_a_state_directory_that_cannot_be_written_ends_no_cell(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that has become read-only, say: the process would end, and again as soon as it was started."""

    def refused(disk: Directory, name: str) -> None:
        raise OSError(errno.EROFS, name)

    monkeypatch.setattr(Directory, "remove", refused)
    await cell.work.run_instance(call(), work())
    garden.end(GUID, 0)
    await bbs.report_with(lambda report: bool(report.ended))
    await until_true("it is told that the file stays", lambda: "ended_report_not_removed" in events(log))
    assert not cell.work.books.ended.has(InstanceGuid(GUID))
    assert "loop_defect" not in events(log)
    await cell.sync.report()


async def test_rootfses_that_cannot_be_listed_are_those_of_before(
    cell: Cell, bbs: FakeBBS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(garden: FakeGarden) -> list[str]:
        raise OSError(errno.EMFILE, "/images")

    before = bbs.reports.items[-1].presence.rootfs_provider_list
    assert before[0].properties
    monkeypatch.setattr(FakeGarden, "rootfs_names", refused)
    await cell.sync.report()
    assert bbs.reports.items[-1].presence.rootfs_provider_list == before


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
    assert events(log).count("stop_ordered") == 1
    garden.holds["destroy"].set()
    await until_true("it is told that it failed", lambda: "ordered_stop_failed" in events(log))
    del garden.failures["destroy"]
    await cell.sync.report()
    assert events(log).count("stop_ordered") == 2
    await until_true("it is gone", lambda: len(cell.work.books.instances) == 0)
    await cell.sync.report()
    assert events(log).count("stop_ordered") == 2
    assert garden.containers() == []
