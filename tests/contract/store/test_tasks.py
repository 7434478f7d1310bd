"""I2, I3: whatever is called, lost, repeated or late, a task's process begins once at most, and rows move by the table.

The cells here do what real ones do, and no more: a start begins only if its claim was granted and it was not given up.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from attrs import define, evolve, field

from bbs.store import task_reconcile
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.task_reconcile import TasksReconciled
from bbs.store.tasks import Filter
from bbs.store.transaction import Store
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_outcome import Verdict
from bbs.task_status import TaskStatus
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import (
    ClaimRefused,
    DiegoError,
    IllegalTransition,
    InternalError,
    ProcessExited,
    TaskExists,
    TaskNotCompleted,
    TaskNotFound,
)
from diego_py.models.actions import EnvironmentVariable
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, TaskGuid
from diego_py.models.task import TRANSITIONS, Task, TaskDefinition, TaskEvent, TaskRequest, TaskState
from diego_py.models.task_work import CellTaskState, TaskClaim, TaskEnd, TaskReport
from diego_py.secret import Secret
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import EXECUTABLE, guids, report
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore

STEPS = 300
STEPS_POSTGRES = 40
CELLS = ("cell-1", "cell-2")
GUIDS = ("job", "other")
MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()} | {
    # A rejection and a new offer are one transaction.
    (before, TaskState.PENDING) for (before, event), _ in TRANSITIONS.items() if event is TaskEvent.REJECT
}


def request(guid: str = "job", **fields: Any) -> TaskRequest:
    definition = TaskDefinition(rootfs="preloaded:stack", action=EXECUTABLE, **fields)
    return TaskRequest(task_guid=TaskGuid(guid), domain=Domain("tests"), definition=definition)


def failed(**facts: Any) -> Verdict:
    """A platform's failure of which nothing is known, unless told otherwise."""
    unknown = Verdict(
        never_began=False, ended=False, counted=True, hopeless=False, elsewhere=True, claim_id=None, reason="it failed"
    )
    return evolve(unknown, **facts)


@define
class Scene:
    """A lifecycle of tasks on a store."""

    lifecycle: TaskLifecycle
    store: Store
    numbers: Callable[[], int] = field(factory=lambda: count(1).__next__)

    @property
    def call(self) -> Call:
        return Call.begin(SystemClock(), 10_000)

    def problem(self) -> Problem:
        document = chain.problem(ProcessExited("exited with status 1"), self.call, {"kind": "task"})
        return evolve(document, instance=f"/v1/failures/f{self.numbers()}")

    async def cells(self) -> None:
        for cell in CELLS:
            told = report(cell, sequence=self.numbers())
            await self.store.run(self.call, "report", lambda tx, told=told: tx.cells.upsert([told], 60.0))

    async def claim(self, task: Task, cell: str = "cell-1", claim_id: str = "c", **other: Any) -> Task:
        assert task.instance_guid is not None
        facts: dict[str, Any] = {"instance_guid": task.instance_guid, "boot_id": "boot-1", "sequence": 1} | other
        wanted = TaskClaim(cell_id=CellId(cell), claim_id=claim_id, **facts)
        return await self.lifecycle.claim(self.call, task.task_guid, wanted)

    async def running(self, guid: str = "job") -> Task:
        await self.cells()
        return await self.claim(await self.lifecycle.create(self.call, request(guid)))

    async def row(self, guid: str = "job") -> Task:
        return await self.lifecycle.get(self.call, guid)


@pytest.fixture
async def scene(dsn: str | None) -> AsyncIterator[Scene]:
    clock = SystemClock()
    if dsn is None:
        store = MemoryStore(MemoryDatabase(clock), clock)
        yield Scene(TaskLifecycle(store, clock, guids()), store)
        return
    database = Database(dsn, clock, DatabaseSettings(connections_max=5))
    await database.start()
    yield Scene(TaskLifecycle(database, clock, guids()), database)
    await database.stop()


def end(task: Task, claim_id: str = "c", **facts: Any) -> TaskEnd:
    assert task.instance_guid is not None
    told: dict[str, Any] = {"started": True, "failed": False} | facts
    return TaskEnd(
        task_guid=task.task_guid,
        domain=task.domain,
        instance_guid=task.instance_guid,
        cell_id=CellId("cell-1"),
        claim_id=claim_id,
        **told,
    )


