"""Whatever is called in whatever order, Postgres and the store in memory give the same answers and end up the same."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bbs.convergence.reading import read
from bbs.lifecycle import Lifecycle
from bbs.store.attempts import Claim, Start
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.failures import Filter as FailureFilter
from bbs.store.idempotency import IdempotencyKey, StoredAnswer
from bbs.store.transaction import Store, Transaction
from bbs.succession import Succession
from diego_py.errors import DiegoError
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.identifiers import CellId
from diego_py.models.work import Heartbeat, InstanceState
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import NET_INFO, Scene, all_desired, definition, guids, problem, report, reported
from tests.contract.store.tampering import MemoryTampering, PostgresTampering
from tests.contract.store.test_report import ended
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore
from tests.slowness import patient
from tests.unit.bbs.convergence.snapshots import plan

T = TypeVar("T")

GUIDS = st.sampled_from(["app", "web"])
CELLS = st.sampled_from(["cell-1", "cell-2"])
KEYS = st.sampled_from(["key-1", "key-2"])
ROW = st.integers(0, 5)
TIMEOUT_S = patient(600.0)
"""It is bounded by its work, some seconds on a quiet machine; one that fails is made small before it is told."""
TABLES = ("abandoned_attempts", "actual_lrps", "desired_lrps", "cells", "failures", "idempotency_keys", "domains")


def succession(scene: Scene) -> Succession:
    return Succession(scene.store, scene.lifecycle)


async def with_failures(tx: Any) -> list[ActualLRP]:
    """Every row, with its document."""
    found = await tx.actual_lrps.list_all()
    return [await tx.actual_lrps.get(row.process_guid, row.index, row.presence) for row in found]


class TwoStores(RuleBasedStateMachine):
    """Each rule is carried out on both."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        clock = SystemClock()
        memory = MemoryDatabase(clock)
        self.database = Database(self.dsn, clock, DatabaseSettings(connections_max=1))
        self.scenes = (
            scene_of(self.database, PostgresTampering(self.database)),
            scene_of(MemoryStore(memory, clock), MemoryTampering(memory)),
        )
        self.sequence = 0
        self.seen: list[ActualLRP] = []

    def teardown(self) -> None:
        self.runner.run(self.database.stop())
        self.runner.close()

    @initialize()
    def empty(self) -> None:
        async def clean() -> None:
            tampering = PostgresTampering(self.database)
            await tampering.sql(f"TRUNCATE {', '.join(TABLES)}")
            await tampering.sql("UPDATE decisions SET epoch = 0, owner = '', decided_at = NULL, document = '\\x7b7d'")
            await tampering.sql("UPDATE leader SET epoch = 0, owner = '', expires_at = '-infinity'")

        self.runner.run(clean())

    @rule(guid=GUIDS, instances=st.integers(0, 3), key=st.none() | KEYS)
    def desire(self, guid: str, instances: int, key: str | None) -> None:
        self.both(lambda s: s.lifecycle.desire(s.call, definition(guid, instances), self.key(key, "desire")))

    @rule(guid=GUIDS, instances=st.integers(0, 3), key=st.none() | KEYS)
    def update(self, guid: str, instances: int, key: str | None) -> None:
        change = DesiredLRPUpdate(instances=instances)
        self.both(lambda s: s.lifecycle.update(s.call, guid, change, None, self.key(key, "update")))

    @rule(guid=GUIDS)
    def undesire(self, guid: str) -> None:
        self.both(lambda s: s.lifecycle.undesire(s.call, guid))

    @rule(guid=GUIDS)
    def add_missing(self, guid: str) -> None:
        self.both(lambda s: s.lifecycle.add_missing(s.call, guid, None))

    @rule(key=KEYS)
    def replay(self, key: str) -> None:
        self.both(lambda s: s.lifecycle.replay(s.call, self.key(key, "desire")))  # type: ignore[arg-type]

    @rule(key=KEYS)
    def answered(self, key: str) -> None:
        answer = StoredAnswer(201, {}, b"{}")
        self.both(lambda s: s.lifecycle.answered(s.call, self.key(key, "desire"), answer))  # type: ignore[arg-type]

    @rule(seconds=st.sampled_from([-30.0, -25 * 3600.0]))
    def time_passes_for_keys(self, seconds: float) -> None:
        self.both(lambda s: s.tampering.shift("idempotency_keys", "expires_at", seconds))

    @rule(row=ROW, gone=st.booleans())
    def offer(self, row: int, gone: bool) -> None:
        self.on_row(row, lambda s, lrp: s.lifecycle.offer(s.call, lrp, gone=gone))

    @rule(row=ROW)
    def abandon(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: s.lifecycle.abandon(s.call, lrp))

    @rule(cell=st.none() | CELLS)
    def time_passes_for_cells(self, cell: str | None) -> None:
        self.both(lambda s: s.tampering.shift("cells", "expires_at", -20, cell))

    @rule(days=st.integers(0, 2))
    def time_passes_for_the_abandoned(self, days: int) -> None:
        self.both(lambda s: s.tampering.shift("abandoned_attempts", "since", -days * 86_400 - 6))
        self.both(lambda s: s.store.run(s.call, "prune", lambda tx: tx.abandoned.prune()))

    @rule(row=ROW, cell=CELLS)
    def claim(self, row: int, cell: str) -> None:
        def work(s: Scene, lrp: ActualLRP) -> Coroutine[Any, Any, Any]:
            guid = lrp.instance_guid or "none"
            return s.lifecycle.claim(s.call, Claim(lrp.process_guid, lrp.index, guid, cell, "boot-1"))

        self.on_row(row, work)

    @rule(row=ROW, cell=CELLS)
    def start(self, row: int, cell: str) -> None:
        def work(s: Scene, lrp: ActualLRP) -> Coroutine[Any, Any, Any]:
            key = (lrp.process_guid, lrp.index, lrp.instance_guid or "none")
            return s.lifecycle.start(s.call, Start(*key, lrp.cell_id or cell, NET_INFO, "z1"))

        self.on_row(row, work)

    @rule(row=ROW)
    def fail(self, row: int) -> None:
        id = self.number()
        self.on_row(row, lambda s, lrp: s.lifecycle.fail(s.call, lrp, problem(s.call, f"f{id}")))

    @rule(row=ROW)
    def crash(self, row: int) -> None:
        id = self.number()

        def work(s: Scene, lrp: ActualLRP) -> Coroutine[Any, Any, Any]:
            key = (lrp.process_guid, lrp.index, lrp.instance_guid or "none", lrp.cell_id or "none")
            return s.lifecycle.crash(s.call, *key, problem(s.call, f"f{id}"))

        self.on_row(row, work)

    @rule(row=ROW)
    def lose(self, row: int) -> None:
        id = self.number()
        self.on_row(row, lambda s, lrp: s.lifecycle.lose(s.call, lrp, None, problem(s.call, f"f{id}")))

    @rule(row=ROW)
    def retry(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: s.lifecycle.retry(s.call, lrp, None))

    @rule(row=ROW)
    def restart(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: s.lifecycle.restart(s.call, lrp.process_guid, lrp.index))

    @rule(guid=GUIDS, instances=st.integers(0, 3), memory_mb=st.sampled_from([0, 64]))
    def replace(self, guid: str, instances: int, memory_mb: int) -> None:
        self.both(lambda s: succession(s).replace(s.call, definition(guid, instances, memory_mb=memory_mb)))

    @rule(row=ROW, revision=st.integers(0, 2))
    def displace(self, row: int, revision: int) -> None:
        self.on_row(row, lambda s, lrp: succession(s).displace(s.call, lrp, revision))

    @rule(row=ROW)
    def suspect(self, row: int) -> None:
        id = self.number()
        self.on_row(row, lambda s, lrp: succession(s).suspect(s.call, lrp, None, problem(s.call, f"f{id}"), 1))

    @rule(row=ROW)
    def recall(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: succession(s).recall(s.call, lrp))

    @rule(row=ROW)
    def drop(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: succession(s).drop(s.call, lrp))

    @rule(row=ROW)
    def remove(self, row: int) -> None:
        self.on_row(row, lambda s, lrp: s.lifecycle.remove(s.call, lrp.process_guid, lrp.index, lrp.instance_guid))

    @rule(cell=CELLS)
    def expire(self, cell: str) -> None:
        self.both(lambda s: s.store.run(s.call, "expire", lambda tx: tx.cells.expire(cell)))

    @rule(cell=CELLS)
    def forget(self, cell: str) -> None:
        self.both(lambda s: s.store.run(s.call, "forget", lambda tx: tx.cells.delete(cell)))

    @rule(cell=CELLS)
    def heartbeat(self, cell: CellId) -> None:
        beat = Heartbeat(boot_id="boot-1", sequence=self.number(), digest="as-told")
        self.both(lambda s: s.store.run(s.call, "beat", lambda tx: tx.cells.renew([(cell, beat)], 15.0)))

    @rule(cell=CELLS, draining=st.booleans())
    def says_all(self, cell: CellId, draining: bool) -> None:
        """A report of exactly what the rows say of the cell."""
        number = self.number()

        async def work(s: Scene) -> object:
            rows = await s.store.read(s.call, "list", lambda tx: tx.actual_lrps.list_of_cell(cell))
            told = report(cell, sequence=number, instances=[reported(row, routable=row.routable) for row in rows])
            presence = attrs.evolve(told.presence, draining=draining)
            return await s.lifecycle.report(s.call, attrs.evolve(told, presence=presence, digest="as-told"))

        self.both(work)

    @rule(cell=CELLS, running=st.lists(ROW, max_size=3), over=st.lists(ROW, max_size=2), settled=st.booleans())
    def cell_report(self, cell: str, running: list[int], over: list[int], settled: bool) -> None:
        number = self.number()
        rows = {row.instance_guid: row for row in self.rows(running) if row.instance_guid}
        gone = {
            row.instance_guid: row for row in self.rows(over) if row.instance_guid and row.instance_guid not in rows
        }

        async def work(s: Scene) -> object:
            if settled:
                await s.age(10, "app")
            told = report(
                cell,
                sequence=number,
                instances=[reported(row, InstanceState.RUNNING) for row in rows.values()],
                ended=[ended(s, row) for row in gone.values()],
            )
            return await s.lifecycle.report(s.call, told)

        self.both(work)

    @rule(owner=st.sampled_from(["a", "b"]), ttl_s=st.sampled_from([0.0, 60.0]))
    def lead(self, owner: str, ttl_s: float) -> None:
        self.both(lambda s: s.store.run(s.call, "lead", lambda tx: tx.leader.acquire_or_renew(owner, ttl_s)))

    @rule()
    def what_deviates(self) -> None:
        async def deviations(s: Scene) -> object:
            async def read(tx: Any) -> object:
                marks = [mark._replace(late=False) for mark in await tx.cells.list_marks()]
                now = await tx.now()
                all_young, all_stale = now - timedelta(days=1), now + timedelta(days=1)
                keys = [await tx.deviations.keys([], stale) for stale in (all_young, all_stale)]
                offered = [await tx.deviations.offered_since(stale) is not None for stale in (all_young, all_stale)]
                return marks, sorted(await tx.deviations.uneven()), keys, offered

            await s.store.snapshot(s.call, "plan", nothing_is_overlooked)
            return await s.store.snapshot(s.call, "read", read)

        self.both(deviations)

    @invariant()
    def both_have_the_same_rows(self) -> None:
        async def everything(s: Scene) -> object:
            async def read(tx: Any) -> object:
                return (
                    await all_desired(tx),
                    await tx.desired_lrps.list_scheduling_infos(["app", "web"]),
                    await with_failures(tx),
                    await tx.cells.list_all(),
                    [await tx.abandoned.list_of(guid) for guid in ("app", "web")],
                    await tx.failures.list_page(FailureFilter()),
                )

            return await s.store.snapshot(s.call, "read", read)

        _, _, rows, *_ = self.both(everything)
        self.seen = [*self.seen[-4:], *rows]

    def number(self) -> int:
        self.sequence += 1
        return self.sequence

    def key(self, key: str | None, route: str) -> IdempotencyKey | None:
        return None if key is None else IdempotencyKey(key, route, b"hash", f"owner-{self.number() // 2}")

    def rows(self, numbers: list[int]) -> list[ActualLRP]:
        """Rows as they are, or as they once were."""
        return [self.seen[-1 - number % len(self.seen)] for number in numbers] if self.seen else []

    def on_row(self, number: int, work: Any) -> None:
        if self.seen:
            (lrp,) = self.rows([number])
            self.both(lambda s: work(s, lrp))

    def both(self, work: Any) -> Any:
        """Carry it out on both stores and compare what came of it."""

        async def outcome(scene: Scene) -> object:
            try:
                return await work(scene)
            except DiegoError as error:
                return error

        in_postgres, in_memory = (self.runner.run(outcome(scene)) for scene in self.scenes)
        assert comparable(in_postgres) == comparable(in_memory)
        return in_postgres


