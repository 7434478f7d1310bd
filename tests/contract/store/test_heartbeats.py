"""A heartbeat is taken when the cell is as it said last, and what is wanted of it is what it was then."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve

from bbs.heartbeats import Heartbeats
from bbs.lifecycle import Lifecycle, ReportOutcome
from bbs.pace import NOT_RENEWED, TTL_INTERVALS, Pace, Term
from bbs.succession import Succession
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import CellId
from diego_py.models.work import CellReport, Heartbeat, InstanceState
from tests.contract.store.conftest import Scene, guids, outcomes, problem, report, reported

CELL = CellId("cell-1")


async def beat(scene: Scene, sequence: int = 9, boot: str = "boot-1", digest: str = "as-told") -> bool:
    beats = Heartbeats(scene.store, Pace())
    term = await beats.take_up(scene.call, CELL, Heartbeat(boot_id=boot, sequence=sequence, digest=digest))
    assert term in (Pace().term(), NOT_RENEWED)
    return term != NOT_RENEWED


def whole(sequence: int, *rows: ActualLRP, **fields: Any) -> CellReport:
    return evolve(report(sequence=sequence, instances=[reported(row) for row in rows], **fields), digest="as-told")


async def settled(scene: Scene, sequence: int, *rows: ActualLRP) -> bool:
    return (await scene.lifecycle.report(scene.call, whole(sequence, *rows))).settled


async def test_what_runs_as_known_is_settled_and_then_renewed(scene: Scene) -> None:
    running = await scene.running()
    assert await settled(scene, 2, running)
    before = await scene.store.read(scene.call, "get", lambda tx: tx.cells.get("cell-1"))
    assert await beat(scene, 3)
    after = await scene.store.read(scene.call, "get", lambda tx: tx.cells.get("cell-1"))
    assert before is not None
    assert after is not None
    assert after.sequence == 3
    assert after.expires_at is not None
    assert before.expires_at is not None
    assert after.expires_at > before.expires_at
    assert evolve(after, sequence=2, seen_at=before.seen_at, expires_at=before.expires_at) == before
    assert await scene.row() == running


async def test_an_empty_cell_is_settled(scene: Scene) -> None:
    assert await settled(scene, 2)
    assert await beat(scene)


async def test_a_report_without_a_digest_is_never_repeated(scene: Scene) -> None:
    outcome = await scene.lifecycle.report(scene.call, report(sequence=2))
    assert not outcome.settled
    assert not await beat(scene, digest="")


async def test_one_that_is_late_or_of_another_boot_or_of_another_report_is_not_taken(scene: Scene) -> None:
    assert not await beat(scene)
    assert await settled(scene, 5)
    assert not await beat(scene, 4)
    assert await beat(scene, 5)
    assert not await beat(scene, boot="boot-2")
    assert not await beat(scene, digest="other")
    await scene.lifecycle.report(scene.call, evolve(report(sequence=6), digest="other"))
    assert not await beat(scene)
    assert await beat(scene, digest="other")


async def test_a_presence_that_ran_out_is_back(scene: Scene) -> None:
    assert await settled(scene, 2)
    await scene.store.run(scene.call, "expire", lambda tx: tx.cells.expire("cell-1"))
    assert await beat(scene)
    (mark,) = await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_marks())
    assert (mark.live, mark.late, mark.draining, mark.told) == (True, False, False, 2)


async def _stop(scene: Scene, row: ActualLRP) -> None:
    await scene.lifecycle.undesire(scene.call, row.process_guid)


async def _remove(scene: Scene, row: ActualLRP) -> None:
    await scene.lifecycle.remove(scene.call, row.process_guid, row.index, row.instance_guid)


async def _restart(scene: Scene, row: ActualLRP) -> None:
    await scene.lifecycle.restart(scene.call, row.process_guid, row.index)


async def _lose(scene: Scene, row: ActualLRP) -> None:
    await scene.lifecycle.lose(scene.call, row, None, problem(scene.call, "lost"))


async def _crash(scene: Scene, row: ActualLRP) -> None:
    await scene.crash(row, "crashed")


async def _suspect(scene: Scene, row: ActualLRP) -> None:
    succession, document = Succession(scene.store, scene.lifecycle), problem(scene.call, "suspect")
    await succession.suspect(scene.call, row, None, document, row.revision)


async def _claim_another(scene: Scene, row: ActualLRP) -> None:
    await scene.claim((await scene.unclaimed("other"))[0])


CHANGES: list[Callable[[Scene, ActualLRP], Awaitable[None]]] = [
    _stop,
    _remove,
    _restart,
    _lose,
    _crash,
    _suspect,
    _claim_another,
]


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_becomes_of_a_row_has_the_next_report_be_a_whole_one(
    scene: Scene, change: Callable[[Scene, ActualLRP], Awaitable[None]]
) -> None:
    running = await scene.running()
    assert await settled(scene, 2, running)
    assert await beat(scene, 3)
    await change(scene, running)
    assert not await beat(scene, 4)
    told = await scene.lifecycle.report(scene.call, whole(5, running))
    gone = change not in (_stop, _suspect, _claim_another)
    assert told.stop == ((running.instance_guid,) if gone else ())
    assert told.settled is (change in (_stop, _suspect))


async def test_what_is_not_agreed_on_is_not_settled(scene: Scene) -> None:
    running, claimed = await scene.running("one"), await scene.claimed("two")
    assert not await settled(scene, 2, running)  # the other one is not there yet
    creating = [reported(running), reported(claimed, InstanceState.CREATED)]
    told = evolve(report(sequence=3, instances=creating), digest="as-told")
    assert not (await scene.lifecycle.report(scene.call, told)).settled
    assert not await settled(scene, 4, running, claimed)  # that one started
    assert await settled(scene, 5, running, claimed)
    stopping = [reported(running), reported(claimed, InstanceState.STOPPING)]
    told = evolve(report(sequence=6, instances=stopping), digest="as-told")
    assert not (await scene.lifecycle.report(scene.call, told)).settled


async def test_an_attempt_that_was_given_up_is_looked_for_until_it_is_gone(scene: Scene) -> None:
    claimed = await scene.claimed()
    await scene.lifecycle.offer(scene.call, claimed)
    assert await scene.abandoned() == [claimed.instance_guid]
    assert not await settled(scene, 2)  # it may still be on its way
    assert not await beat(scene, 3)
    await scene.tampering.put("abandoned_attempts", "since", claimed.since.replace(year=2000))
    assert not await settled(scene, 4)
    assert await scene.abandoned() == []
    assert await settled(scene, 5)
    assert await beat(scene, 6)


async def test_many_at_once_each_have_their_own_answer(scene: Scene) -> None:
    beats = Heartbeats(scene.store, Pace())
    cells = [CellId(f"cell-{number}") for number in range(20)]
    for cell_id in cells[::2]:
        await scene.lifecycle.report(scene.call, evolve(report(cell_id), digest="as-told"))
    told = [(cell_id, Heartbeat(boot_id="boot-1", sequence=2, digest="as-told")) for cell_id in cells]
    told += [(cells[0], Heartbeat(boot_id="boot-1", sequence=1, digest="as-told"))]
    taken = await outcomes([beats.take_up(scene.call, *one) for one in told])
    assert taken == [Pace().term(), NOT_RENEWED] * 10 + [NOT_RENEWED]


async def test_each_is_told_the_term_that_its_row_has_however_fast_cells_come_and_go(scene: Scene) -> None:
    numbers = itertools.cycle([90_000, 7_500, 20_000])
    pace = Pace(cells=lambda: next(numbers))
    lifecycle = Lifecycle(scene.store, scene.lifecycle.clock, guids(), pace)
    beats = Heartbeats(scene.store, pace)
    cells = [CellId(f"cell-{number}") for number in range(6)]
    told = await outcomes([lifecycle.report(scene.call, evolve(report(cell), digest="as-told")) for cell in cells])
    await _as_told(scene, cells, [one.term for one in told if isinstance(one, ReportOutcome)])
    beat = Heartbeat(boot_id="boot-1", sequence=2, digest="as-told")
    terms = await outcomes([beats.take_up(scene.call, cell, beat) for cell in cells])
    await _as_told(scene, cells, [term for term in terms if isinstance(term, Term)])


async def _as_told(scene: Scene, cells: list[CellId], terms: list[Term]) -> None:
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.cells.list_all())
    lasting = {row.cell_id: row.expires_at - row.seen_at for row in rows if row.expires_at and row.seen_at}
    for cell_id, term in zip(cells, terms, strict=True):
        assert 0 <= lasting[cell_id].total_seconds() - term.ttl_s < 1
        assert term.ttl_s >= TTL_INTERVALS * term.pause_s > 0