async def test_what_is_stored_is_what_was_asked(scene: Scene) -> None:
    variable = EnvironmentVariable(name="A", value=Secret("s3cret"))
    wanted = request(environment_variables=(variable,), completion_callback_url="http://client.test")
    task = await scene.lifecycle.create(scene.call, wanted)
    assert (task.state, task.definition, task.failed) == (TaskState.PENDING, wanted.definition, False)
    assert task.instance_guid is not None
    assert await scene.row() == task
    with pytest.raises(TaskExists):
        await scene.lifecycle.create(scene.call, wanted)
    (status,) = await scene.store.read(scene.call, "list", lambda tx: tx.tasks.list_statuses())
    assert status == TaskStatus.of(task)
    assert status.has_callback


async def test_a_result_may_hold_anything(scene: Scene) -> None:
    task = await scene.running()
    result = "a\0b\n\N{SNOWMAN}"
    await scene.lifecycle.end(scene.call, end(task, result=result))
    completed = await scene.row()
    assert (completed.state, completed.result, completed.failed) == (TaskState.COMPLETED, result, False)


async def test_a_claim_is_for_one_start(scene: Scene) -> None:
    task = await scene.running()
    again = await scene.claim(task)
    assert again == task, "the answer may have been lost"
    for other in ({"claim_id": "other"}, {"cell": "cell-2"}, {"boot_id": "boot-2"}, {"instance_guid": "other"}):
        with pytest.raises(ClaimRefused):
            await scene.claim(task, **other)  # type: ignore[arg-type]
    assert await scene.row() == task


async def test_nobody_claims_what_is_offered_under_another_name(scene: Scene) -> None:
    await scene.cells()
    task = await scene.lifecycle.create(scene.call, request())
    following = await scene.lifecycle.try_next(scene.call, task, failed())
    assert following is not None
    assert (following.state, following.rejection_count) == (TaskState.PENDING, 1)
    with pytest.raises(ClaimRefused):
        await scene.claim(task)
    assert (await scene.claim(following)).state is TaskState.RUNNING


async def test_what_may_run_is_never_offered_again(scene: Scene) -> None:
    """Also when somebody says that nothing began, of another start than the one that has the claim."""
    task = await scene.running()
    for verdict in (failed(), failed(never_began=True), failed(never_began=True, claim_id="other"), failed(ended=True)):
        assert await scene.lifecycle.try_next(scene.call, task, verdict) is None
        assert await scene.lifecycle.settle(scene.call, task, verdict, scene.problem(), None) == task
    following = await scene.lifecycle.try_next(scene.call, task, failed(never_began=True, claim_id="c"))
    assert following is not None
    assert following.state is TaskState.PENDING
    assert following.instance_guid != task.instance_guid


async def test_rejections_are_counted_and_room_is_not(scene: Scene) -> None:
    task = await scene.lifecycle.create(scene.call, request())
    for counted, expected in ((False, 0), (True, 1), (True, 2), (False, 2), (True, 3)):
        settled = await scene.lifecycle.settle(scene.call, task, failed(counted=counted), scene.problem(), None)
        assert settled is not None
        assert (settled.state, settled.rejection_count) == (TaskState.PENDING, expected)
        task = await scene.lifecycle.offer(scene.call, TaskStatus.of(settled))
    given_up = await scene.lifecycle.settle(scene.call, task, failed(), scene.problem(), None)
    assert given_up is not None
    assert (given_up.state, given_up.failed) == (TaskState.COMPLETED, True)
    assert given_up.failure is not None


async def test_an_end_is_taken_up_once(scene: Scene) -> None:
    task = await scene.running()
    assert await scene.lifecycle.end(scene.call, end(task, claim_id="other")) is None
    done = await scene.lifecycle.end(scene.call, end(task, result="first"))
    assert done is not None
    assert await scene.lifecycle.end(scene.call, end(task, result="second", failed=True)) is None
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.cancel(scene.call, "job", scene.problem())
    assert (await scene.row()).result == "first"


async def test_what_never_began_is_given_back(scene: Scene) -> None:
    task = await scene.running()
    back = await scene.lifecycle.end(scene.call, end(task, started=False, failed=True, failure_reason="restarted"))
    assert back is not None
    assert (back.state, back.cell_id, back.instance_guid) == (TaskState.PENDING, None, None)
    assert back.next_attempt_at is not None


