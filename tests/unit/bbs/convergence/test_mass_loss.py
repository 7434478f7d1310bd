"""Most cells vanish at once and come back one after the other: nothing is replaced. One that vanishes alone is."""

from __future__ import annotations

import asyncio
from io import StringIO

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from bbs.cell_pool import CellPool
from bbs.convergence.convergence import AFTER_S, Convergence
from bbs.convergence.leader import Leadership
from bbs.convergence.plan import Plan
from bbs.convergence.task_convergence import TaskConvergence
from bbs.lifecycle import Lifecycle
from bbs.pace import Pace
from bbs.store.attempts import Claim, Start
from diego_py.call import Call
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import CellId
from diego_py.service.log import logger
from diego_py.service.run import OwnedTasks
from tests.contract.store.conftest import NET_INFO, definition, guids, report, reported
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore
from tests.unit.diego_py.service.hand_clock import HandClock

TTL_S, REPORT_S, INTERVAL_S = 15.0, 5.0, 1.0


@define
class Seen:
    """Carries out nothing, and knows when a cell was first taken for lost."""

    clock: HandClock
    lost_s: float | None = None

    async def apply(self, plan: Plan, epoch: int) -> None:
        if (plan.suspect or plan.lose) and self.lost_s is None:
            self.lost_s = self.clock.monotonic()


@define
class Cluster:
    """One instance on each cell, which reports at its times; one BBS, which leads."""

    due_s: list[float]
    """Of each cell: when its next report is due."""
    clock: HandClock = field(factory=HandClock)
    lifecycle: Lifecycle = field(init=False)
    seen: Seen = field(init=False)
    convergence: Convergence = field(init=False)
    tasks: OwnedTasks = field(init=False)
    rows: list[ActualLRP] = field(factory=list, init=False)
    last_s: list[float] = field(init=False)
    _sequence: int = field(default=1, init=False)

    async def build(self) -> None:
        log = logger("bbs", "bbs-1", StringIO())
        store = MemoryStore(MemoryDatabase(self.clock), self.clock)
        self.tasks, self.seen = OwnedTasks(log), Seen(self.clock)
        self.lifecycle = Lifecycle(store, self.clock, guids(), Pace(TTL_S))
        self.convergence = Convergence(
            store=store,
            pool=CellPool(store, None),  # type: ignore[arg-type]
            leadership=Leadership(store, self.clock, "bbs-1", 1e6),
            repairs=self.seen,  # type: ignore[arg-type]
            task_convergence=TaskConvergence(None, self.tasks),  # type: ignore[arg-type]
            tasks=self.tasks,
            clock=self.clock,
            log=log,
            interval_s=INTERVAL_S,
            pace=Pace(TTL_S),
            jitter=lambda: 0.0,
        )
        desired = await self.lifecycle.desire(self.call, definition(instances=len(self.due_s)))
        self.last_s = [self.clock.monotonic()] * len(self.due_s)
        for row in desired.actuals:
            assert row.instance_guid is not None
            cell_id = CellId(f"cell-{row.index}")
            await self.lifecycle.report(self.call, report(cell_id))
            await self.lifecycle.claim(self.call, Claim("app", row.index, row.instance_guid, cell_id, "boot-1"))
            self.rows.append(
                await self.lifecycle.start(self.call, Start("app", row.index, row.instance_guid, cell_id, NET_INFO))
            )

    @property
    def call(self) -> Call:
        return Call.begin(self.clock, 10_000)

    async def go_on(self, seconds: float, *cut_off: int) -> None:
        """Reports and rounds for so long; nobody hears the cells that are cut off."""
        until_s = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until_s:
            for number, row in enumerate(self.rows):
                if self.due_s[number] <= self.clock.monotonic():
                    self.due_s[number] = self.clock.monotonic() + REPORT_S
                    if number not in cut_off:
                        await self._report(number, row)
            await self.convergence.round()
            await asyncio.gather(*self.tasks._tasks)

    async def _report(self, number: int, row: ActualLRP) -> None:
        self._sequence += 1
        said = report(f"cell-{number}", sequence=self._sequence, instances=[reported(row)])
        await self.lifecycle.report(self.call, said)
        self.last_s[number] = self.clock.monotonic()


phases = st.lists(st.floats(0, REPORT_S), min_size=2, max_size=5)


@settings(max_examples=10, deadline=None)
@given(phases, st.floats(0, REPORT_S), st.floats(TTL_S / 2 + INTERVAL_S, 30), st.data())
def test_whoever_is_back_first_replaces_nobody(
    phases: list[float], before_s: float, outage_s: float, data: st.DataObject
) -> None:
    """Wherever in its interval each cell is when all are cut off, and when they are heard again.

    An outage shorter than half a presence is seen by nobody: whoever is late then may be late alone.
    """

    async def scenario() -> None:
        cluster = Cluster([1_000.0 + phase for phase in phases])
        await cluster.build()
        await cluster.go_on(TTL_S + REPORT_S + before_s)
        await cluster.go_on(outage_s, *range(len(phases)))
        now_s = cluster.clock.monotonic()
        cluster.due_s = [now_s + data.draw(st.floats(0, 2 * REPORT_S)) for _ in phases]
        await cluster.go_on(TTL_S + REPORT_S)
        assert cluster.seen.lost_s is None

    asyncio.run(scenario())


@settings(max_examples=10, deadline=None)
@given(phases, st.floats(0, REPORT_S), st.data())
def test_one_that_vanishes_alone_is_lost_when_its_presence_runs_out(
    phases: list[float], before_s: float, data: st.DataObject
) -> None:
    async def scenario() -> None:
        cluster = Cluster([1_000.0 + phase for phase in phases])
        lost = data.draw(st.integers(0, len(phases) - 1))
        await cluster.build()
        await cluster.go_on(TTL_S + REPORT_S + before_s)
        await cluster.go_on(TTL_S + REPORT_S, lost)
        assert cluster.seen.lost_s is not None
        assert 0 <= cluster.seen.lost_s - cluster.last_s[lost] - TTL_S <= 2 * AFTER_S

    asyncio.run(scenario())
