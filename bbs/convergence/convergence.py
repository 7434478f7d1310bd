"""The loop of the leader: read all that deviates, plan, apply. A round that cannot read all of it does nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
from attrs import define, evolve, field

from bbs.cell_pool import CellPool
from bbs.convergence.apply import Repairs
from bbs.convergence.decisions import Decisions, decisions_of
from bbs.convergence.leader import Leadership
from bbs.convergence.plan import Plan, Snapshot, in_pieces, mass_loss
from bbs.convergence.reading import Reading, read
from bbs.convergence.task_convergence import TaskConvergence
from bbs.pace import Pace
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.service.clock import Clock
from diego_py.service.run import OwnedTasks

ROUND_BUDGET_MS = 10_000.0
JITTER = 0.2
PAUSE_MIN_S = 0.05
AFTER_S = 0.01
"""A round that comes because something falls due comes so much later, so that it is due."""
PRUNE_INTERVAL_S = 3_600.0
COUNT_PAUSE = 20.0
"""Whether every LRP has all its rows takes a look at every row. The pause after it is so many times as long."""
COUNT_INTERVAL_MAX_S = 30.0


@define
class Convergence:
    """Every BBS runs it; only the leader does anything but refresh what it knows of the cells.

    A round comes when the interval is over, or earlier: when something falls due or a presence ends.
    """

    store: Store
    pool: CellPool
    leadership: Leadership
    repairs: Repairs
    task_convergence: TaskConvergence
    tasks: OwnedTasks
    clock: Clock
    log: structlog.stdlib.BoundLogger
    interval_s: float
    pace: Pace
    jitter: Callable[[], float]
    _wake_in_s: float = field(default=float("inf"), init=False)
    _valve: str = field(default="", init=False)
    _mass_lost_s: float = field(default=float("-inf"), init=False)
    """When more than half of the cells were last seen missing at once."""
    _told: tuple[int, Decisions] | None = field(default=None, init=False)
    _pruned_s: float = field(default=float("-inf"), init=False)
    _count_at_s: float = field(default=float("-inf"), init=False)
    """When rows are counted again."""

    async def round(self) -> None:
        """Pause, then one round. Repairs of earlier rounds that are under way hinder no others."""
        await self.clock.sleep(min(self.interval_s * (1 + JITTER * self.jitter()), max(PAUSE_MIN_S, self._wake_in_s)))
        self._wake_in_s = float("inf")
        call = Call.begin(self.clock, ROUND_BUDGET_MS)
        epoch = await self.leadership.held(call)
        if epoch is None:
            await self.pool.refresh(call)
            return
        reading = await self._read(call)
        await self.pool.learn(call, reading.marks)
        self.task_convergence.round(reading.tasks, epoch)
        snapshot = evolve(reading.snapshot, placing=self.pool.cells.placing())
        if mass_loss(snapshot.known_cells, snapshot.live_cells, snapshot.late_cells, recently=False):
            self._mass_lost_s = self.clock.monotonic()
        planned = await self._planned(snapshot)
        if planned.wake_at is not None:
            self._wake_in_s = (planned.wake_at - snapshot.now).total_seconds() + AFTER_S
        self._tell_valve(planned.valve)
        await self._prune(call)
        if not planned.empty:
            self.tasks.begin(self.repairs.apply(planned, epoch), "convergence")
        await self._tell(call, epoch, decisions_of(planned, self.task_convergence.planned))

    async def _read(self, call: Call) -> Reading:
        """All that is not as desired; rows that are missing altogether only if it is time to count them again."""
        began_s = self.clock.monotonic()
        counted = began_s >= self._count_at_s
        may_lose_cells, mass_lost = self._may_lose_cells(), self._mass_lost()

        async def work(tx: Transaction) -> Reading:
            return await read(tx, counted=counted, may_lose_cells=may_lose_cells, mass_lost=mass_lost)

        reading = await self.store.snapshot(call, "read_what_deviates", work)
        if counted:
            took_s = self.clock.monotonic() - began_s
            self._count_at_s = began_s + min(COUNT_INTERVAL_MAX_S, took_s * COUNT_PAUSE)
        return reading

    async def _planned(self, snapshot: Snapshot) -> Plan:
        """The plan, made in pieces between which others get their turn."""
        planning = in_pieces(snapshot)
        while True:
            try:
                next(planning)
            except StopIteration as planned:
                plan: Plan = planned.value
                return plan
            await self.clock.sleep(0)

    async def _tell(self, call: Call, epoch: int, decided: Decisions) -> None:
        """Let every BBS know what was decided. Most rounds decide what the one before did: then only that they came."""
        told = epoch, decided
        document = None if told == self._told else msgspec.json.encode(decided)
        await self.store.run(
            call, "tell_decisions", lambda tx: tx.decisions.tell(epoch, self.leadership.owner, document)
        )
        self._told = told

    def _may_lose_cells(self) -> bool:
        """Whether we have led for so long that a cell that is there must have reported."""
        return self.leadership.led_for_s() >= self.pace.term().ttl_s

    def _mass_lost(self) -> bool:
        """Whether most cells were missing at once so lately that one that is there need not have reported yet."""
        return self.clock.monotonic() - self._mass_lost_s < self.pace.term().ttl_s

    def _tell_valve(self, valve: str) -> None:
        """Say it when cells are gone and nothing is replaced, and when that is over."""
        if valve != self._valve:
            self.log.warning("replacements_held", reason=valve) if valve else self.log.info("replacements_released")
            self._valve = valve

    async def _prune(self, call: Call) -> None:
        """Forget what is past its keeping, once an hour."""
        if self.clock.monotonic() - self._pruned_s < PRUNE_INTERVAL_S:
            return
        self._pruned_s = self.clock.monotonic()
        await self.store.run(call, "prune_failures", lambda tx: tx.failures.prune())
        await self.store.run(call, "prune_keys", lambda tx: tx.idempotency.prune())
        await self.store.run(call, "prune_domains", lambda tx: tx.domains.prune())
        await self.store.run(call, "prune_abandoned", lambda tx: tx.abandoned.prune())
