"""The store in memory as one BBS sees it: transactions on a database that several share, and faults on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum, auto
from typing import TypeVar

from attrs import define, field

from bbs.store.database import PAUSE_MAX_S, TRIES_MAX
from bbs.store.postgres_errors import RETRY_AFTER_S, Collision
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DatabaseConflict, DatabaseUnavailable, DiegoError, InternalError, Outcome
from diego_py.service.clock import Clock
from tests.simulation.memory_store.abandoned import MemoryAbandoned
from tests.simulation.memory_store.actual_lrps import MemoryActualLRPs
from tests.simulation.memory_store.cells import MemoryCells
from tests.simulation.memory_store.desired_lrps import MemoryDesiredLRPs
from tests.simulation.memory_store.deviations import MemoryDeviations
from tests.simulation.memory_store.engine import MemoryDatabase, MemoryTransactionCore
from tests.simulation.memory_store.lrps import MemoryLRPs
from tests.simulation.memory_store.small_tables import (
    LEADER,
    NOBODY,
    UNDECIDED,
    MemoryDecisions,
    MemoryDomains,
    MemoryFailures,
    MemoryIdempotency,
    MemoryLabels,
    MemoryLeader,
)
from tests.simulation.memory_store.tasks import MemoryTasks
from tests.simulation.memory_store.told_instances import MemoryToldInstances
from tests.simulation.memory_store.unchanged import MemoryUnchanged

T = TypeVar("T")

TRANSACTION_TIMEOUT_S = 6.0


class Fault(Enum):
    """What may go wrong between a BBS and its database."""

    LOST_BEFORE = auto()
    """The connection is lost before COMMIT was sent: undone."""
    COMMIT_LOST = auto()
    """COMMIT never arrived: undone, and the caller cannot know."""
    ANSWER_LOST = auto()
    """COMMIT arrived: done, and the caller cannot know."""


class Moment(Enum):
    """When a fault may happen."""

    STATEMENT = auto()
    COMMIT = auto()


@define
class MemoryTransaction:
    """What `transaction.Transaction` promises."""

    core: MemoryTransactionCore
    abandoned: MemoryAbandoned = field(init=False)
    actual_lrps: MemoryActualLRPs = field(init=False)
    cells: MemoryCells = field(init=False)
    decisions: MemoryDecisions = field(init=False)
    desired_lrps: MemoryDesiredLRPs = field(init=False)
    deviations: MemoryDeviations = field(init=False)
    domains: MemoryDomains = field(init=False)
    failures: MemoryFailures = field(init=False)
    idempotency: MemoryIdempotency = field(init=False)
    labels: MemoryLabels = field(init=False)
    leader: MemoryLeader = field(init=False)
    lrps: MemoryLRPs = field(init=False)
    tasks: MemoryTasks = field(init=False)
    told_instances: MemoryToldInstances = field(init=False)
    unchanged: MemoryUnchanged = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.abandoned = MemoryAbandoned(self.core)
        self.actual_lrps = MemoryActualLRPs(self.core)
        self.cells = MemoryCells(self.core)
        self.decisions = MemoryDecisions(self.core)
        self.desired_lrps = MemoryDesiredLRPs(self.core)
        self.deviations = MemoryDeviations(self.core)
        self.domains = MemoryDomains(self.core)
        self.failures = MemoryFailures(self.core)
        self.idempotency = MemoryIdempotency(self.core)
        self.labels = MemoryLabels(self.core)
        self.leader = MemoryLeader(self.core)
        self.lrps = MemoryLRPs(self.core, self.actual_lrps)
        self.tasks = MemoryTasks(self.core)
        self.told_instances = MemoryToldInstances(self.core)
        self.unchanged = MemoryUnchanged(self.core, self.actual_lrps)

    async def now(self) -> datetime:
        await self.core.statement()
        return self.core.began_at


async def _next_turn() -> None:
    await asyncio.sleep(0)


def _no_fault(op: str, moment: Moment) -> Fault | None:
    return None


@define
class MemoryStore:
    """What `transaction.Store` promises, for one process."""

    database: MemoryDatabase
    clock: Clock
    travel: Callable[[], Awaitable[None]] = _next_turn
    """The way to the database and back, at each statement and at the commit."""
    fault: Callable[[str, Moment], Fault | None] = _no_fault
    random: Callable[[], float] = lambda: 0.5
    _open: dict[MemoryTransactionCore, None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.database.tables["leader"].setdefault(LEADER, NOBODY)
        self.database.tables["decisions"].setdefault(LEADER, UNDECIDED)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def run(
        self,
        call: Call,
        op: str,
        work: Callable[[MemoryTransaction], Awaitable[T]],
        *,
        reserved: bool = False,
        single: bool = False,
    ) -> T:
        for number in range(1, TRIES_MAX):
            try:
                async with self.transaction(call, op, single=single) as tx:
                    return await work(tx)
            except Collision:
                await self.clock.sleep(self.random() * PAUSE_MAX_S * number)
        async with self.transaction(call, op, single=single) as tx:
            return await work(tx)

    async def read(
        self, call: Call, op: str, work: Callable[[MemoryTransaction], Awaitable[T]], *, reserved: bool = False
    ) -> T:
        core = MemoryTransactionCore(self.database, op, self._pause(op), holds_locks=False)
        async with self._transaction(call, core) as tx:
            return await work(tx)

    async def snapshot(self, call: Call, op: str, work: Callable[[MemoryTransaction], Awaitable[T]]) -> T:
        frozen = {name: dict(rows) for name, rows in self.database.tables.items()}
        core = MemoryTransactionCore(self.database, op, self._pause(op), frozen)
        async with self._transaction(call, core) as tx:
            return await work(tx)

    @asynccontextmanager
    async def transaction(
        self, call: Call, op: str = "transaction", *, single: bool = False
    ) -> AsyncIterator[MemoryTransaction]:
        """One transaction, committed when the block ends and undone when it raises. `run` also tries again."""
        core = MemoryTransactionCore(self.database, op, self._pause(op), statements_max=1 if single else None)
        async with self._transaction(call, core) as tx:
            yield tx

    def crash(self) -> None:
        """The process is gone: the database undoes what it had begun."""
        for core in list(self._open):
            core.roll_back()
        self._open.clear()

    @asynccontextmanager
    async def _transaction(self, call: Call, core: MemoryTransactionCore) -> AsyncIterator[MemoryTransaction]:
        refusal: DiegoError | None = None
        sent = False
        self._open[core] = None
        core.trace_id = call.trace_id
        try:
            with call.hop("postgres", "postgres", core.op, DatabaseUnavailable):
                try:
                    async with call.within_budget(core.op), asyncio.timeout(TRANSACTION_TIMEOUT_S):
                        try:
                            yield MemoryTransaction(core)
                        except DiegoError as error:
                            if isinstance(error, DatabaseUnavailable | DatabaseConflict) and error.frame is None:
                                raise
                            refusal = error
                        if refusal is None and core.holds_locks:
                            if core.failed:
                                raise InternalError(f"{core.op}: an error was swallowed inside the transaction")
                            await self.travel()
                            sent = True
                            self._commit(core)
                            await self.travel()
                except BudgetSpent as spent:
                    spent.outcome = Outcome.UNKNOWN if sent else None
                    raise
                except TimeoutError as late:
                    told = f"{core.op}: Postgres did not answer in time"
                    lost = DatabaseUnavailable(told, retry_after_s=RETRY_AFTER_S)
                    lost.outcome = Outcome.UNKNOWN if sent else None
                    raise lost from late
        finally:
            core.roll_back()
            self._open.pop(core, None)
        if refusal is not None:
            raise refusal

    def _commit(self, core: MemoryTransactionCore) -> None:
        fault = self.fault(core.op, Moment.COMMIT)
        if fault is None and not core.over:
            core.commit()
            return
        if fault is Fault.ANSWER_LOST and not core.over:
            core.commit()
        lost = _lost(core.op)
        lost.outcome = None if fault is Fault.LOST_BEFORE else Outcome.UNKNOWN
        raise lost

    def _pause(self, op: str) -> Callable[[], Awaitable[None]]:
        async def pause() -> None:
            await self.travel()
            if self.fault(op, Moment.STATEMENT) is not None:
                raise _lost(op)

        return pause


def _lost(op: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"{op}: the connection to Postgres was lost", retry_after_s=RETRY_AFTER_S)
