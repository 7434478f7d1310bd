"""Whatever is done to tasks in whatever order, Postgres and the store in memory give the same answers and rows."""

import asyncio
from typing import Any, ClassVar

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bbs.store import task_reconcile
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.idempotency import IdempotencyKey
from bbs.store.tasks import Filter
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_status import TaskStatus
from diego_py.errors import DiegoError
from diego_py.models.identifiers import CellId
from diego_py.models.task import Task, TaskState
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import guids, report
from tests.contract.store.tampering import PostgresTampering
from tests.contract.store.test_same_answers import TIMEOUT_S, comparable
from tests.contract.store.test_tasks import CELLS, MOVES, Scene, end, failed, reported, request
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore

TABLES = ("tasks", "cells", "failures", "idempotency_keys")
GUIDS = st.sampled_from(["job", "other"])
ROW = st.integers(0, 5)
CLAIMS = st.sampled_from(["c", "d"])
OVER = (TaskState.COMPLETED, TaskState.RESOLVING)


class TwoStores(RuleBasedStateMachine):
    """Each rule is carried out on both, on a row as it is or as it once was there."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        clock = SystemClock()
        self.database = Database(self.dsn, clock, DatabaseSettings(connections_max=1))
        memory = MemoryStore(MemoryDatabase(clock), clock)
        self.scenes = tuple(Scene(TaskLifecycle(store, clock, guids()), store) for store in (self.database, memory))
        self.seen: list[tuple[Task, Task]] = []
        self.before: dict[tuple[str, object], Task] = {}

    def teardown(self) -> None:
        self.runner.run(self.database.stop())
        self.runner.close()

    @initialize()
    def empty(self) -> None:
        self.runner.run(PostgresTampering(self.database).sql(f"TRUNCATE {', '.join(TABLES)}"))
        self.both(lambda s: s.cells())

    @rule(guid=GUIDS, key=st.none() | st.just("key"))
    def create(self, guid: str, key: str | None) -> None:
        kept = None if key is None else IdempotencyKey(key, "tasks", b"hash", "owner")
        self.both(lambda s: s.lifecycle.create(s.call, request(guid), kept))

    @rule(row=ROW, cell=st.sampled_from(CELLS), claim_id=CLAIMS)
    def claim(self, row: int, cell: str, claim_id: str) -> None:
        self.on_row(row, lambda s, task: s.claim(task, cell, claim_id))

    @rule(row=ROW)
    def offer(self, row: int) -> None:
        self.on_row(row, lambda s, task: s.lifecycle.offer(s.call, TaskStatus.of(task)))

    @rule(row=ROW, never_began=st.booleans(), claim_id=st.none() | CLAIMS)
    def try_next(self, row: int, never_began: bool, claim_id: str | None) -> None:
        verdict = failed(never_began=never_began, claim_id=claim_id)
        self.on_row(row, lambda s, task: s.lifecycle.try_next(s.call, task, verdict))

    @rule(row=ROW, never_began=st.booleans(), ended=st.booleans(), hopeless=st.booleans(), claim_id=st.none() | CLAIMS)
    def settle(self, row: int, never_began: bool, ended: bool, hopeless: bool, claim_id: str | None) -> None:
        verdict = failed(never_began=never_began, ended=ended, hopeless=hopeless, claim_id=claim_id)
        self.on_row(row, lambda s, task: s.lifecycle.settle(s.call, task, verdict, s.problem(), None))

    @rule(row=ROW, claim_id=CLAIMS, cell=st.sampled_from(CELLS), started=st.booleans())
    def end(self, row: int, claim_id: str, cell: str, started: bool) -> None:
        def told(s: Scene, task: Task) -> Any:
            story = evolve(end(task, claim_id, started=started, failed=not started), cell_id=CellId(cell))
            return s.lifecycle.end(s.call, story)

        self.on_row(row, told)

    @rule(guid=GUIDS)
    def cancel(self, guid: str) -> None:
        self.both(lambda s: s.lifecycle.cancel(s.call, guid, s.problem()))

    @rule(guid=GUIDS)
    def resolve(self, guid: str) -> None:
        self.both(lambda s: s.lifecycle.resolve(s.call, guid))

    @rule(row=ROW)
    def recall(self, row: int) -> None:
        self.on_row(row, lambda s, task: s.lifecycle.recall(s.call, TaskStatus.of(task)))

    @rule(guid=GUIDS)
    def delete(self, guid: str) -> None:
        self.both(lambda s: s.lifecycle.delete(s.call, guid))

    @rule(row=ROW)
    def forget(self, row: int) -> None:
        self.on_row(row, lambda s, task: s.lifecycle.forget(s.call, TaskStatus.of(task)))

    @rule(cell=st.sampled_from(CELLS), rows=st.lists(ROW, max_size=3), sequence=st.integers(0, 2))
    def cell_report(self, cell: str, rows: list[int], sequence: int) -> None:
        named = [self.seen[-1 - row % len(self.seen)][0] for row in rows] if self.seen else []
        tasks = {task.instance_guid: reported(task) for task in named if task.instance_guid is not None}
        told = evolve(report(cell, sequence=sequence), tasks=tuple(tasks.values()))

        async def work(s: Scene) -> object:
            return await s.store.run(
                s.call, "report", lambda tx: task_reconcile.apply(tx, told, lambda task, error: s.problem())
            )

        self.both(work)

    @invariant()
    def both_have_the_same_rows(self) -> None:
        async def everything(s: Scene) -> object:
            async def read(tx: Any) -> object:
                tasks = await tx.tasks.list_page(Filter())
                whole = [await tx.tasks.get(task.task_guid) for task in tasks]
                return whole, await tx.tasks.list_statuses(), await tx.tasks.list_concerning("cell-1", [])

            return await s.store.snapshot(s.call, "read", read)

        (in_postgres, *_), (in_memory, *_) = self.each(everything)
        self.seen = [*self.seen[-4:], *zip(in_postgres, in_memory, strict=True)]
        after = {(task.task_guid, task.created_at): task for task in in_postgres}
        for key in self.before.keys() & after.keys():
            self.moves_by_the_table(self.before[key], after[key])
        self.before = after

    def moves_by_the_table(self, was: Task, now: Task) -> None:
        assert (was == now) if was.updated_at == now.updated_at else (was.updated_at < now.updated_at)
        assert was.state is now.state or (was.state, now.state) in MOVES
        assert now.state in OVER or was.state not in OVER, "what is over stays over"

    def on_row(self, number: int, work: Any) -> None:
        if self.seen:
            pair = self.seen[-1 - number % len(self.seen)]
            if all(task.instance_guid is not None for task in pair):
                self.both(lambda s: work(s, pair[self.scenes.index(s)]))

    def both(self, work: Any) -> None:
        self.each(work)

    def each(self, work: Any) -> Any:
        """Carry it out on both stores and compare what came of it."""

        async def outcome(scene: Scene) -> object:
            try:
                return await work(scene)
            except DiegoError as error:
                return error

        told = [self.runner.run(outcome(scene)) for scene in self.scenes]
        assert comparable(told[0]) == comparable(told[1])
        return told


@pytest.mark.store
@pytest.mark.timeout(TIMEOUT_S)
def test_both_stores_treat_tasks_alike(database_dsn: str) -> None:
    machine = type("TwoStores", (TwoStores,), {"dsn": database_dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
