"""When the leader looks again: at the interval, with jitter, and earlier when something is due or a presence ends."""

from __future__ import annotations

import asyncio
from io import StringIO

import msgspec
import pytest
from attrs import define, field

from bbs.cell_pool import CellPool
from bbs.convergence.convergence import AFTER_S, JITTER, PAUSE_MIN_S, Convergence
from bbs.convergence.decisions import Decisions
from bbs.convergence.leader import Leadership
from bbs.convergence.plan import Plan
from bbs.convergence.task_convergence import TaskConvergence
from bbs.lifecycle import Lifecycle
from bbs.pace import Pace
from bbs.store.attempts import Claim, Start
from bbs.store.decisions import LastRound
from diego_py.call import Call
from diego_py.service.log import logger
from diego_py.service.run import OwnedTasks
from tests.contract.store.conftest import NET_INFO, definition, guids, problem, report
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore
from tests.unit.diego_py.service.hand_clock import HandClock

INTERVAL_S = 1_000.0
TTL_S = 15.0


@define
class Naps(HandClock):
    """Writes down how long each pause is."""

    naps: list[float] = field(factory=list)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        await super().sleep(seconds)


@define
class Seen:
    """Carries out nothing and keeps the plans."""

    plans: list[Plan] = field(factory=list)

    async def apply(self, plan: Plan, epoch: int) -> None:
        self.plans.append(plan)


@define
class Leader:
    """The convergence of the one BBS that there is."""

    clock: Naps
    lifecycle: Lifecycle
    seen: Seen
    convergence: Convergence
    tasks: OwnedTasks

    @property
    def call(self) -> Call:
        return Call.begin(self.clock, 10_000)

    async def round(self) -> float:
        """One round; the pause before it."""
        await self.convergence.round()
        await asyncio.gather(*self.tasks._tasks)
        return self.clock.naps[-1]

    async def crashed_three_times(self) -> None:
        """An instance that is started again 30 s after its crash."""
        await self.lifecycle.report(self.call, report())
        (row,) = (await self.lifecycle.desire(self.call, definition())).actuals
        for crash in range(3):
            assert row.instance_guid is not None
            await self.lifecycle.claim(self.call, Claim("app", 0, row.instance_guid, "cell-1", "boot-1"))
            await self.lifecycle.start(self.call, Start("app", 0, row.instance_guid, "cell-1", NET_INFO))
            told = problem(self.call, f"f{crash}")
            crashed = await self.lifecycle.crash(self.call, "app", 0, row.instance_guid, "cell-1", told)
            assert crashed is not None
            if crash < 2:
                row = await self.lifecycle.offer(self.call, await self.lifecycle.retry(self.call, crashed, None))


@pytest.fixture
def leader() -> Leader:
    clock, log, seen = Naps(), logger("bbs", "bbs-1", StringIO()), Seen()
    store = MemoryStore(MemoryDatabase(clock), clock)
    tasks = OwnedTasks(log)
    convergence = Convergence(
        store=store,
        pool=CellPool(store, None),  # type: ignore[arg-type]
        leadership=Leadership(store, clock, "bbs-1", 1e6),
        repairs=seen,  # type: ignore[arg-type]
        task_convergence=TaskConvergence(None, tasks),  # type: ignore[arg-type]
        tasks=tasks,
        clock=clock,
        log=log,
        interval_s=INTERVAL_S,
        pace=Pace(TTL_S),
        jitter=lambda: 0.5,
    )
    return Leader(clock, Lifecycle(store, clock, guids(), Pace(TTL_S)), seen, convergence, tasks)


async def test_the_interval_is_jittered(leader: Leader) -> None:
    assert await leader.round() == INTERVAL_S * (1 + JITTER * 0.5)
    leader.convergence.jitter = lambda: -1.0
    assert await leader.round() == pytest.approx(INTERVAL_S * (1 - JITTER))


async def test_it_wakes_when_a_presence_runs_out(leader: Leader) -> None:
    await leader.round()
    await leader.crashed_three_times()
    await leader.lifecycle.report(leader.call, report(sequence=5))
    leader.convergence.interval_s = 1.0
    await leader.round()
    leader.convergence.interval_s = INTERVAL_S
    assert leader.seen.plans == []
    assert await leader.round() == pytest.approx(TTL_S - 1.1 + AFTER_S), "the presence runs out first"
    assert await leader.round() == pytest.approx(30 - TTL_S, abs=0.1), "then the crash is due"
    assert len(leader.seen.plans) == 1


async def test_it_is_due_at_the_moment_that_was_told(leader: Leader) -> None:
    """The crash waits 30 s: the round comes then, and plans the start."""
    await leader.round()
    await leader.crashed_three_times()
    leader.clock.pass_ms(20_000)
    leader.convergence.interval_s = 1.0
    await leader.round()
    leader.convergence.interval_s = INTERVAL_S
    assert leader.seen.plans == []
    assert await leader.round() == pytest.approx(30 - 20 - 1.1 + AFTER_S)
    (plan,) = leader.seen.plans
    assert [step.reason for step in plan.retry] == ["crashed 3 time(s)"]


async def test_what_was_decided_can_be_read_and_is_written_when_it_changes(leader: Leader) -> None:
    async def last() -> LastRound:
        told = await leader.convergence.store.read(leader.call, "last", lambda tx: tx.decisions.last())
        assert told is not None
        return told

    await leader.round()
    assert (await last()).document == msgspec.json.encode(Decisions())
    await leader.crashed_three_times()
    await leader.round()
    before = await last()
    decided = msgspec.json.decode(before.document, type=Decisions)
    assert [(item.decision, item.process_guid) for item in decided.items] == [("retry", "app")]
    await leader.round()
    after = await last()
    assert after.decided_at > before.decided_at


async def test_what_is_due_already_does_not_make_it_spin(leader: Leader) -> None:
    leader.convergence._wake_in_s = -5.0
    assert await leader.round() == PAUSE_MIN_S
