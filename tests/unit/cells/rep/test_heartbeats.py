"""When a cell sends a heartbeat, and when all that it has."""

import pytest

from cells.app import Cell
from cells.rep import sync
from diego_py.errors import DiegoError
from diego_py.service.run import Loop
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, work


@pytest.fixture(autouse=True)
async def settled(cell: Cell, bbs: FakeBBS) -> None:
    """The BBS wants exactly what the cell has, and the cell knows. From here on only the test sends reports."""
    await _part(cell, "report").stop()
    bbs.settled = True
    await cell.sync.report()
    assert bbs.reports.items[-1].digest


def _part(cell: Cell, name: str) -> Loop:
    (loop,) = (part for part in cell.parts if isinstance(part, Loop) and part.name == name)
    return loop


async def sent(cell: Cell, bbs: FakeBBS) -> str:
    """What the next report is."""
    whole, beats = len(bbs.reports.items), len(bbs.heartbeats.items)
    await cell.sync.report()
    counts = len(bbs.reports.items) - whole, len(bbs.heartbeats.items) - beats
    return {(1, 0): "whole", (0, 1): "heartbeat"}[counts]


async def test_what_is_as_it_was_is_said_so(cell: Cell, bbs: FakeBBS) -> None:
    whole = bbs.reports.items[-1]
    assert await sent(cell, bbs) == "heartbeat"
    beat = bbs.heartbeats.items[-1]
    assert (beat.boot_id, beat.digest) == (whole.presence.boot_id, whole.digest)
    assert beat.sequence > whole.sequence


async def test_the_bbs_says_how_long_there_is_silence_when_nothing_changes(cell: Cell, bbs: FakeBBS) -> None:
    interval_s = cell.sync.interval_s
    bbs.pause_ms = round(interval_s * 2000)
    assert await sent(cell, bbs) == "heartbeat"
    assert 0.8 * 2 * interval_s <= cell.sync.next_in_s() <= 1.2 * 2 * interval_s
    bbs.pause_ms, bbs.settled = 0, False
    await cell.work.run_instance(call(), work())
    assert await sent(cell, bbs) == "whole"
    assert 0.8 * interval_s <= cell.sync.next_in_s() <= 1.2 * interval_s


async def test_whatever_changes_is_told_whole(cell: Cell, bbs: FakeBBS) -> None:
    before = bbs.reports.items[-1].digest
    await cell.work.run_instance(call(), work())
    assert await sent(cell, bbs) == "whole"
    assert bbs.reports.items[-1].digest != before
    assert await sent(cell, bbs) == "heartbeat"
    (instance,) = cell.sync.books.instances
    instance.routable = False
    assert await sent(cell, bbs) == "whole"
    await cell.work.stop_instance(call(), instance.guid)
    assert await sent(cell, bbs) == "whole"
    assert bbs.reports.items[-1].digest == before
    cell.sync.admission.drain.set(True)
    assert await sent(cell, bbs) == "whole"


async def test_what_the_bbs_does_not_agree_with_is_told_again(cell: Cell, bbs: FakeBBS) -> None:
    bbs.settled = False
    await cell.work.run_instance(call(), work())
    assert await sent(cell, bbs) == "whole"
    assert await sent(cell, bbs) == "whole"


async def test_a_heartbeat_that_is_not_taken_has_a_whole_report_follow_soon(cell: Cell, bbs: FakeBBS) -> None:
    bbs.takes_heartbeats = False
    cell.sync.books.changed.clear()
    renewed_s = cell.sync.admission.lease._renewed_s
    assert await sent(cell, bbs) == "heartbeat"
    assert cell.sync.admission.lease._renewed_s == renewed_s, "nobody renewed the presence"
    assert cell.sync.books.changed.is_set()
    assert await sent(cell, bbs) == "whole"


async def test_a_report_that_failed_is_made_again_and_a_heartbeat_too(cell: Cell, bbs: FakeBBS) -> None:
    async def fail() -> None:
        bbs.report_refusal = DiegoError("broken")
        with pytest.raises(DiegoError, match="broken"):
            await cell.sync.report()
        bbs.report_refusal = None

    await fail()
    assert await sent(cell, bbs) == "heartbeat"
    cell.sync.admission.drain.set(True)
    await fail()
    cell.sync.admission.drain.set(False)
    assert await sent(cell, bbs) == "whole", "nobody knows whether the other report came"


async def test_now_and_then_all_is_told(cell: Cell, bbs: FakeBBS) -> None:
    assert await sent(cell, bbs) == "heartbeat"
    cell.sync._whole_s -= sync.WHOLE_S
    assert await sent(cell, bbs) == "whole"
    assert await sent(cell, bbs) == "heartbeat"
