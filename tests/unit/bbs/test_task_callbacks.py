"""Completion callbacks on the store in memory: whatever clients answer, a result is handed out or stays to be taken."""

from __future__ import annotations

import asyncio
import itertools
import json
from io import StringIO
from typing import Any

import pytest
from attrs import define, field

from bbs.callback_client import Delivery
from bbs.task_callbacks import AGAIN, BUDGET_MS, CALLBACKS_MAX, JITTER, LINGER_S, PAUSE_MIN_S, TRIES_MAX, TaskCallbacks
from bbs.task_completion import Completions
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_status import TaskStatus
from diego_py.call import Call
from diego_py.errors import CallbackFailed, CallbackRefused, TaskNotFound
from diego_py.models.identifiers import CellId, Domain, TaskGuid
from diego_py.models.task import Task, TaskDefinition, TaskRequest, TaskState
from diego_py.models.task_work import TaskClaim, TaskEnd
from diego_py.service.log import logger
from diego_py.service.run import OwnedTasks
from tests.contract.store.conftest import EXECUTABLE, guids, report
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import Fault, MemoryStore, Moment
from tests.unit.diego_py.service.hand_clock import HandClock

URL = "http://client.example/done"
ANSWERS = {
    "taken": Delivery(200),
    "refused": Delivery(404),
    "broken": Delivery(500),
    "busy": Delivery(503),
    "late": Delivery(504),
    "away": Delivery(reason="cannot connect"),
    "denied": Delivery(denied=True, reason="address denied"),
}
SEQUENCES = list(itertools.product(ANSWERS, repeat=TRIES_MAX))


@define
class Client:
    """Answers in turn, and with the last one from then on."""

    answers: list[Delivery] = field(factory=lambda: [Delivery(200)])
    posts: list[tuple[str, dict[str, Any]]] = field(factory=list)
    hold: asyncio.Event | None = None
    at_once_most: int = 0
    crowded: asyncio.Event = field(factory=asyncio.Event)
    """As many as may be are asked at once."""
    _at_once: int = 0

    async def post(self, url: str, body: bytes) -> Delivery:
        self.posts.append((url, json.loads(body)))
        self._at_once += 1
        self.at_once_most = max(self.at_once_most, self._at_once)
        if self._at_once >= CALLBACKS_MAX:
            self.crowded.set()
        if self.hold is not None:
            await self.hold.wait()
        self._at_once -= 1
        return self.answers[min(len(self.posts), len(self.answers)) - 1]


@define
class Pauses(HandClock):
    """Writes down how long each pause is; time moves by hand only, for several pause at once."""

    pauses: list[float] = field(factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


@define
class Stage:
    """Callbacks with all that they have to do with."""

    clock: Pauses
    store: MemoryStore
    lifecycle: TaskLifecycle
    client: Client
    callbacks: TaskCallbacks
    said: StringIO

    @property
    def call(self) -> Call:
        return Call.begin(self.clock, 10_000)

    async def completed(self, guid: str = "job", url: str = URL, **end: Any) -> Task:
        """One that has ended, of which nobody was told yet."""
        definition = TaskDefinition(
            rootfs="preloaded:stack", action=EXECUTABLE, completion_callback_url=url, annotation="mine"
        )
        asked = TaskRequest(task_guid=TaskGuid(guid), domain=Domain("tests"), definition=definition)
        task = await self.lifecycle.create(self.call, asked)
        assert task.instance_guid is not None
        await self.store.run(self.call, "report", lambda tx: tx.cells.upsert([report()], 1e6))
        named = {"instance_guid": task.instance_guid, "cell_id": CellId("cell-1"), "claim_id": "c"}
        await self.lifecycle.claim(self.call, guid, TaskClaim(boot_id="boot-1", sequence=1, **named))  # type: ignore[arg-type]
        told = TaskEnd(
            task_guid=task.task_guid, domain=task.domain, started=True, **{"failed": False, **named, **end}
        )
        ended = await self.lifecycle.end(self.call, told)
        assert ended is not None
        return ended

    async def row(self, guid: str = "job") -> Task | None:
        try:
            return await self.lifecycle.get(self.call, guid)
        except TaskNotFound:
            return None

    async def all_done(self) -> None:
        """Return when nothing is under way."""
        while self.callbacks.tasks._tasks:
            await asyncio.wait(self.callbacks.tasks._tasks)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.getvalue().splitlines()]