async def test_only_what_has_completed_is_taken_or_deleted(scene: Scene) -> None:
    task = await scene.running()
    for move in (scene.lifecycle.resolve, scene.lifecycle.delete):
        with pytest.raises(TaskNotCompleted):
            await move(scene.call, "job")
        with pytest.raises(TaskNotFound):
            await move(scene.call, "nobody")
    await scene.lifecycle.end(scene.call, end(task))
    taken = await scene.lifecycle.resolve(scene.call, "job")
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.resolve(scene.call, "job")
    recalled = await scene.lifecycle.recall(scene.call, TaskStatus.of(taken))
    assert recalled.state is TaskState.COMPLETED
    with pytest.raises(IllegalTransition):
        await scene.lifecycle.forget(scene.call, TaskStatus.of(taken))
    await scene.lifecycle.delete(scene.call, "job")
    with pytest.raises(TaskNotFound):
        await scene.row()


@pytest.mark.parametrize(
    ("boot", "sequence", "named", "lost"),
    [
        ("boot-1", 6, False, True),
        ("boot-1", 5, False, False),
        ("boot-1", 6, True, False),
        ("boot-2", 0, False, True),
        ("boot-2", 0, True, False),
    ],
)
async def test_a_task_is_lost_when_its_cell_must_know_it(
    scene: Scene, boot: str, sequence: int, named: bool, lost: bool
) -> None:
    await scene.cells()
    task = await scene.lifecycle.create(scene.call, request())
    task = await scene.claim(task, sequence=5)
    told = report(boot=boot, sequence=sequence)
    if named:
        told = evolve(told, tasks=(reported(task),))

    async def work(tx: Any) -> TasksReconciled:
        return await task_reconcile.apply(tx, told, lambda task, error: scene.problem())

    done = await scene.store.run(scene.call, "report", work)
    assert done.stop == ()
    assert [task.task_guid for task in done.lost] == (["job"] if lost else [])
    assert done.agree is named
    assert (await scene.row()).failed is lost


async def test_a_cell_stops_what_is_not_its_own(scene: Scene) -> None:
    task = await scene.running()
    stale = evolve(reported(task), instance_guid=InstanceGuid("stale"))
    told = evolve(report(sequence=1), tasks=(reported(task), stale))

    async def work(tx: Any) -> TasksReconciled:
        return await task_reconcile.apply(tx, told, lambda task, error: scene.problem())

    assert (await scene.store.run(scene.call, "report", work)).stop == ("stale",)
    await scene.lifecycle.cancel(scene.call, "job", scene.problem())
    assert (await scene.store.run(scene.call, "report", work)).stop == (task.instance_guid, "stale")


def reported(task: Task) -> TaskReport:
    assert task.instance_guid is not None
    return TaskReport(
        task_guid=task.task_guid,
        domain=task.domain,
        instance_guid=task.instance_guid,
        state=CellTaskState.RUNNING,
    )


@define
class Start:
    """One delivery of work at a cell."""

    task: Task
    cell: str
    claim_id: str
    granted: bool = False
    begun: bool = False
    given_up: bool = False
    ended: bool = False


