"""`/v1/tasks`: what runs once. A request ends when its task runs, or with `until=completed` when that has ended."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from attrs import define, evolve, frozen

from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS, executed, on_failure
from bbs.api.idempotency import Idempotency
from bbs.api.listed import listed
from bbs.api.log_stream import LOG_QUERY, log_query, stream_log
from bbs.api.paging import PAGING
from bbs.api.waiting import Waiting
from bbs.cell_pool import CellPool
from bbs.store.idempotency import IdempotencyKey
from bbs.store.listing import TASKS
from bbs.store.lists import Lists
from bbs.store.task_moves import is_over
from bbs.store.transaction import Store
from bbs.task_callbacks import TaskCallbacks
from bbs.task_completion import Completions
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_outcome import retold
from bbs.task_placement import TaskPlacement
from diego_py import wire
from diego_py.call import Call
from diego_py.errors import (
    CancelFailed,
    ConnectionLost,
    ContainerNotFound,
    InvalidHeader,
    InvalidSpec,
    RequestFailed,
    TaskFailed,
)
from diego_py.http import headers
from diego_py.http.conditional import tagged
from diego_py.http.runner import while_there
from diego_py.http.server import HOP_SERVER, Route, answer, decode, invalid_fields, read_json
from diego_py.models.identifiers import TaskGuid
from diego_py.models.supported import unsupported
from diego_py.models.task import Task, TaskRequest, TaskState
from diego_py.models.task_work import TaskClaim, TaskEnd, TaskEndAcknowledged
from diego_py.models.validation import validate

UNTIL_COMPLETED_BUDGET_MS = headers.BUDGET_MS_MAX - 1
"""How long a request waits for the end of its task when its caller names no budget."""


@frozen(kw_only=True)
class TaskPage:
    """Tasks in order of task_guid."""

    items: tuple[Task, ...]
    next_cursor: str | None


@define
class Tasks:
    """Handlers of tasks."""

    store: Store
    lists: Lists
    lifecycle: TaskLifecycle
    placement: TaskPlacement
    completions: Completions
    callbacks: TaskCallbacks
    pool: CellPool
    idempotency: Idempotency
    waiting: Waiting
    request_budget_ms: float

    def routes(self) -> list[Route]:
        path = "/v1/tasks/{task_guid}"
        return [
            Route(
                "POST",
                "/v1/tasks",
                "desire_task",
                self.create,
                TaskFailed,
                takes=TaskRequest,
                gives=Task,
                query=("on_failure", "until"),
            ),
            Route(
                "GET",
                "/v1/tasks",
                "list_tasks",
                self.list,
                RequestFailed,
                gives=TaskPage,
                query=(*TASKS.filters, *PAGING),
            ),
            Route("GET", path, "get_task", self.get, RequestFailed, gives=Task, query=("until",)),
            Route("POST", path + "/cancel", "cancel_task", self.cancel, CancelFailed, gives=Task),
            Route("POST", path + "/resolve", "resolve_task", self.resolve, RequestFailed, gives=Task),
            Route("GET", path + "/logs", "task_logs", self.logs, RequestFailed, counted=False, query=LOG_QUERY),
            Route("DELETE", path, "delete_task", self.delete, RequestFailed, gives=Task),
            Route(
                "POST",
                path + "/claim",
                "claim_task",
                self.claim,
                RequestFailed,
                counted=False,
                takes=TaskClaim,
                gives=Task,
            ),
            Route(
                "POST",
                path + "/ended",
                "task_ended",
                self.ended,
                RequestFailed,
                counted=False,
                takes=TaskEnd,
                gives=TaskEndAcknowledged,
            ),
        ]

    async def create(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Store the task and start it; 201 when it runs. With `until=completed`, 201 with its result when it has ended
        well, and the failure when it has not."""
        preferences = headers.preferences_from(request.headers)
        roll_back, until_completed = on_failure(request) == "rollback", _until_completed(request)
        body = await read_json(request)
        wanted = accepted(decode(TaskRequest, body))
        until_completed = until_completed and not preferences.respond_async
        placing, call = self._budgeted(request, call, until_completed)
        key = self.idempotency.key_of(request, body)
        before = await self.idempotency.before(placing, key)
        guid, location = wanted.task_guid, f"/v1/tasks/{wanted.task_guid}"
        if before.answer is not None and not (until_completed and _still_runs(before.answer)):
            return before.answer
        if until_completed:
            self.completions.require_room()
        if before.answer is not None:
            work = self._completed(call, guid, key)
        else:
            task = await self._stored(placing, wanted, key, before.resume)
            work = self._placed(placing, task, key, roll_back, before.resume)
            if until_completed:
                placed = self.waiting.admission.changing(work)
                work = self._placed_and_completed(placed, call, guid, key)
        if until_completed:
            with request.app[HOP_SERVER].uncounted(request):
                return await self.waiting.answer(preferences, work, f"run task {guid}", location, counts=False)
        return await self.waiting.answer(preferences, work, f"run task {guid}", location)

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Tasks in order of task_guid; filters are ANDed."""
        state = request.query.get("state")
        if state is not None and state not in TaskState.__members__:
            raise InvalidHeader(f"state takes one of {', '.join(TaskState)}")
        return await listed(request, call, self.lists, TASKS, (str,))

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One task, with the whole document of its failure. With `until=completed`, when it has completed, or as it is
        when `Prefer: wait` or the budget is over."""
        if not _until_completed(request):
            return tagged(request, answer(await self.lifecycle.get(call, _guid(request))))
        preferences = headers.preferences_from(request.headers)
        limit_ms = None if preferences.wait_s is None else preferences.wait_s * 1000
        if headers.BUDGET_MS not in request.headers:
            call = call.with_budget(UNTIL_COMPLETED_BUDGET_MS if limit_ms else self.request_budget_ms)
        self.completions.require_room()
        with request.app[HOP_SERVER].uncounted(request):
            async with while_there(request):
                return answer(await self.completions.wait(call, _guid(request), limit_ms))
        raise ConnectionLost("the caller hung up")

    async def cancel(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Complete the task as cancelled; answers when its process is gone."""
        preferences = headers.preferences_from(request.headers)
        guid = _guid(request)

        async def cancel() -> web.Response:
            task = await self.placement.cancel(call, guid)
            self.callbacks.completed(task)
            return answer(await self._as_it_is(call, task))

        return await self.waiting.answer(preferences, cancel(), f"cancel task {guid}", f"/v1/tasks/{guid}")

    async def resolve(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Take the result of a completed task, alone; delete it within 30 s, or it is given back."""
        return answer(await self.lifecycle.resolve(call, _guid(request)))

    async def delete(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Forget a completed task; answers with it as it was."""
        deleted = await self.lifecycle.delete(call, _guid(request))
        self.completions.gone(deleted.task_guid)
        return answer(deleted)

    async def logs(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What the task writes or wrote, from its cell as NDJSON; `follow=true` goes on until it ends."""
        log_query(request)
        task = await self.lifecycle.get(call, _guid(request))
        if task.cell_id is None or task.instance_guid is None:
            raise ContainerNotFound(f"task {task.task_guid} has not been on a cell")
        return await stream_log(request, call, self.pool, task.cell_id, task.instance_guid)

    async def claim(self, request: web.Request, call: Call) -> web.StreamResponse:
        """A cell takes the task that it was sent; refused when it waits for another attempt or another start has it."""
        claim = decode(TaskClaim, await read_json(request))
        return answer(evolve(await self.lifecycle.claim(call, _guid(request), claim), failure=None))

    async def ended(self, request: web.Request, call: Call) -> web.StreamResponse:
        """A cell says how an attempt ended. Any number of times; 200 also when nobody waits for it any more."""
        end = decode(TaskEnd, await read_json(request))
        if end.task_guid != request.match_info["task_guid"]:
            raise InvalidSpec("the end is another task's than the path says")
        if errors := validate(end):
            raise invalid_fields(errors)
        task = await self.lifecycle.end(call, end)
        if task is not None and is_over(task.state):
            self.callbacks.completed(task)
        return answer(TaskEndAcknowledged(task_guid=end.task_guid, instance_guid=end.instance_guid))

    async def _stored(self, call: Call, wanted: TaskRequest, key: IdempotencyKey | None, resume: bool) -> Task:
        """The row of the task: a new one, or the one that a process that died has left."""
        if resume:
            return await self.lifecycle.get(call, wanted.task_guid)
        return await self.lifecycle.create(call, wanted, key)

    async def _placed(
        self, call: Call, task: Task, key: IdempotencyKey | None, roll_back: bool, resume: bool
    ) -> web.Response:
        """Start the task, or go on with what a process that died has begun."""

        async def place() -> web.Response:
            start = self.placement.resume if resume else self.placement.start
            started = await start(call, task, roll_back)
            return answer(started, 201, {"Location": f"/v1/tasks/{task.task_guid}"})

        return await self.idempotency.remember(call, key, TaskFailed, place)

    async def _placed_and_completed(
        self, placed: Coroutine[Any, Any, web.Response], call: Call, guid: TaskGuid, key: IdempotencyKey | None
    ) -> web.Response:
        await placed
        return await self._completed(call, guid, key)

    async def _completed(self, call: Call, guid: TaskGuid, key: IdempotencyKey | None) -> web.Response:
        """The end of a task that was started, kept under the key in place of the answer that it was."""

        async def completed() -> web.Response:
            task = await self.completions.wait(call, guid)
            if task.failed:
                raise retold(call, f"run task {guid}", task)
            return answer(task, 201, {"Location": f"/v1/tasks/{guid}"})

        return await self.idempotency.remember(call, key, TaskFailed, completed)

    async def _as_it_is(self, call: Call, task: Task) -> Task:
        """The task with its document. A callback may have taken it away by now."""
        now = await self.store.read(call, "get_task", lambda tx: tx.tasks.get(task.task_guid))
        return task if now is None else now

    def _budgeted(self, request: web.Request, call: Call, until_completed: bool) -> tuple[Call, Call]:
        """For placing the task, and for waiting for its end; the caller's own budget is for both."""
        if headers.BUDGET_MS in request.headers:
            return call, call
        placing = call.with_budget(self.request_budget_ms + DEFAULT_START_TIMEOUT_MS)
        return placing, call.with_budget(UNTIL_COMPLETED_BUDGET_MS) if until_completed else placing


def accepted(wanted: TaskRequest) -> TaskRequest:
    """The request if it is valid and this release executes all of it.

    Raises InvalidSpec with every bad field, or UnsupportedField when being too new for us is all that is wrong.
    """
    invalid = validate(wanted)
    refused = [error.below("/definition") for error in unsupported(wanted.definition)]
    if invalid:
        raise invalid_fields([*invalid, *refused])
    executed(refused)
    return wanted


def _until_completed(request: web.Request) -> bool:
    """Whether the end of the task is waited for. Raises InvalidHeader."""
    until = request.query.get("until")
    if until not in (None, "completed"):
        raise InvalidHeader("until takes completed")
    return until is not None


def _still_runs(stored: web.Response) -> bool:
    """Whether a stored answer says that the task was started, and not how it ended."""
    if stored.status != 201 or not isinstance(stored.body, bytes):
        return False
    return not is_over(wire.decode(Task, stored.body).state)


def _guid(request: web.Request) -> TaskGuid:
    return TaskGuid(request.match_info["task_guid"])


