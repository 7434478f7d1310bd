"""The cells: what is known of them, kept fresh, and the calls to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp
from attrs import define, evolve, field

from bbs.auction.cell_view import Demand, Room
from bbs.cell_calls import CellCalls
from bbs.known_cells import KnownCells, Promise
from bbs.store.cells import CellMark, CellRecord
from bbs.store.transaction import Store
from diego_py.call import Call, Hop
from diego_py.errors import DiegoError, HopUnreachable, NoCellFits, NoCells, Outcome, PlacementFailed
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid
from diego_py.models.task import Task
from diego_py.models.task_work import TaskWork
from diego_py.models.work import CellReport, EgressChange, Started, Stopped, TaskStarted, Work

ASK_TIMEOUT_MS = 1_000.0
"""How long a cell may take to tell its state; a slower one is judged by what it said last (reliability rule R13)."""
CELLS_AT_ONCE = 200
"""Cells that are read without a pause: a BBS that was just started knows none of thousands."""
CELLS_ASKED_MAX = 64
"""Before a refusal, the nearest misses only: they report by themselves every few seconds, and after each change."""


@define
class CellPool:
    """The cells, kept fresh by their reports and by the database that all BBSes share."""

    store: Store
    calls: CellCalls
    cells: KnownCells = field(factory=KnownCells)

    async def refresh(self, call: Call) -> None:
        """Look in the database which cells are live. Those that reported elsewhere appear, dead ones vanish."""
        await self.learn(call, await self.store.read(call, "list_cells", lambda tx: tx.cells.list_marks()))

    async def learn(self, call: Call, marks: Sequence[CellMark]) -> None:
        """Read what is new of the live cells; these are all that there are."""
        live, gone = {mark.cell_id for mark in marks if mark.live}, set[CellId]()
        news = self.cells.news(marks)
        for first in range(0, len(news), CELLS_AT_ONCE):
            some = news[first : first + CELLS_AT_ONCE]
            records = await self._read(call, some)
            self.cells.learn(records)
            gone |= set(some).difference(record.cell_id for record in records)
        self.cells.only((), live - gone)

    async def _read(self, call: Call, cell_ids: Sequence[CellId]) -> Sequence[CellRecord]:
        return await self.store.read(call, "read_cells", lambda tx: tx.cells.list_many(cell_ids))

    def reported(self, report: CellReport) -> None:
        """Take up what a cell just said to this BBS."""
        self.cells.reported(report)

    async def ask_cells(self, call: Call, demand: Demand, tried: frozenset[str]) -> None:
        """Ask the cells that come nearest to a demand for their state now, having looked which cells there are.

        One that does not answer in time keeps its last word.
        """
        await self.refresh(call)
        call = call.with_budget(min(ASK_TIMEOUT_MS, max(1.0, call.remaining_ms())))
        async with asyncio.TaskGroup() as group:
            for cell_id in self.cells.nearest(demand, tried, CELLS_ASKED_MAX):
                group.create_task(self._ask(evolve(call, here=None), cell_id))

    async def best(self, call: Call, demand: Demand, tried: frozenset[str]) -> Promise:
        """The best cell for one demand, its room held. Before it is said that there is none, cells are asked."""
        promise = self.cells.choose(demand, tried)
        if promise.cell_id is None:
            await self.ask_cells(call, demand, tried)
            promise = self.cells.choose(demand, tried)
        return promise

    def refusal(self, demand: Demand) -> NoCells | NoCellFits:
        """Why no cell takes a demand, as an error to raise."""
        why = self.cells.explain(demand)
        if not why.cells:
            return NoCells("no cell has a live presence", outcome=Outcome.NOT_STARTED)
        return NoCellFits(why.summary(), outcome=Outcome.NOT_STARTED, placement=why.told())

    def spent(
        self, what: str, demand: Demand, failed: Sequence[tuple[CellId, DiegoError]], won: CellId | None = None
    ) -> PlacementFailed:
        """No further cell is tried: the error to raise from the last failure. The earlier ones stay as attempts."""
        tried = [cell_id for cell_id, _ in failed if cell_id != won]
        return PlacementFailed(
            what,
            attempts=[error for _, error in failed[:-1]],
            placement=self.cells.explain(demand, tried, won).told(),
        )

    async def run(self, call: Call, promise: Promise, work: Work, attempt: int) -> tuple[CellId, Started]:
        """Have the cell run an instance. Raises what the cell raised, or HopUnreachable."""
        cell_id = self.cells.sent(promise, work.instance_guid)
        started = await self.calls.run(call, cell_id, await self._url(call, cell_id), work, attempt)
        self.cells.answered(promise, started)
        return cell_id, started

    async def stop(self, call: Call, cell_id: CellId, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an instance. Raises what the cell raised, or HopUnreachable."""
        return await self.calls.stop(call, cell_id, await self._url(call, cell_id), instance_guid)

    async def set_egress(
        self, call: Call, cell_id: CellId, instance_guid: InstanceGuid, change: EgressChange
    ) -> None:
        """Have the cell change what an instance may reach. Raises what the cell raised, or HopUnreachable."""
        await self.calls.set_egress(call, cell_id, await self._url(call, cell_id), instance_guid, change)

    async def state(self, call: Call, cell_id: CellId) -> CellReport:
        """What the cell says that it has now. Raises what the cell raised, or HopUnreachable."""
        return await self.calls.state(call, cell_id, await self._url(call, cell_id))

    async def is_present(self, call: Call, cell_id: CellId) -> bool:
        """Whether the cell has a live presence, as the database says now."""
        await self.refresh(call)
        return self.cells.get(cell_id) is not None

    async def drain(self, call: Call, cell_id: CellId, draining: bool) -> None:
        """Have the cell take no new work, or take it again. Raises what the cell raised, or HopUnreachable."""
        url = await self._url(call, cell_id)
        await self.calls.drain(call, cell_id, url, draining)
        report = await self.calls.state(call, cell_id, url)  # newer than what the database has, so that it counts here
        self.cells.reported(report)

    async def run_task(self, call: Call, promise: Promise, work: TaskWork, attempt: int) -> TaskStarted:
        """Have the cell run a task. Raises what the cell raised, or HopUnreachable."""
        cell_id = self.cells.sent(promise, work.instance_guid)
        started = await self.calls.run_task(call, cell_id, await self._url(call, cell_id), work, attempt)
        self.cells.answered(promise, started)
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
        record = self.cells.get(cell_id)
        return record.presence.zone if record is not None else ""

    async def _ask(self, call: Call, cell_id: CellId) -> None:
        with suppress(DiegoError):  # its last word stands; if it is dead, its presence runs out
            self.cells.reported(await self.state(call, cell_id))

    async def _url(self, call: Call, cell_id: CellId) -> str:
        """Where a cell listens. One that never reported here may have reported to another BBS: the database knows."""
        if self.cells.get(cell_id) is None:
            await self.refresh(call)
        record = self.cells.get(cell_id)
        if record is None:
            error = HopUnreachable(f"cell {cell_id} has no live presence", outcome=Outcome.NOT_STARTED)
            hop = Hop("rep", cell_id, "find the cell", call.clock.monotonic(), call.clock.now())
            error.frame = hop.frame(error, hop.began_s)
            raise error
        return record.presence.url


def demand_of(definition: DesiredLRPDefinition, index: int) -> Demand:
    """What one instance of a definition needs of a cell."""
    return Demand(
        process_guid=definition.process_guid,
        index=index,
        rootfs=definition.rootfs,
        need=Room(definition.memory_mb, definition.disk_mb, 1),
        placement_tags=frozenset(definition.placement_tags),
        privileged=definition.privileged,
        volume_drivers=frozenset(mount.driver for mount in definition.volume_mounts),
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
        volume_drivers=frozenset(mount.driver for mount in definition.volume_mounts),
        task=True,
    )
