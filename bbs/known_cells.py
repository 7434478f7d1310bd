"""What this BBS knows of the cells: their last words, less what is on its way to them. No calls, no waiting.

An auction is one synchronous step: it looks, decides, and holds the room that it gave away, so that requests that run
side by side never get the same room. Whatever a cell says or is sent changes its own numbers only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from attrs import define, evolve, field

from bbs.auction import auction
from bbs.auction.cell_view import Assignment, CellView, Demand, Room
from bbs.auction.fleet import Fleet
from bbs.auction.reasons import Explanation, explain, nearest_misses
from bbs.store.cells import CellMark, CellRecord
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.work import (
    AvailableResources,
    CellReport,
    Heartbeat,
    InstanceReport,
    InstanceState,
    Started,
    TaskStarted,
)

RUSH_MIN = 1_000
"""From so many on their way to cells on they are placed so that several go to a cell in one request: a BBS needs a
second and more for them, a cell far less for a bundle."""


@define(eq=False)
class Known:
    """The last word of one cell."""

    record: CellRecord
    instances: tuple[InstanceReport, ...] = ()
    tasks: tuple[TaskReport, ...] = ()
    listed: int = -1
    """Sequence of the books that the two lists are from, or that a heartbeat said they are those of."""
    digest: str = ""
    """Of the report with these lists."""
    told: AvailableResources | None = None
    """What it had left by that report."""
    answered: dict[InstanceGuid, Demand] = field(factory=dict)
    """What it began to run after those lists: in its books, and not listed yet."""
    _listed: frozenset[InstanceGuid] = field(init=False)

    @_listed.default
    def _names(self) -> frozenset[InstanceGuid]:
        return frozenset([each.instance_guid for each in self.instances] + [each.instance_guid for each in self.tasks])

    def has(self, instance_guid: InstanceGuid | None) -> bool:
        """Whether its books count an instance, or an attempt at a task."""
        return instance_guid in self.answered or instance_guid in self._listed


@define(eq=False)
class Promise:
    """Room on a cell, held for one demand until the cell has answered, or nobody wants it any more."""

    demand: Demand
    cell_id: CellId | None
    """None when nothing fits; then nothing is held."""
    instance_guid: InstanceGuid | None = None
    """By which the cell will know what is sent there."""


@define
class KnownCells:
    """The cells, for the auction. `fleet` is the same in its arrays: whatever changes one changes the other."""

    fleet: Fleet = field(factory=Fleet)
    rush_min: int = RUSH_MIN
    _known: dict[CellId, Known] = field(factory=dict, init=False)
    _promises: dict[CellId, dict[Promise, None]] = field(factory=dict, init=False)
    _held: int = field(default=0, init=False)
    """Promises in all."""
    _held_of: Counter[ProcessGuid] = field(factory=Counter, init=False)
    _waiting: dict[ProcessGuid, list[asyncio.Future[None]]] = field(factory=dict, init=False)

    def count(self) -> int:
        """Cells that are live, as far as is known here."""
        return len(self._known)

    def get(self, cell_id: CellId) -> CellRecord | None:
        known = self._known.get(cell_id)
        return known.record if known is not None else None

    def news(self, marks: Sequence[CellMark]) -> list[CellId]:
        """The live cells of which the database knows something newer."""
        return [mark.cell_id for mark in marks if mark.live and self._is_news(mark)]

    def _is_news(self, mark: CellMark) -> bool:
        known = self._known.get(mark.cell_id)
        if known is None or known.record.presence.boot_id != mark.boot_id:
            return True
        return known.record.sequence < mark.told

    def learn(self, records: Sequence[CellRecord]) -> None:
        """Take up what the database has of some live cells."""
        for record in records:
            self._learn(record)

    def only(self, records: Sequence[CellRecord], others: Collection[CellId] = ()) -> None:
        """These and the others are all live cells, by the database; of the others there is no news.

        Those that reported elsewhere appear, dead ones vanish.
        """
        self.learn(records)
        live = {record.presence.cell_id for record in records}.union(others)
        for gone in self._known.keys() - live:
            del self._known[gone]
            self.fleet.remove(gone)

    def reported(self, report: CellReport) -> None:
        """Take up what a cell just said."""
        record = CellRecord(presence=report.presence, sequence=report.sequence, available=report.available)
        self._learn(record, report)

    def repeated(self, cell_id: CellId, beat: Heartbeat) -> bool:
        """A cell said that it is as by its last report. False if that report was not told here."""
        known = self._known.get(cell_id)
        if known is None or not beat.digest or known.told is None:
            return False
        if (known.digest, known.record.presence.boot_id) != (beat.digest, beat.boot_id):
            return False
        if beat.sequence >= known.record.sequence:
            changed = known.answered or known.record.available != known.told
            known.record = evolve(known.record, sequence=beat.sequence, available=known.told)
            known.listed, known.answered = beat.sequence, {}
            if changed:
                self._keep(cell_id, known)
        return True

    def answered(self, promise: Promise, started: Started | TaskStarted) -> None:
        """A cell runs what it was sent. Its answer brings its books along, unless newer ones are known."""
        cell_id = promise.cell_id
        known = self._known.get(cell_id) if cell_id is not None else None
        if cell_id is None or known is None:
            return
        slot = self.fleet.slots[cell_id]
        if started.sequence > known.listed and not known.has(started.instance_guid):
            known.answered[started.instance_guid] = promise.demand
            named = [each for each in self._promised(cell_id) if each.instance_guid == started.instance_guid]
            if named == [promise]:
                self.fleet.arrived(slot, promise.demand)
            else:
                self._keep(cell_id, known)
        if started.sequence >= known.record.sequence:
            more = room(started.available).less(room(known.record.available))
            known.record = evolve(known.record, available=started.available, sequence=started.sequence)
            self.fleet.has_more(slot, more)

    def choose(self, demand: Demand, tried: frozenset[str] = frozenset()) -> Promise:
        """The best cell for one demand. Its room is held until the promise is released."""
        assignment = auction.choose(self.fleet, demand, tried)
        if assignment.cell_id is not None:
            self.fleet.add(self.fleet.slots[assignment.cell_id], demand)
        return self._hold(assignment)

    @contextmanager
    def promised(self, demands: Sequence[Demand]) -> Iterator[list[Promise]]:
        """A cell for each demand of one request. The room is held until it is released, at the end at the latest."""
        promises = [self._hold(assignment) for assignment in auction.assign(self.fleet, demands)]
        try:
            yield promises
        finally:
            for promise in promises:
                self.release(promise)

    def placing(self) -> dict[tuple[ProcessGuid, int], CellId]:
        """The instances that are being started now, and where."""
        return {
            (promise.demand.process_guid, promise.demand.index): cell_id
            for cell_id, promises in self._promises.items()
            for promise in promises
            if not promise.demand.task
        }

    def released(self, process_guid: ProcessGuid) -> asyncio.Future[None]:
        """Done when nothing of this LRP is being started."""
        waiting = asyncio.get_running_loop().create_future()
        if self._held_of[process_guid]:
            self._waiting.setdefault(process_guid, []).append(waiting)
        else:
            waiting.set_result(None)
        return waiting

    @contextmanager
    def held(self, promise: Promise) -> Iterator[None]:
        """Release it at the end, whatever comes of it."""
        try:
            yield
        finally:
            self.release(promise)

    def release(self, promise: Promise) -> None:
        """Its room is free again, or in the cell's own books. Nothing happens the second time."""
        cell_id = promise.cell_id
        if cell_id is None or promise not in self._promised(cell_id):
            return
        del self._promises[cell_id][promise]
        self._count_held(promise.demand.process_guid, -1)
        if not self._promises[cell_id]:
            del self._promises[cell_id]
        known = self._known.get(cell_id)
        if known is not None and not known.has(promise.instance_guid):
            self.fleet.take_back(self.fleet.slots[cell_id], promise.demand)

    def sent(self, promise: Promise, instance_guid: InstanceGuid) -> CellId:
        """The cell will hear of it by this name, and may report it before it answers. Returns which cell."""
        if promise.cell_id is None:
            raise ValueError("only a demand that found a cell can be sent there")
        promise.instance_guid = instance_guid
        known = self._known.get(promise.cell_id)
        if known is not None and known.has(instance_guid):
            self._keep(promise.cell_id, known)  # it was sent there before: the cell's books count it
        return promise.cell_id

    def explain(self, demand: Demand, tried: Collection[str] = (), won: CellId | None = None) -> Explanation:
        """What the cells say to a demand."""
        return explain(self.fleet, demand, tried, won)

    def nearest(self, demand: Demand, tried: Collection[str], count: int) -> list[CellId]:
        """Of the cells that do not take a demand, those that come nearest to it."""
        return nearest_misses(self.fleet, demand, tried, count)

    def rehearse(self, demands: Sequence[Demand], explained: int) -> list[tuple[Assignment, Explanation | None]]:
        """What the auction would do with each demand of one request; nothing is held afterwards.

        The first `explained` are explained, and the first that is refused.
        """
        told: list[tuple[Assignment, Explanation | None]] = []
        refused = False
        with ExitStack() as undo:
            for number, demand in enumerate(demands):
                assignment = auction.choose(self.fleet, demand)
                first_refused = assignment.cell_id is None and not refused
                refused |= first_refused
                why = self.explain(demand, won=assignment.cell_id) if number < explained or first_refused else None
                told.append((assignment, why))
                if assignment.cell_id is not None:
                    slot = self.fleet.slots[assignment.cell_id]
                    self.fleet.add(slot, demand)
                    undo.callback(self.fleet.take_back, slot, demand)
        return told

    def views(self) -> list[CellView]:
        """Every cell as the arrays should have it."""
        return [self._view(known) for _, known in sorted(self._known.items())]

    def _hold(self, assignment: Assignment) -> Promise:
        promise = Promise(assignment.demand, assignment.cell_id)
        if assignment.cell_id is not None:
            self._promises.setdefault(assignment.cell_id, {})[promise] = None
            self._count_held(promise.demand.process_guid, 1)
        return promise

    def _count_held(self, guid: ProcessGuid, by: int) -> None:
        self._held += by
        self.fleet.rush = self._held >= self.rush_min
        self._held_of[guid] += by
        if not self._held_of[guid]:
            del self._held_of[guid]
            for waiting in self._waiting.pop(guid, ()):
                if not waiting.done():
                    waiting.set_result(None)

    def _learn(self, record: CellRecord, report: CellReport | None = None) -> None:
        """Keep the newer word: a higher sequence of the same boot, or another boot. Without a report, what runs there
        is as it was."""
        cell_id = record.presence.cell_id
        before = self._known.get(cell_id)
        same_boot = before is not None and before.record.presence.boot_id == record.presence.boot_id
        if before is not None and same_boot and record.sequence < before.record.sequence:
            return
        if before is not None and same_boot and report is None and record.sequence == before.record.sequence:
            return
        if report is not None:
            listed = report.sequence
            known = Known(
                record, report.instances, report.tasks, listed, digest=report.digest, told=report.available
            )
        elif before is not None and same_boot:
            known = before
            known.record = record
        else:
            known = Known(record)
        self._keep(cell_id, known)

    def _keep(self, cell_id: CellId, known: Known) -> None:
        self._known[cell_id] = known
        self.fleet.put(self._view(known))

    def _promised(self, cell_id: CellId) -> Mapping[Promise, None]:
        return self._promises.get(cell_id, _NONE)

    def _arriving(self, cell_id: CellId, known: Known) -> list[Demand]:
        """What is on its way to a cell, and not in its books."""
        return [each.demand for each in self._promised(cell_id) if not known.has(each.instance_guid)]

    def _left(self, cell_id: CellId, known: Known) -> Room:
        """What a cell has left beside that."""
        left = room(known.record.available)
        for demand in self._arriving(cell_id, known):
            left = left.less(demand.need)
        return left

    def _view(self, known: Known) -> CellView:
        """A cell with what is on its way to it taken off."""
        presence = known.record.presence
        arriving = self._arriving(presence.cell_id, known)
        settled = [*known.answered.values(), *arriving]
        instances: Counter[ProcessGuid] = Counter(report.process_guid for report in known.instances)
        instances.update(demand.process_guid for demand in settled if not demand.task)
        tasks = [task for task in known.tasks if task.state is not CellTaskState.COMPLETED]
        capacity = presence.capacity
        starting = sum(1 for report in known.instances if report.state is not InstanceState.RUNNING)
        starting += sum(1 for task in tasks if task.state in (CellTaskState.RESERVED, CellTaskState.CREATED))
        return CellView(
            cell_id=presence.cell_id,
            zone=presence.zone,
            capacity=Room(capacity.memory_mb, capacity.disk_mb, capacity.containers),
            available=self._left(presence.cell_id, known),
            rootfs_providers={p.name: frozenset(p.properties) for p in presence.rootfs_provider_list},
            images=frozenset(presence.images),
            placement_tags=frozenset(presence.placement_tags),
            optional_placement_tags=frozenset(presence.optional_placement_tags),
            privileged=presence.privileged,
            disk_limits=presence.disk_limits,
            volume_drivers=frozenset(presence.volume_drivers),
            draining=presence.draining,
            starting=starting + len(arriving),
            instances=instances,
            tasks=len(tasks) + sum(demand.task for demand in settled),
        )


def room(available: AvailableResources) -> Room:
    return Room(available.memory_mb, available.disk_mb, available.containers)


_NONE: Mapping[Promise, None] = {}
