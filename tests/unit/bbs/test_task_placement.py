"""The cascade of a task in the BBS on the store in memory, with cells that do as a test says."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import pytest
from attrs import define, evolve, field, frozen

from bbs.cell_pool import CellPool
from bbs.placement import CELLS_TRIED_MAX
from bbs.store.failures import Filter
from bbs.store.task_moves import REJECTIONS_MAX
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_placement import TaskPlacement
from bbs.task_status import TaskStatus
from diego_py.call import Call
from diego_py.errors import (
    CancelFailed,
    CellDraining,
    DiegoError,
    ExecNotFound,
    HopUnreachable,
    IllegalTransition,
    NoCellFits,
    NoCells,
    Outcome,
    PlacementFailed,
    ProcessExited,
    SandboxFailed,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
)
from diego_py.models.cell import RootfsProvider
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, TaskGuid
from diego_py.models.task import Task, TaskDefinition, TaskRequest, TaskState
from diego_py.models.task_work import TaskClaim, TaskEnd, TaskWork
from diego_py.models.work import AvailableResources, CellReport, Stopped, TaskStarted
from diego_py.service.log import logger
from tests.contract.store.conftest import EXECUTABLE, guids, report
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore
from tests.unit.diego_py.service.hand_clock import HandClock

FREE = AvailableResources(memory_mb=512, disk_mb=512, containers=5)
STACK = RootfsProvider(name="preloaded", properties=("stack",))


@frozen
class Attempt:
    """What a cell does with a task that it is sent."""

    error: type[DiegoError] | None = None
    outcome: Outcome = Outcome.UNKNOWN
    claims: bool = True
    names_claim: bool = True
    """Whether the failure says which start it is about."""

    @property
    def may_have_begun(self) -> bool:
        """By what the BBS can know: the row was claimed, and nobody said that nothing came of it."""
        said = self.outcome is Outcome.NOT_STARTED and self.names_claim
        return self.error is None or (self.claims and not said)


RUNS = Attempt()
NO_ROOM = Attempt(CellDraining, Outcome.NOT_STARTED, claims=False)
BROKEN = Attempt(SandboxFailed, Outcome.NOT_STARTED)
AWAY = Attempt(HopUnreachable, claims=False, names_claim=False)
LOST = Attempt(HopUnreachable, names_claim=False)
UNSIGNED = Attempt(SandboxFailed, Outcome.NOT_STARTED, names_claim=False)
"""It says that nothing began, and not of which start."""
HOPELESS = Attempt(ExecNotFound, Outcome.NOT_STARTED)
RAN = Attempt(ProcessExited, Outcome.ROLLED_BACK)
KINDS = {
    "runs": RUNS,
    "no room": NO_ROOM,
    "broken": BROKEN,
    "away": AWAY,
    "lost": LOST,
    "unsigned": UNSIGNED,
    "hopeless": HOPELESS,
    "ran": RAN,
}
PAIRS = {f"{one}, {other}": (KINDS[one], KINDS[other]) for one in KINDS for other in KINDS}


@define
class Cells:
    """All cells: each attempt goes as the next one of `does` says, the last one again and again."""

    lifecycle: TaskLifecycle
    reports: dict[str, CellReport] = field(factory=dict)
    does: list[Attempt] = field(factory=lambda: [RUNS])
    sent: list[tuple[str, str]] = field(factory=list)
    """Cell and instance guid."""
    stopped: list[str] = field(factory=list)
    unstoppable: DiegoError | None = None
    while_it_starts: Callable[[], Awaitable[object]] | None = None
    asked: int = 0

    async def run_task(self, call: Call, cell_id: CellId, url: str, work: TaskWork, attempt: int) -> TaskStarted:
        self.sent.append((cell_id, work.instance_guid))
        assert attempt == len(self.sent)
        does = self.does[min(len(self.sent), len(self.does)) - 1]
        claim_id = f"claim-{len(self.sent)}"
        if does.claims:
            claim = TaskClaim(
                instance_guid=work.instance_guid, cell_id=cell_id, boot_id="boot-1", claim_id=claim_id, sequence=1
            )
            await self.lifecycle.claim(call, work.task_guid, claim)
        if self.while_it_starts is not None:
            await self.while_it_starts()
        if does.error is not None:
            error = does.error(f"on {cell_id}", outcome=does.outcome)
            if does.names_claim:
                error.problem = {"subject": {"claim_id": claim_id}}
            raise error
        return TaskStarted(instance_guid=work.instance_guid, available=FREE, sequence=2)

    async def stop_task(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        if self.unstoppable is not None:
            raise self.unstoppable
        self.stopped.append(instance_guid)
        return Stopped(instance_guid=instance_guid, existed=True)

    async def state(self, call: Call, cell_id: CellId, url: str) -> CellReport:
        self.asked += 1
        return self.reports[cell_id]


@define
class Stage:
    """A placement with its cells."""

    clock: HandClock
    lifecycle: TaskLifecycle
    store: MemoryStore
    cells: Cells
    pool: CellPool
    placement: TaskPlacement
    completed: list[Task]

    @property
    def call(self) -> Call:
        return Call.begin(self.clock, 10_000)

    async def cell(self, number: int, **presence: Any) -> None:
        plain = report(f"cell-{number}")
        told = evolve(plain, presence=evolve(plain.presence, rootfs_provider_list=(STACK,), **presence))
        self.cells.reports[told.presence.cell_id] = told
        await self.store.run(self.call, "report", lambda tx: tx.cells.upsert([told], 1e6))
        await self.pool.refresh(self.call)

    async def wanted(self, **definition: Any) -> Task:
        asked = TaskRequest(
            task_guid=TaskGuid("job"),
            domain=Domain("tests"),
            definition=TaskDefinition(rootfs="preloaded:stack", action=EXECUTABLE, **definition),
        )
        return await self.lifecycle.create(self.call, asked)

    async def row(self) -> Task | None:
        try:
            return await self.lifecycle.get(self.call, "job")
        except TaskNotFound:
            return None

    async def failures(self) -> list[str]:
        """Codes of the documents that are stored, the newest first."""
        wanted = Filter(task_guid="job")
        page = await self.store.read(self.call, "list", lambda tx: tx.failures.list_page(wanted, None, 100))
        return [record.code for record in page]

    async def ends(self, claim_id: str = "claim-1", cell: str = "cell-1") -> None:
        """The task ends on its cell, well."""
        row = await self.row()
        assert row is not None
        assert row.instance_guid is not None
        end = TaskEnd(
            task_guid=row.task_guid,
            domain=row.domain,
            instance_guid=row.instance_guid,
            cell_id=CellId(cell),
            claim_id=claim_id,
            started=True,
            failed=False,
        )
        assert await self.lifecycle.end(self.call, end) is not None


def staged() -> Stage:
    """No cells yet."""
    clock = HandClock()
    store = MemoryStore(MemoryDatabase(clock), clock)
    lifecycle = TaskLifecycle(store, clock, guids())
    cells = Cells(lifecycle)
    pool = CellPool(store, cells)  # type: ignore[arg-type]
    ids = itertools.count(1)
    completed: list[Task] = []
    placement = TaskPlacement(
        id="bbs-1",
        lifecycle=lifecycle,
        pool=pool,
        completed=completed.append,
        log=logger("bbs", "bbs-1", StringIO()),
        new_failure_id=lambda: f"failure-{next(ids)}",
        jitter=lambda: 0.0,
    )
    return Stage(clock, lifecycle, store, cells, pool, placement, completed)


@pytest.fixture
async def stage() -> Stage:
    """Four cells."""
    made = staged()
    for number in range(1, 5):
        await made.cell(number)
    return made


async def started(stage: Stage, roll_back: bool = False) -> Task | DiegoError:
    task = await stage.wanted()
    try:
        return await stage.placement.start(stage.call, task, roll_back)
    except DiegoError as failure:
        return failure


def attempts_of(does: tuple[Attempt, ...]) -> int:
    """How many of these are made."""
    for number, attempt in enumerate(does, 1):
        last = attempt.error is None or attempt.may_have_begun or not attempt.error.elsewhere
        if last or number == CELLS_TRIED_MAX:
            return number
    raise AssertionError("there are as many as are tried")


@pytest.mark.parametrize("roll_back", [False, True], ids=["keep", "roll back"])
@pytest.mark.parametrize("does", PAIRS.values(), ids=PAIRS)
async def test_whatever_cells_do(stage: Stage, does: tuple[Attempt, ...], roll_back: bool) -> None:
    """It begins once at most; the answer, the row and the document say the same."""
    does = (*does, BROKEN)
    stage.cells.does = list(does)
    answer = await started(stage, roll_back)
    made = does[: attempts_of(does)]
    assert len(stage.cells.sent) == len(made)
    assert len({cell for cell, _ in stage.cells.sent}) == len(made), "no cell twice"
    assert len({guid for _, guid in stage.cells.sent}) == len(made), "each attempt under a name of its own"
    row, last = await stage.row(), made[-1]
    if last.error is None:
        assert isinstance(answer, Task)
        assert row is not None
        assert (row.state, row.cell_id, row.instance_guid) == (TaskState.RUNNING, *stage.cells.sent[-1])
        assert answer.instance_guid == row.instance_guid
        return
    assert isinstance(answer, TaskFailed)
    assert answer.root.code == last.error.code
    placed = answer.find(PlacementFailed)
    assert placed is not None
    assert [error.root.code for error in placed.attempts] == [a.error.code for a in made[:-1] if a.error is not None]
    assert answer.outcome is last.outcome
    assert last.error.code in await stage.failures()
    if roll_back and last is not RAN:
        assert row is None
        stopped = [guid for _, guid in stage.cells.sent[-1:]] if last.may_have_begun else []
        assert stage.cells.stopped == stopped, "what may run is stopped before its row goes"
        return
    if roll_back:
        assert row is None
        return
    assert row is not None
    if last in (RAN, HOPELESS):
        assert (row.state, row.failed) == (TaskState.COMPLETED, True)
        assert stage.completed == [row]
        assert row.failure is not None
        assert row.failure["instance"] == answer.problem.instance  # type: ignore[union-attr]
    elif last.may_have_begun:
        assert row.state is TaskState.RUNNING, "only its cell knows"
        assert stage.completed == []
    else:
        assert (row.state, row.instance_guid, row.cell_id) == (TaskState.PENDING, None, None)
        assert row.attempts == len(made)


async def test_what_may_be_tried_again_says_when(stage: Stage) -> None:
    """Later from one time to the next, and not for ever: but waiting for room does not count."""
    stage.cells.does = [NO_ROOM]
    waits = []
    answer = await started(stage)
    for _ in range(2 * REJECTIONS_MAX):
        assert isinstance(answer, DiegoError)
        row = await stage.row()
        assert row is not None
        assert row.state is TaskState.PENDING
        assert row.next_attempt_at is not None
        assert answer.problem is not None
        assert answer.problem.next_attempt_at == row.next_attempt_at.isoformat(timespec="milliseconds").replace(  # type: ignore[union-attr]
            "+00:00", "Z"
        )
        waits.append((row.next_attempt_at - stage.clock.now()).total_seconds())
        stage.cells.sent.clear()
        with pytest.raises(TaskFailed) as caught:
            await stage.placement.start(stage.call, await stage.lifecycle.offer(stage.call, TaskStatus.of(row)), False)
        answer = caught.value
    assert waits == sorted(waits)
    assert waits[0] > 0


async def test_what_no_cell_can_begin_with_is_given_up(stage: Stage) -> None:
    stage.cells.does = [BROKEN]
    assert isinstance(await started(stage), TaskFailed)
    row = await stage.row()
    assert row is not None
    assert row.rejection_count == CELLS_TRIED_MAX == REJECTIONS_MAX
    stage.cells.sent.clear()
    with pytest.raises(TaskFailed):
        await stage.placement.start(stage.call, await stage.lifecycle.offer(stage.call, TaskStatus.of(row)), False)
    assert len(stage.cells.sent) == 1, "that was one too many already"
    row = await stage.row()
    assert row is not None
    assert (row.state, row.failure_reason) == (TaskState.COMPLETED, f"on {stage.cells.sent[0][0]}")
    assert stage.completed == [row]


async def test_no_cells() -> None:
    empty = staged()
    answer = await started(empty)
    assert isinstance(answer, DiegoError)
    assert isinstance(answer.root, NoCells)
    assert answer.outcome is Outcome.NOT_STARTED
    row = await empty.row()
    assert row is not None
    assert row.state is TaskState.PENDING


async def test_no_room_is_said_after_the_cells_were_asked(stage: Stage) -> None:
    task = await stage.wanted(memory_mb=768)
    with pytest.raises(TaskFailed) as caught:
        await stage.placement.start(stage.call, task, False)
    assert isinstance(caught.value.root, NoCellFits)
    assert caught.value.root.placement is not None
    assert caught.value.root.placement["need"]["memory_mb"] == 768
    assert stage.cells.asked == 4
    assert stage.cells.sent == []


async def test_room_that_only_the_cells_know_of(stage: Stage) -> None:
    """Their last reports were made before somebody left."""
    task = await stage.wanted(memory_mb=768)
    for name, told in stage.cells.reports.items():
        room = evolve(told.available, memory_mb=1024)
        stage.cells.reports[name] = evolve(told, sequence=2, available=room)
    assert (await stage.placement.start(stage.call, task, False)).state is TaskState.RUNNING


async def test_one_that_ends_while_it_is_answered_has_run(stage: Stage) -> None:
    async def ends() -> None:
        await stage.ends(cell=stage.cells.sent[-1][0])

    stage.cells.while_it_starts = ends
    answer = await started(stage)
    assert isinstance(answer, Task)
    assert (answer.state, answer.failed) == (TaskState.COMPLETED, False)


async def test_one_that_was_taken_away_already_has_run(stage: Stage) -> None:
    async def ends_and_is_taken() -> None:
        await stage.ends(cell=stage.cells.sent[-1][0])
        await stage.lifecycle.delete(stage.call, "job")

    stage.cells.while_it_starts = ends_and_is_taken
    answer = await started(stage)
    assert isinstance(answer, Task)
    assert (answer.state, answer.cell_id) == (TaskState.RUNNING, stage.cells.sent[-1][0])


async def test_one_cancelled_while_a_cell_fails_with_it_is_tried_nowhere_else(stage: Stage) -> None:
    async def cancelled() -> None:
        await stage.placement.cancel(stage.call, TaskGuid("job"))

    stage.cells.while_it_starts = cancelled
    stage.cells.does = [BROKEN, RUNS]
    answer = await started(stage)
    assert isinstance(answer, TaskFailed)
    assert len(stage.cells.sent) == 1
    row = await stage.row()
    assert row is not None
    assert (row.state, row.failure_reason) == (TaskState.COMPLETED, "the task was cancelled")


async def test_cancel_of_one_that_runs_stops_it(stage: Stage) -> None:
    """Again, so that it can be shown to be gone; another failure of it is not taken for that."""
    running = await started(stage)
    assert isinstance(running, Task)
    for times in (1, 2):
        cancelled = await stage.placement.cancel(stage.call, TaskGuid("job"))
        assert (cancelled.state, cancelled.failed) == (TaskState.COMPLETED, True)
        assert stage.cells.stopped == [running.instance_guid] * times
    row = await stage.row()
    assert row is not None
    assert row.failure is not None
    assert row.failure["code"] == TaskCancelled.code


async def test_cancel_of_one_that_waits(stage: Stage) -> None:
    stage.cells.does = [NO_ROOM]
    await started(stage)
    cancelled = await stage.placement.cancel(stage.call, TaskGuid("job"))
    assert cancelled.state is TaskState.COMPLETED
    row = await stage.row()
    assert row is not None
    assert row.failure is not None
    assert row.failure["outcome"] == Outcome.NOT_STARTED
    assert stage.cells.stopped == []


async def test_cancel_of_one_that_has_ended(stage: Stage) -> None:
    await started(stage)
    await stage.ends(cell=stage.cells.sent[-1][0])
    with pytest.raises(IllegalTransition):
        await stage.placement.cancel(stage.call, TaskGuid("job"))
    with pytest.raises(TaskNotFound):
        await stage.placement.cancel(stage.call, TaskGuid("nobody"))
    assert stage.cells.stopped == []


@pytest.mark.parametrize(
    ("unstoppable", "outcome"),
    [
        (HopUnreachable("nobody answers", outcome=Outcome.NOT_STARTED), Outcome.UNKNOWN),
        (SandboxFailed("it stays", outcome=Outcome.PARTIAL), Outcome.PARTIAL),
    ],
)
async def test_a_cancel_that_does_not_stop_it_says_so(
    stage: Stage, unstoppable: DiegoError, outcome: Outcome
) -> None:
    """The row is cancelled all the same: the answer to the cell's next report tells it."""
    await started(stage)
    stage.cells.unstoppable = unstoppable
    with pytest.raises(CancelFailed) as caught:
        await stage.placement.cancel(stage.call, TaskGuid("job"))
    assert caught.value.outcome is outcome
    assert caught.value.problem is not None
    row = await stage.row()
    assert row is not None
    assert row.state is TaskState.COMPLETED
    assert len(await stage.failures()) == 2, "that it was cancelled, and that it was not stopped"