@define
class World:
    """BBSes, cells and a network that loses, repeats and delays whatever it likes."""

    scene: Scene
    random: random.Random
    offers: list[Task] = field(factory=list)
    starts: list[Start] = field(factory=list)
    began: dict[tuple[str, object], int] = field(factory=dict)

    async def step(self) -> None:
        common = [self.deliver, self.claim, self.claim, self.begin, self.finish, self.give_up, self.answer, self.tell]
        rare = [self.create, self.converge, self.lose_answer, self.end_otherwise]
        try:
            await self.random.choice([*common * 2, *rare])()
        except DiegoError as error:
            if error.find(InternalError) is not None:
                raise

    async def create(self) -> None:
        wanted = request(self.random.choice(GUIDS))
        self.offers.append(await self.scene.lifecycle.create(self.scene.call, wanted))

    async def deliver(self) -> None:
        """Any offer, new or old, at the cell that it was for; again, too."""
        if self.offers:
            task = self.random.choice(self.offers[-6:])
            cell = CELLS[int(str(task.instance_guid).rpartition('-')[2]) % 2]
            self.starts.append(Start(task, cell, f"claim-{self.scene.numbers()}"))

    async def claim(self) -> None:
        """Early, late, or again. A start that was given up may still be granted, and makes no use of it."""
        if self.starts:
            start = self.random.choice(self.starts[-8:])
            await self.scene.claim(start.task, start.cell, start.claim_id)
            start.granted = True

    async def begin(self) -> None:
        for start in self._some(lambda start: start.granted and not start.begun and not start.given_up):
            start.begun = True
            key = (start.task.task_guid, start.task.created_at)
            self.began[key] = self.began.get(key, 0) + 1

    async def give_up(self) -> None:
        for start in self._some(lambda start: not start.begun):
            start.given_up = True

    async def finish(self) -> None:
        for start in self._some(lambda start: start.begun):
            start.ended = True

    async def answer(self) -> None:
        """The BBS hears of a start that failed, and goes on as it does: to the next cell, or not."""
        for start in self._some(lambda start: start.given_up or start.ended):
            verdict = failed(never_began=start.given_up, ended=start.ended, claim_id=start.claim_id)
            await self._heard(start.task, verdict)

    async def lose_answer(self) -> None:
        """The BBS hears nothing of a start, whatever became of it."""
        for start in self._some(lambda start: True):
            await self._heard(start.task, failed())

    async def tell(self) -> None:
        """A cell tells an end, the first or the tenth time."""
        for start in self._some(lambda start: start.given_up or start.ended):
            told = end(start.task, start.claim_id, started=start.begun, failed=not start.begun)
            await self.scene.lifecycle.end(self.scene.call, evolve(told, cell_id=CellId(start.cell)))

    async def converge(self) -> None:
        """A leader offers what waits, as it was some time ago."""
        task = await self.scene.row(self.random.choice(GUIDS))
        self.offers.append(await self.scene.lifecycle.offer(self.scene.call, TaskStatus.of(task)))

    async def end_otherwise(self) -> None:
        lifecycle, call, guid = self.scene.lifecycle, self.scene.call, self.random.choice(GUIDS)
        moves: list[Callable[[], Awaitable[object]]] = [
            lambda: lifecycle.cancel(call, guid, self.scene.problem()),
            lambda: lifecycle.resolve(call, guid),
            lambda: lifecycle.delete(call, guid),
        ]
        await self.random.choice(moves)()

    async def _heard(self, task: Task, verdict: Verdict) -> None:
        lifecycle, call = self.scene.lifecycle, self.scene.call
        if self.random.random() < 0.5:
            following = await lifecycle.try_next(call, task, verdict)
            if following is not None:
                self.offers.append(following)
        else:
            await lifecycle.settle(call, task, verdict, self.scene.problem(), None)

    def _some(self, wanted: Callable[[Start], bool]) -> list[Start]:
        found = [start for start in self.starts if wanted(start)]
        return [self.random.choice(found[-6:])] if found else []


async def test_lists_have_documents_when_asked_for(scene: Scene) -> None:
    await scene.lifecycle.create(scene.call, request("fails"))
    task = await scene.lifecycle.create(scene.call, request("waits"))
    await scene.lifecycle.cancel(scene.call, "fails", scene.problem())

    async def listed(*, with_failure: bool) -> list[Task]:
        return await scene.store.read(
            scene.call, "list", lambda tx: tx.tasks.list_page(Filter(), with_failure=with_failure)
        )

    assert [each.failure for each in await listed(with_failure=False)] == [None, None]
    whole = await scene.lifecycle.get(scene.call, "fails")
    assert whole.failure is not None
    assert await listed(with_failure=True) == [whole, task]


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_a_process_begins_once_at_most(scene: Scene, seed: int) -> None:
    world = World(scene, random.Random(seed))
    await scene.cells()
    before: dict[tuple[str, object], Task] = {}
    for _ in range(STEPS_POSTGRES if isinstance(scene.store, Database) else STEPS):
        await world.step()
        rows = await scene.store.read(scene.call, "list", lambda tx: tx.tasks.list_page(Filter()))
        after = {(task.task_guid, task.created_at): task for task in rows}
        for key in before.keys() & after.keys():
            was, now = before[key], after[key]
            if was.updated_at == now.updated_at:
                assert was == now
            else:
                assert was.updated_at < now.updated_at
                assert (was.state, now.state) in MOVES
        assert all(times == 1 for times in world.began.values()), world.began
        for key, task in after.items():
            assert key not in world.began or task.state is not TaskState.PENDING, "what began is never offered again"
        before = after
