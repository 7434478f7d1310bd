"""What this BBS knows of the cells, and its calls to them: their own reports, less what is on its way to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import aiohttp
from attrs import define, evolve, field, frozen

from bbs.auction import auction
from bbs.auction.auction import Assignment
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.cell_calls import CellCalls
from bbs.store.cells import CellRecord
from bbs.store.transaction import Store
from diego_py.call import Call, Hop
from diego_py.errors import DiegoError, HopUnreachable, Outcome
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.egress import SecurityGroupRule
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid
from diego_py.models.task import Task
from diego_py.models.task_work import CellTaskState, TaskReport, TaskWork
from diego_py.models.work import (
    AvailableResources,
    CellReport,
    InstanceReport,
    InstanceState,
    Started,
    Stopped,
    TaskStarted,
    Work,
)

ASK_TIMEOUT_MS = 1_000.0
"""How long a cell may take to tell its state; a slower one is judged by what it said last (reliability rule R13)."""


@frozen
class Known:
    """The last word of one cell."""

    record: CellRecord
    instances: tuple[InstanceReport, ...] = ()
    tasks: tuple[TaskReport, ...] = ()


@define
class CellPool:
    """The auction's view of the cells, kept fresh by their reports and by the database that all BBSes share."""

    store: Store
    calls: CellCalls
    _known: dict[CellId, Known] = field(factory=dict, init=False)
    _on_its_way: dict[InstanceGuid, tuple[CellId, Demand]] = field(factory=dict, init=False)

    async def refresh(self, call: Call) -> None:
        """Read the live cells from the database. Those that reported elsewhere appear, dead ones vanish."""
        records = await self.store.read(call, "list_cells", lambda tx: tx.cells.list_live())
        for record in records:
            self._learn(record)
        live = {record.presence.cell_id for record in records}
        for gone in self._known.keys() - live:
            del self._known[gone]

    def reported(self, report: CellReport) -> None:
        """Take up what a cell just said to this BBS."""
        self._learn(_record_of(report), report)

    async def ask_cells(self, call: Call) -> None:
        """Ask every live cell for its state now; one that does not answer in time keeps its last word."""
        await self.refresh(call)
        call = call.with_budget(min(ASK_TIMEOUT_MS, max(1.0, call.remaining_ms())))
        async with asyncio.TaskGroup() as group:
            for known in list(self._known.values()):
                group.create_task(self._ask(evolve(call, here=None), known.record))

    def choose(self, demand: Demand, tried: frozenset[str]) -> Assignment:
        """The best cell for one demand as things are known now."""
        return auction.choose(demand, self.views(), tried)

    async def best(self, call: Call, demand: Demand, tried: frozenset[str]) -> Assignment:
        """The same, and true now: before it says that there is none, the cells themselves are asked."""
        choice = self.choose(demand, tried)
        if choice.cell_id is None:
            await self.ask_cells(call)
            choice = self.choose(demand, tried)
        return choice

    def assign(self, demands: Sequence[Demand]) -> list[Assignment]:
        """A cell for each demand of one request."""
        return auction.assign(demands, self.views())

    def views(self) -> list[CellView]:
        """Every live cell with what is on its way to it already taken off."""
        return [self._view(known) for _, known in sorted(self._known.items())]

    @contextmanager
    def on_its_way(self, cell_id: CellId, demand: Demand, instance_guid: InstanceGuid) -> Iterator[None]:
        """Count an assignment against its cell until the cell has answered."""
        self._on_its_way[instance_guid] = (cell_id, demand)
        try:
            yield
        finally:
            del self._on_its_way[instance_guid]

    async def run(self, call: Call, cell_id: CellId, work: Work, attempt: int) -> Started:
        """Have the cell run an instance. Raises what the cell raised, or HopUnreachable."""
        started = await self.calls.run(call, cell_id, await self._url(call, cell_id), work, attempt)
        self._answered(cell_id, started)
        return started

    async def stop(self, call: Call, cell_id: CellId, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an instance. Raises what the cell raised, or HopUnreachable."""
        return await self.calls.stop(call, cell_id, await self._url(call, cell_id), instance_guid)

    async def set_egress(
        self, call: Call, cell_id: CellId, instance_guid: InstanceGuid, rules: tuple[SecurityGroupRule, ...]
    ) -> None:
        """Have the cell change what an instance may reach. Raises what the cell raised, or HopUnreachable."""
        await self.calls.set_egress(call, cell_id, await self._url(call, cell_id), instance_guid, rules)

    async def state(self, call: Call, cell_id: CellId) -> CellReport:
        """What the cell says that it has now. Raises what the cell raised, or HopUnreachable."""
        return await self.calls.state(call, cell_id, await self._url(call, cell_id))

    async def drain(self, call: Call, cell_id: CellId, draining: bool) -> None:
        """Have the cell take no new work, or take it again. Raises what the cell raised, or HopUnreachable."""
        url = await self._url(call, cell_id)
        await self.calls.drain(call, cell_id, url, draining)
        report = await self.calls.state(call, cell_id, url)  # newer than what the database has, so that it counts here
        self._learn(_record_of(report), report)

    async def run_task(self, call: Call, cell_id: CellId, work: TaskWork, attempt: int) -> TaskStarted:
        """Have the cell run a task. Raises what the cell raised, or HopUnreachable."""
        started = await self.calls.run_task(call, cell_id, await self._url(call, cell_id), work, attempt)
        self._answered(cell_id, started)
        return started

    async def stop_task(self, call: Call, cell_id: CellId, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an attempt at a task. Raises what the cell raised, or HopUnreachable."""
        return await self.calls.stop_task(call, cell_id, await self._url(call, cell_id), instance_guid)

    @asynccontextmanager
    async def logs(
        self, call: Call, cell_id: CellId, instance_guid: InstanceGuid, query: str
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The log of an instance, from its cell."""
        url = await self._url(call, cell_id)
        async with self.calls.logs(call, cell_id, url, instance_guid, query) as content:
            yield content

    def zone_of(self, cell_id: CellId) -> str:
        known = self._known.get(cell_id)
        return known.record.presence.zone if known else ""

    async def _ask(self, call: Call, record: CellRecord) -> None:
        presence = record.presence
        try:
            report = await self.calls.state(call, presence.cell_id, presence.url)
        except DiegoError:
            return  # its last word stands; if it is dead, its presence runs out
        self._learn(_record_of(report), report)

    def _learn(self, record: CellRecord, report: CellReport | None = None) -> None:
        """Keep the newer word: a higher sequence of the same boot, or another boot. Without a report, what runs there
        is as it was."""
        cell_id = record.presence.cell_id
        before = self._known.get(cell_id)
        same_boot = before is not None and before.record.presence.boot_id == record.presence.boot_id
        if before is not None and same_boot and record.sequence < before.record.sequence:
            return
        if report is not None:
            self._known[cell_id] = Known(record, report.instances, report.tasks)
        elif before is not None and same_boot:
            self._known[cell_id] = evolve(before, record=record)
        else:
            self._known[cell_id] = Known(record)

    def _answered(self, cell_id: CellId, started: Started | TaskStarted) -> None:
        """A cell's answer brings its books along; they are newer than its last report."""
        known = self._known.get(cell_id)
        if known is not None and started.sequence >= known.record.sequence:
            record = evolve(known.record, available=started.available, sequence=started.sequence)
            self._known[cell_id] = evolve(known, record=record)

    async def _url(self, call: Call, cell_id: CellId) -> str:
        """Where a cell listens. One that never reported here may have reported to another BBS: the database knows."""
        if cell_id not in self._known:
            await self.refresh(call)
        known = self._known.get(cell_id)
        if known is None:
            error = HopUnreachable(f"cell {cell_id} has no live presence", outcome=Outcome.NOT_STARTED)
            hop = Hop("rep", cell_id, "find the cell", call.clock.monotonic(), call.clock.now())
            error.frame = hop.frame(error, hop.began_s)
            raise error
        return known.record.presence.url

    def _view(self, known: Known) -> CellView:
        presence = known.record.presence
        reported = {report.instance_guid for report in known.instances}
        reported |= {task.instance_guid for task in known.tasks}
        arriving = [
            demand
            for guid, (cell_id, demand) in self._on_its_way.items()
            if cell_id == presence.cell_id and guid not in reported
        ]
        instances: Counter[ProcessGuid] = Counter(report.process_guid for report in known.instances)
        instances.update(demand.process_guid for demand in arriving if not demand.task)
        tasks = [task for task in known.tasks if task.state is not CellTaskState.COMPLETED]
        available = _room(known.record.available)
        for demand in arriving:
            available = available.less(demand.need)
        capacity = presence.capacity
        starting = sum(1 for report in known.instances if report.state is not InstanceState.RUNNING)
        starting += sum(1 for task in tasks if task.state in (CellTaskState.RESERVED, CellTaskState.CREATED))
        return CellView(
            cell_id=presence.cell_id,
            zone=presence.zone,
            capacity=Room(capacity.memory_mb, capacity.disk_mb, capacity.containers),
            available=available,
            rootfs_providers={p.name: frozenset(p.properties) for p in presence.rootfs_provider_list},
            placement_tags=frozenset(presence.placement_tags),
            optional_placement_tags=frozenset(presence.optional_placement_tags),
            privileged=presence.privileged,
            draining=presence.draining,
            starting=starting + len(arriving),
            instances=instances,
            tasks=len(tasks) + sum(demand.task for demand in arriving),
        )


def demand_of(definition: DesiredLRPDefinition, index: int) -> Demand:
    """What one instance of a definition needs of a cell."""
    return Demand(
        process_guid=definition.process_guid,
        index=index,
        rootfs=definition.rootfs,
        need=Room(definition.memory_mb, definition.disk_mb, 1),
        placement_tags=frozenset(definition.placement_tags),
        privileged=definition.privileged,
    )


def demand_of_task(task: Task) -> Demand:
    """What a task needs of a cell."""
    definition = task.definition
    return Demand(
        process_guid=ProcessGuid(task.task_guid),
        index=0,
        rootfs=definition.rootfs,
        need=Room(definition.memory_mb, definition.disk_mb, 1),
        placement_tags=frozenset(definition.placement_tags),
        privileged=definition.privileged,
        task=True,
    )


def _record_of(report: CellReport) -> CellRecord:
    return CellRecord(presence=report.presence, sequence=report.sequence, available=report.available)


def _room(available: AvailableResources) -> Room:
    return Room(available.memory_mb, available.disk_mb, available.containers)