def scene_of(store: Store, tampering: Any) -> Scene:
    return Scene(Lifecycle(store, SystemClock(), guids()), store, tampering)


async def nothing_is_overlooked(tx: Transaction) -> None:
    """What convergence plans from what it reads is what it would plan from everything."""
    reading = await read(tx, counted=True, may_lose_cells=True, mass_lost=False)
    desired = {lrp.process_guid: lrp for lrp in await tx.desired_lrps.list_scheduling_infos(["app", "web"])}
    rows = tuple(await tx.actual_lrps.list_all())
    everything = attrs.evolve(reading.snapshot, actuals=rows, desired=desired, whole=None)
    assert plan(reading.snapshot) == plan(everything)


def comparable(value: Any) -> Any:
    """Without times and request ids, which differ, and with the code alone of documents, which hold times."""
    if isinstance(value, datetime):
        return "a time"
    if isinstance(value, DiegoError):
        return type(value), value.message
    if attrs.has(type(value)):
        members = {
            field.name: getattr(value, field.name) for field in attrs.fields(type(value)) if field.name != "request_id"
        }
        return type(value), {name: comparable(member) for name, member in members.items()}
    if isinstance(value, dict) and "code" in value:
        return value["code"], value.get("detail")
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return value


@pytest.mark.store
@pytest.mark.timeout(TIMEOUT_S)
def test_both_stores_give_the_same_answers(database_dsn: str) -> None:
    machine = type("TwoStores", (TwoStores,), {"dsn": database_dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
