"""What Diego's reps and auctioneers tell of tasks, met with our rows. Our own cells do not come this way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from attrs import define, frozen
from google.protobuf.message import Message

from bbs.convergence.backoff import after_failure_s
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import ErrorType, Refusal, invalid
from bbs.diego_api.requests import task_guid_of, text_of
from bbs.diego_api.tasks import transition_refused
from bbs.store.task_moves import is_over
from bbs.store.transaction import Store
from bbs.task_callbacks import TaskCallbacks
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_outcome import Verdict, tell
from bbs.task_placement import TaskPlacement
from bbs.task_status import Claim, TaskStatus
from diego_py.call import Call
from diego_py.errors import CellNotFound, ClaimRefused, Fault, Outcome, ToldByRep
from diego_py.http.server import found, invalid_fields
from diego_py.models.identifiers import CellId
from diego_py.models.task import Task, TaskState
from diego_py.models.task_work import SEQUENCE_MAX, TaskClaim, TaskEnd
from diego_py.models.validation import validate


@frozen
class Held:
    """A task, and the claim of whoever runs it."""

    task: Task
    claim: Claim | None


@define
class RepTasks:
    """Handlers of what happens to tasks."""

    store: Store
    lifecycle: TaskLifecycle
    placement: TaskPlacement
    callbacks: TaskCallbacks
    new_guid: Callable[[], str]

    def endpoints(self) -> list[Endpoint]:
        path, done = "/v1/tasks", "TaskLifecycleResponse"
        return [
            Endpoint(f"{path}/start", "diego_start_task", "StartTaskRequest", "StartTaskResponse", self.start),
            Endpoint(f"{path}/reject", "diego_reject_task", "RejectTaskRequest", done, self.reject),
            Endpoint(f"{path}/fail", "diego_fail_task", "FailTaskRequest", done, self.fail),
            Endpoint(f"{path}/complete", "diego_complete_task", "CompleteTaskRequest", done, self.complete),
        ]

    async def start(self, request: Any, call: Call) -> Message:
        """A cell takes a task, before its process begins. The answer says whether it shall begin."""
        task = await self.lifecycle.get(call, task_guid_of(request))
        cell_id = _cell_id_of(request)
        if task.state is TaskState.RUNNING and task.cell_id == cell_id:
            return MESSAGES["StartTaskResponse"](should_start=False)
        if task.state is not TaskState.PENDING:
            raise transition_refused(task.state, "Running")
        record = await self.store.read(call, "get_cell", lambda tx: tx.cells.get(cell_id))
        record = found(record, CellNotFound(f"no cell {cell_id[:200]}"))
        if task.instance_guid is None:
            task = await self.lifecycle.offer(call, TaskStatus.of(task))
        assert task.instance_guid is not None
        claim = TaskClaim(
            instance_guid=task.instance_guid,
            cell_id=cell_id,
            boot_id=record.presence.boot_id,
            claim_id=self.new_guid(),
            sequence=SEQUENCE_MAX,  # no report of ours has to name it: whoever has it tells its end by this wire
        )
        try:
            await self.lifecycle.claim(call, task.task_guid, claim)
        except ClaimRefused as refused:
            raise Refusal(ErrorType.INVALID_STATE_TRANSITION, refused.message) from refused
        return MESSAGES["StartTaskResponse"](should_start=True)

    async def reject(self, request: Any, call: Call) -> None:
        """No process of it began: it is tried again, or fails for good after the third time."""
        if not request.rejection_reason:
            raise invalid("rejection_reason")
        await self._settle(call, request, request.rejection_reason, hopeless=False)

    async def fail(self, request: Any, call: Call) -> None:
        """It is not tried again."""
        if not request.failure_reason:
            raise invalid("failure_reason")
        await self._settle(call, request, request.failure_reason, hopeless=True)

    async def complete(self, request: Any, call: Call) -> None:
        """Its process ended on the cell."""
        held, cell_id = await self._held(call, request), _cell_id_of(request)
        task = held.task
        if task.state is not TaskState.RUNNING or task.instance_guid is None or held.claim is None:
            raise transition_refused(task.state, "Completed")
        if task.cell_id != cell_id:
            message = f"Running on cell {task.cell_id} not {cell_id}"
            raise Refusal(ErrorType.RUNNING_ON_DIFFERENT_CELL, message)
        end = TaskEnd(
            task_guid=task.task_guid,
            domain=task.domain,
            instance_guid=task.instance_guid,
            cell_id=cell_id,
            claim_id=held.claim.claim_id,
            started=True,
            failed=request.failed,
            failure_reason=text_of(request.failure_reason, "failure_reason") or None,
            result=request.result,
        )
        if errors := validate(end):
            raise invalid_fields(errors)
        ended = await self.lifecycle.end(call, end)
        if ended is not None and is_over(ended.state):
            self.callbacks.completed(ended)

    async def _settle(self, call: Call, request: Any, reason: str, *, hopeless: bool) -> None:
        held = await self._held(call, request)
        task = held.task
        if is_over(task.state):
            if hopeless:
                raise transition_refused(task.state, "Completed")
            raise Refusal(ErrorType.INVALID_REQUEST, f"task {task.task_guid} is {task.state}")
        verdict = Verdict(
            never_began=True,
            ended=False,
            counted=True,
            hopeless=hopeless,
            elsewhere=True,
            claim_id=None if held.claim is None else held.claim.claim_id,
            reason=text_of(reason, "reason"),
        )
        error = call.framed(ToldByRep(reason, outcome=Outcome.NOT_STARTED))
        _, document = tell(call, f"run {task.task_guid}", task, error)
        wait_s = after_failure_s(task.attempts + 1, Fault.PLATFORM, self.placement.jitter())
        at = call.clock.now() + timedelta(seconds=wait_s)
        after = await self.lifecycle.settle(call, task, verdict, self.placement.numbered(document), at)
        if after is not None and is_over(after.state):
            self.callbacks.completed(after)

    async def _held(self, call: Call, request: Any) -> Held:
        task = await self.lifecycle.get(call, task_guid_of(request))
        if task.instance_guid is None:
            return Held(task, None)
        guids = [task.instance_guid]
        known = await self.store.read(call, "get_claim", lambda tx: tx.tasks.list_concerning("", guids))
        return Held(task, next((claim for status, claim in known if status.task_guid == task.task_guid), None))


def _cell_id_of(request: Any) -> CellId:
    if not request.cell_id or "\0" in request.cell_id:
        raise invalid("cell_id")
    return CellId(request.cell_id)