@pytest.fixture
def stage() -> Stage:
    clock, said = Pauses(), StringIO()
    store = MemoryStore(MemoryDatabase(clock), clock)
    lifecycle = TaskLifecycle(store, clock, guids())
    client, log = Client(), logger("bbs", "bbs-1", said)
    callbacks = TaskCallbacks(
        lifecycle=lifecycle,
        completions=Completions(lifecycle),
        client=client,
        tasks=OwnedTasks(log),
        clock=clock,
        log=log,
        jitter=lambda: 1.0,
    )
    return Stage(clock, store, lifecycle, client, callbacks, said)


@pytest.mark.parametrize("names", SEQUENCES, ids=["+".join(names) for names in SEQUENCES])
async def test_whatever_is_answered(stage: Stage, names: tuple[str, ...]) -> None:
    """Only what nobody took is asked again, and comes back; all else is handed out, and its task deleted."""
    stage.client.answers = [ANSWERS[name] for name in names]
    stage.callbacks.completed(await stage.completed())
    await stage.all_done()
    answered = [name for name in names if ANSWERS[name].status not in {None, *AGAIN} or name == "denied"]
    last = answered[0] if answered else names[-1]
    made = names.index(last) + 1 if answered else TRIES_MAX
    assert len(stage.client.posts) == made
    pauses = [PAUSE_MIN_S * 2**number * (1 + JITTER) for number in range(made - 1)]
    row = await stage.row()
    if last in ("taken", "refused", "broken"):
        assert row is None
        assert stage.clock.pauses == [*pauses, LINGER_S]
        return
    assert row is not None
    assert row.state is TaskState.COMPLETED, "given back, so that it is called back later, or is taken"
    assert stage.clock.pauses == pauses
    (warned,) = [line for line in stage.log() if line["event"] == "callback_failed"]
    assert warned["code"] == (CallbackRefused.code if last == "denied" else CallbackFailed.code)


async def test_what_is_sent(stage: Stage) -> None:
    """In Diego's words, and no more."""
    failure = {"code": "app.process_exited", "detail": "exited with status 3"}
    task = await stage.completed(failed=True, failure_reason="exited with status 3", failure=failure)
    stage.callbacks.completed(task)
    await stage.all_done()
    ((url, body),) = stage.client.posts
    assert url == URL
    assert body == {
        "task_guid": "job",
        "failed": True,
        "failure_reason": "exited with status 3",
        "result": "",
        "annotation": "mine",
        "created_at": round(task.created_at.timestamp() * 1e6) * 1000,
    }


async def test_who_wants_no_callback_gets_none(stage: Stage) -> None:
    stage.callbacks.completed(await stage.completed(url=""))
    await stage.all_done()
    assert stage.client.posts == []
    assert await stage.row() is not None


async def test_one_at_a_time_for_a_task(stage: Stage) -> None:
    """Its end and a round of the leader may come together."""
    stage.client.hold = asyncio.Event()
    task = await stage.completed()
    stage.callbacks.completed(task)
    stage.callbacks.begin(task.task_guid)
    stage.client.hold.set()
    await stage.all_done()
    stage.callbacks.begin(task.task_guid)  # Gone by now: nothing is sent, and nothing is said.
    await stage.all_done()
    assert len(stage.client.posts) == 1
    assert [line for line in stage.log() if line["level"] == "warning"] == []


