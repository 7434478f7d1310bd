"""The pure half of the lifecycle: what a row becomes by each event, and what a report changes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bbs.convergence.backoff import CrashPolicy
from bbs.store import moves, reconcile
from diego_py.errors import IllegalTransition
from diego_py.models.actual_lrp import TRANSITIONS, ActualLRP, ActualLRPEvent, ActualLRPState, NetInfo
from diego_py.models.cell import CellCapacity, CellPresence
from diego_py.models.identifiers import CellId
from diego_py.models.work import AvailableResources, CellReport, EndedReport, InstanceReport, InstanceState
from tests.strategies import actual_lrps

NOW = datetime(2024, 1, 1, tzinfo=UTC)
NET_INFO = NetInfo(address="10.0.0.1")
CELLS = ("cell-1", "cell-2")

MOVES: dict[ActualLRPEvent, Callable[[ActualLRP], ActualLRP]] = {
    ActualLRPEvent.OFFER: lambda row: moves.offered(row, "new", 1, NOW),
    ActualLRPEvent.CLAIM: lambda row: moves.claimed(row, "cell-1", NOW),
    ActualLRPEvent.START: lambda row: moves.started(row, "cell-1", NET_INFO, "z1", NOW),
    ActualLRPEvent.FAIL: lambda row: moves.failed(row, "why", None, NOW),
    ActualLRPEvent.CRASH: lambda row: moves.crashed(row, "why", NOW, CrashPolicy()),
    ActualLRPEvent.LOSE: lambda row: moves.lost(row, "why", NOW),
    ActualLRPEvent.RETRY: lambda row: moves.retried(row, NOW),
    ActualLRPEvent.RESTART: lambda row: moves.restarted(row, "new", 1, NOW),
}


def test_every_event_has_its_move() -> None:
    assert set(MOVES) == set(ActualLRPEvent)


@pytest.mark.parametrize("event", list(ActualLRPEvent))
@given(row=actual_lrps())
def test_a_move_is_one_of_the_table_or_refused(event: ActualLRPEvent, row: ActualLRP) -> None:
    row = evolve(row, instance_guid=row.instance_guid or _offered_guid(row), presence="ORDINARY")
    gives_up = event is ActualLRPEvent.OFFER and row.state is ActualLRPState.CLAIMED
    if (row.state, event) not in TRANSITIONS and not gives_up:
        with pytest.raises(IllegalTransition):
            MOVES[event](row)
        return
    after = MOVES[event](row)
    assert after.state is (ActualLRPState.UNCLAIMED if gives_up else TRANSITIONS[(row.state, event)])
    if after is not row:
        assert row.modification_tag.succeeded_by(after.modification_tag) or row.modification_tag.epoch == ""
        assert after.modification_tag.epoch == row.modification_tag.epoch
        assert not [error for error in after.rules() if error.pointer != "/presence"]


def _offered_guid(row: ActualLRP) -> str | None:
    return "guid" if row.state is ActualLRPState.UNCLAIMED else None


@st.composite
def worlds(draw: st.DrawFn) -> tuple[CellReport, list[ActualLRP]]:
    """A report of cell-1 that may be wrong in any way, and rows of two cells."""
    rows = draw(st.lists(actual_lrps(), max_size=5, unique_by=lambda row: (row.process_guid, row.index)))
    cells = draw(st.lists(st.sampled_from(CELLS), min_size=len(rows), max_size=len(rows)))
    placed = [
        evolve(row, cell_id=CellId(cell) if row.cell_id else None, instance_guid=row.instance_guid and f"guid-{number}")
        for number, (row, cell) in enumerate(zip(rows, cells, strict=True))
    ]
    named = [row for row in placed if row.instance_guid]
    chosen = [row for row in named if draw(st.booleans())]
    cut = draw(st.integers(0, len(chosen)))
    return _report(chosen[:cut], chosen[cut:]), placed


def _report(running: list[ActualLRP], ended: list[ActualLRP]) -> CellReport:
    def key(row: ActualLRP) -> dict[str, object]:
        return {name: getattr(row, name) for name in ("process_guid", "index", "domain", "instance_guid")}

    return CellReport(
        presence=CellPresence(
            cell_id=CellId("cell-1"),
            url="http://cell-1:1800",
            capacity=CellCapacity(memory_mb=1, disk_mb=1, containers=1),
            boot_id="boot",
        ),
        sequence=1,
        available=AvailableResources(memory_mb=1, disk_mb=1, containers=1),
        instances=tuple(InstanceReport(**key(row), state=InstanceState.RUNNING, net_info=NET_INFO) for row in running),
        ended=tuple(EndedReport(**key(row), failure={}) for row in ended),
    )


@given(world=worlds(), age_s=st.integers(0, 20))
def test_a_report_touches_no_row_of_another_cell(world: tuple[CellReport, list[ActualLRP]], age_s: int) -> None:
    """I11, and a young row is never said to have vanished."""
    report, rows = world
    rows = [evolve(row, since=NOW - timedelta(seconds=age_s)) for row in rows]
    differences = reconcile.compare(report, rows, NOW)
    foreign = {row.instance_guid for row in rows if row.cell_id == "cell-2"}
    assert foreign.isdisjoint(item.instance_guid for item in differences.started)
    assert foreign.isdisjoint(item.instance_guid for item in differences.ended)
    assert foreign.isdisjoint(row.instance_guid for row in differences.vanished)
    assert foreign & {item.instance_guid for item in report.instances} <= set(differences.stop)
    assert not differences.vanished or age_s > reconcile.SETTLED_S


@given(world=worlds())
def test_every_reported_instance_without_its_row_is_stopped(world: tuple[CellReport, list[ActualLRP]]) -> None:
    report, _ = world
    assert set(reconcile.compare(report, [], NOW).stop) == {item.instance_guid for item in report.instances}
