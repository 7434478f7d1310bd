"""Room is promised once, whatever order words and answers of cells come in, and is free again after every outcome."""

from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bbs.auction.cell_view import Demand, Room
from bbs.known_cells import KnownCells, Promise
from bbs.store.cells import CellRecord
from diego_py.models.cell import CellCapacity, CellPresence, RootfsProvider
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import (
    AvailableResources,
    CellReport,
    Heartbeat,
    InstanceReport,
    InstanceState,
    TaskStarted,
)
from tests.unit.bbs.auction.cells import demand, fleet_of
from tests.unit.bbs.auction.test_fleet import numbers

CAPACITY = Room(400, 1_000, 5)


@define
class Cell:
    """A cell with books of its own."""

    cell_id: CellId
    zone: str
    sequence: int = 0
    has: dict[InstanceGuid, Demand] = field(factory=dict)

    def left(self) -> Room:
        left = CAPACITY
        for each in self.has.values():
            left = left.less(each.need)
        return left

    def reserve(self, guid: InstanceGuid, wanted: Demand) -> None:
        self.has[guid] = wanted
        self.sequence += 1

    def remove(self, guid: InstanceGuid) -> None:
        del self.has[guid]
        self.sequence += 1

    def available(self) -> AvailableResources:
        left = self.left()
        return AvailableResources(memory_mb=left.memory_mb, disk_mb=left.disk_mb, containers=left.containers)

    @property
    def digest(self) -> str:
        return f"has {sorted(self.has)}"

    def beat(self) -> Heartbeat:
        return Heartbeat(boot_id="boot-1", sequence=self.sequence, digest=self.digest)

    def report(self) -> CellReport:
        names: dict[str, Any] = {"domain": "tests"}
        return CellReport(
            presence=CellPresence(
                cell_id=self.cell_id,
                url="http://127.0.0.1:1",
                zone=self.zone,
                capacity=CellCapacity(memory_mb=400, disk_mb=1_000, containers=5),
                rootfs_provider_list=(RootfsProvider(name="preloaded"),),
                boot_id="boot-1",
            ),
            sequence=self.sequence,
            digest=self.digest,
            available=self.available(),
            instances=tuple(
                InstanceReport(
                    process_guid=d.process_guid, index=0, instance_guid=guid, state=InstanceState.CREATED, **names
                )
                for guid, d in self.has.items()
                if not d.task
            ),
            tasks=tuple(
                TaskReport(task_guid=d.process_guid, instance_guid=guid, state=CellTaskState.RUNNING, **names)
                for guid, d in self.has.items()
                if d.task
            ),
        )

    def record(self) -> CellRecord:
        report = self.report()
        return CellRecord(presence=report.presence, available=report.available, sequence=report.sequence)


def wanted(process_guid: str, memory_mb: int, task: bool) -> Demand:
    return demand(process_guid, memory_mb=memory_mb, task=task)


wanteds = st.builds(wanted, st.sampled_from(["a", "b", "c"]), st.sampled_from([0, 50, 150]), st.booleans())