async def test_a_rollback_that_cannot_stop_it_keeps_its_row(stage: Stage) -> None:
    """What may still run is not forgotten."""
    stage.cells.does = [LOST]
    stage.cells.unstoppable = HopUnreachable("nobody answers")
    answer = await started(stage, roll_back=True)
    assert isinstance(answer, TaskFailed)
    assert isinstance(answer.root, HopUnreachable)
    assert await stage.row() is not None


async def test_who_resumes_leaves_what_a_cell_has(stage: Stage) -> None:
    running = await started(stage)
    assert isinstance(running, Task)
    assert await stage.placement.resume(stage.call, running, True) == running
    assert len(stage.cells.sent) == 1


async def test_who_resumes_offers_what_waits_under_another_name(stage: Stage) -> None:
    """A cell that was sent it before, and is late, is refused."""
    task = await stage.wanted()
    resumed = await stage.placement.resume(stage.call, task, False)
    assert resumed.state is TaskState.RUNNING
    assert resumed.instance_guid != task.instance_guid


async def test_a_leader_that_looked_too_long_ago_starts_nothing(stage: Stage) -> None:
    task = await stage.wanted()
    stage.clock.pass_ms(1)
    await stage.lifecycle.offer(stage.call, TaskStatus.of(task))
    with pytest.raises(DiegoError):
        await stage.placement.repair(stage.call, TaskStatus.of(task), epoch=0)
    assert stage.cells.sent == []