async def test_one_that_somebody_takes_is_not_sent(stage: Stage) -> None:
    task = await stage.completed()
    await stage.lifecycle.resolve(stage.call, "job")
    stage.callbacks.completed(task)
    await stage.all_done()
    assert stage.client.posts == []
    row = await stage.row()
    assert row is not None
    assert row.state is TaskState.RESOLVING


async def test_a_second_one_is_made_after_the_first_failed(stage: Stage) -> None:
    stage.client.answers = [ANSWERS["away"]] * TRIES_MAX + [ANSWERS["taken"]]
    task = await stage.completed()
    stage.callbacks.completed(task)
    await stage.all_done()
    stage.callbacks.begin(task.task_guid)
    await stage.all_done()
    assert len(stage.client.posts) == TRIES_MAX + 1
    assert await stage.row() is None


async def test_few_at_once(stage: Stage) -> None:
    stage.client.hold = asyncio.Event()
    for number in range(CALLBACKS_MAX + 3):
        stage.callbacks.completed(await stage.completed(f"job-{number}"))
    await stage.client.crowded.wait()
    stage.client.hold.set()
    await stage.all_done()
    assert stage.client.at_once_most == CALLBACKS_MAX
    assert len(stage.client.posts) == CALLBACKS_MAX + 3


async def test_the_wait_for_others_costs_no_time_of_its_own(stage: Stage) -> None:
    """Else it would be handed out, and handed out again for want of time to delete it."""
    stage.client.hold = asyncio.Event()
    for number in range(CALLBACKS_MAX + 1):
        stage.callbacks.completed(await stage.completed(f"job-{number}"))
    await stage.client.crowded.wait()
    await asyncio.sleep(0)  # The last one is begun.
    stage.clock.pass_ms(BUDGET_MS + 1)
    stage.client.hold.set()
    await stage.all_done()
    assert await stage.row(f"job-{CALLBACKS_MAX}") is None


async def test_whoever_waits_is_told_first(stage: Stage) -> None:
    """Its row may be gone by the time he looks."""
    task = await stage.completed()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(stage.callbacks.completions.wait(stage.call, task.task_guid))
        stage.callbacks.completed(task)
    assert waiting.result() == task
    await stage.all_done()


async def test_a_process_that_stops_leaves_it_to_another(stage: Stage) -> None:
    task = await stage.completed()
    await stage.callbacks.tasks.stop()
    stage.callbacks.completed(task)
    assert stage.client.posts == []
    assert stage.callbacks._under_way == set()
    row = await stage.row()
    assert row is not None
    assert row.state is TaskState.COMPLETED


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("op", ["resolve_task", "recall_task", "forget_task"])
async def test_a_database_that_fails_loses_no_result(stage: Stage, op: str, fault: Fault) -> None:
    """A row that nobody works on is recalled by the leader, and called back again: more than once, never not at all."""
    stage.client.answers = [*[ANSWERS["away"]] * TRIES_MAX * (op == "recall_task"), ANSWERS["taken"]]
    task = await stage.completed()
    failed: list[str] = []

    def fails(asked: str, moment: Moment) -> Fault | None:
        if asked != op or moment is not Moment.COMMIT:
            return None
        failed.append(asked)
        return fault

    stage.store.fault = fails
    stage.callbacks.completed(task)
    await stage.all_done()
    assert failed
    assert stage.callbacks._under_way == set()
    assert [line["event"] for line in stage.log()].count("callback_failed") == 1
    stage.store.fault = lambda asked, moment: None
    row = await stage.row()
    if row is None:
        assert (op, fault) == ("forget_task", Fault.ANSWER_LOST)
    elif row.state is TaskState.RESOLVING:
        await stage.lifecycle.recall(stage.call, TaskStatus.of(row))
    stage.callbacks.begin(task.task_guid)
    await stage.all_done()
    assert await stage.row() is None
    assert stage.client.posts