class Promises(RuleBasedStateMachine):
    """Requests side by side, in any order of steps; three cells; words of cells that come late or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.known = KnownCells(rush_min=3)
        self.cells = {CellId(f"c{n}"): Cell(CellId(f"c{n}"), f"z{n % 2}") for n in range(3)}
        self.known.only([cell.record() for cell in self.cells.values()])
        self.guids = count(1)
        self.open: list[Promise] = []
        self.on_cells: list[Promise] = []
        self.batches: list[tuple[ExitStack, list[Promise]]] = []
        self.late: list[CellReport] = []

    def drawn(self, data: st.DataObject, promises: list[Promise]) -> Promise:
        return promises.pop(data.draw(st.integers(0, len(promises) - 1)))

    @rule(one=wanteds)
    def one_asks(self, one: Demand) -> None:
        promise = self.known.choose(one)
        if promise.cell_id is not None:
            self.open.append(promise)

    @rule(some=st.lists(wanteds, min_size=1, max_size=16))
    def many_ask_at_once(self, some: list[Demand]) -> None:
        stack = ExitStack()
        promises = [each for each in stack.enter_context(self.known.promised(some)) if each.cell_id is not None]
        self.open += promises
        self.batches.append((stack, promises))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def one_arrives(self, data: st.DataObject) -> None:
        promise = self.drawn(data, self.open)
        guid = InstanceGuid(f"i{next(self.guids)}")
        self.cells[self.known.sent(promise, guid)].reserve(guid, promise.demand)
        self.on_cells.append(promise)

    @precondition(lambda self: self.on_cells)
    @rule(data=st.data())
    def one_is_answered(self, data: st.DataObject) -> None:
        promise = self.drawn(data, self.on_cells)
        assert promise.cell_id is not None
        assert promise.instance_guid is not None
        cell = self.cells[promise.cell_id]
        answer = TaskStarted(
            instance_guid=promise.instance_guid, available=cell.available(), sequence=cell.sequence
        )
        with self.known.held(promise):
            self.known.answered(promise, answer)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def one_fails_on_its_way(self, data: st.DataObject) -> None:
        promise = self.drawn(data, self.open)
        with pytest.raises(RuntimeError), self.known.held(promise):
            raise RuntimeError

    @precondition(lambda self: self.on_cells)
    @rule(data=st.data())
    def one_fails_on_its_cell(self, data: st.DataObject) -> None:
        promise = self.drawn(data, self.on_cells)
        assert promise.cell_id is not None
        assert promise.instance_guid is not None
        self.cells[promise.cell_id].remove(promise.instance_guid)
        self.known.release(promise)
        self.known.release(promise)

    @precondition(lambda self: any(cell.has for cell in self.cells.values()))
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        under_way = {promise.instance_guid for promise in self.on_cells}
        running = [(cell, guid) for cell in self.cells.values() for guid in cell.has if guid not in under_way]
        if running:
            cell, guid = data.draw(st.sampled_from(running), label="ended")
            cell.remove(guid)

    @rule(cell_id=st.sampled_from(["c0", "c1", "c2"]), late=st.booleans())
    def a_cell_reports(self, cell_id: str, late: bool) -> None:
        report = self.cells[CellId(cell_id)].report()
        if late:
            self.late.append(report)
        else:
            self.known.reported(report)

    @rule(cell_id=st.sampled_from(["c0", "c1", "c2"]))
    def a_cell_is_as_it_said(self, cell_id: str) -> None:
        cell = self.cells[CellId(cell_id)]
        if self.known.repeated(cell.cell_id, cell.beat()):
            known = self.known._known[cell.cell_id]
            assert {report.instance_guid for report in (*known.instances, *known.tasks)} == set(cell.has)
            assert known.record.available == cell.available()
            assert not known.answered

    @precondition(lambda self: self.late)
    @rule()
    def a_late_report_comes(self) -> None:
        self.known.reported(self.late.pop())

    @rule(gone=st.sampled_from([(), ("c0",), ("c0", "c2")]))
    def the_database_is_read(self, gone: tuple[str, ...]) -> None:
        self.known.only([cell.record() for cell in self.cells.values() if cell.cell_id not in gone])

    @precondition(lambda self: self.batches)
    @rule()
    def a_batch_ends(self) -> None:
        stack, promises = self.batches[-1]
        if not any(promise in self.on_cells for promise in promises):
            self.batches.pop()
            self.open = [promise for promise in self.open if promise not in promises]
            stack.close()

    @invariant()
    def no_room_is_promised_twice(self) -> None:
        for cell in self.cells.values():
            left = cell.left()
            for promise in self.open:
                if promise.cell_id == cell.cell_id:
                    left = left.less(promise.demand.need)
            assert min(left.memory_mb, left.disk_mb, left.containers) >= 0

    @invariant()
    def the_arrays_say_what_is_known(self) -> None:
        assert numbers(self.known.fleet) == numbers(fleet_of(self.known.views()))

    def teardown(self) -> None:
        """When nothing is under way any more and each cell has spoken, what is free is what cells have free."""
        for promise in [*self.open, *self.on_cells]:
            self.known.release(promise)
        for stack, _ in self.batches:
            stack.close()
        self.known.only([cell.record() for cell in self.cells.values()])
        for cell in self.cells.values():
            self.known.reported(cell.report())
            assert self.known.fleet.available(self.known.fleet.slots[cell.cell_id]) == cell.left()


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


def known_cells(*cells: Cell) -> KnownCells:
    known = KnownCells()
    for cell in cells:
        known.reported(cell.report())
    return known


def test_what_a_cell_answered_counts_for_the_spread_before_it_reports() -> None:
    cells = [Cell(CellId("a"), "z"), Cell(CellId("b"), "z")]
    known = known_cells(*cells)
    promise = known.choose(demand("web", memory_mb=1))
    cell_id = known.sent(promise, InstanceGuid("i1"))
    assert cell_id == "a"
    cells[0].reserve(InstanceGuid("i1"), promise.demand)
    with known.held(promise):
        known.answered(
            promise, TaskStarted(instance_guid=InstanceGuid("i1"), available=cells[0].available(), sequence=1)
        )
    assert known.fleet.spreads[ProcessGuid("web")].by_zone == {0: 1}
    assert known.choose(demand("web", memory_mb=1)).cell_id == "b"


def test_a_rush_begins_when_much_is_on_its_way_and_ends_with_it() -> None:
    known = known_cells(Cell(CellId("a"), "z"), Cell(CellId("b"), "z"))
    known.rush_min = 2
    rushes = [known.fleet.rush]
    with known.promised([demand("p1", memory_mb=1)]), known.promised([demand("p2", memory_mb=1)]) as (promise,):
        rushes.append(known.fleet.rush)
        for _ in range(2):
            known.release(promise)
        rushes.append(known.fleet.rush)
        nowhere = known.choose(demand("p3", memory_mb=10_000))
        rushes.append(known.fleet.rush)
        known.release(nowhere)
    assert rushes == [False, True, False, False]


def test_what_is_being_started_is_known_with_its_cell_until_it_is_released() -> None:
    known = known_cells(Cell(CellId("a"), "z"), Cell(CellId("b"), "z"))
    demands = [demand("web", n, memory_mb=1) for n in range(2)] + [demand("nowhere", memory_mb=10_000)]
    with known.promised(demands) as promises:
        assert known.placing() == {(ProcessGuid("web"), 0): "a", (ProcessGuid("web"), 1): "b"}
        known.release(promises[0])
        assert known.placing() == {(ProcessGuid("web"), 1): "b"}
    assert known.placing() == {}


async def test_whoever_waits_for_an_lrp_waits_for_all_that_is_being_started_of_it() -> None:
    known = known_cells(Cell(CellId("a"), "z"))
    web = ProcessGuid("web")
    assert known.released(web).done()
    with known.promised([demand("web", n, memory_mb=1) for n in range(2)] + [demand("other", memory_mb=1)]) as promises:
        waiting = known.released(web)
        known.release(promises[0])
        known.release(promises[0])
        assert not waiting.done()
        known.release(promises[1])
        assert waiting.done()
        assert known.released(web).done()
        assert not known.released(ProcessGuid("other")).done()


def test_a_rehearsal_changes_nothing_and_explains_the_first_and_the_first_refusal() -> None:
    known = known_cells(Cell(CellId("a"), "z"), Cell(CellId("b"), "z"))
    before = numbers(known.fleet)
    told = known.rehearse([demand("web", n, memory_mb=100) for n in range(12)], explained=2)
    assert [assignment.cell_id for assignment, _ in told] == ["a", "b"] * 4 + [None] * 4
    assert [why is not None for _, why in told] == [True, True, *[False] * 6, True, *[False] * 3]
    why = told[8][1]
    assert why is not None
    assert why.summary() == "memory_mb 100 needed, 0 at most free on 2 cell(s)"
    assert numbers(known.fleet) == before


def test_a_promise_without_a_cell_holds_nothing_and_goes_nowhere() -> None:
    known = known_cells(Cell(CellId("a"), "z"))
    promise = known.choose(demand("web", memory_mb=10_000))
    assert promise.cell_id is None
    known.release(promise)
    with pytest.raises(ValueError, match="found a cell"):
        known.sent(promise, InstanceGuid("i1"))


def test_only_what_was_told_here_is_repeated_here() -> None:
    cell = Cell(CellId("a"), "z")
    known = KnownCells()
    assert not known.repeated(cell.cell_id, cell.beat())
    known.only([cell.record()])
    assert not known.repeated(cell.cell_id, cell.beat())
    known.reported(cell.report())
    assert known.repeated(cell.cell_id, cell.beat())
    assert not known.repeated(cell.cell_id, Heartbeat(boot_id="boot-2", sequence=9, digest=cell.digest))
    cell.reserve(InstanceGuid("i1"), demand("web", memory_mb=1))
    assert not known.repeated(cell.cell_id, cell.beat())
