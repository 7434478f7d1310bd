"""Tasks on Diego's wire. A change is answered once it is stored; the cascade goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import attrs
from attrs import define
from google.protobuf.message import Message

from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS
from bbs.api.tasks import accepted
from bbs.diego_api import codec, versions, words
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import ErrorType, Refusal
from bbs.diego_api.nouns import ENUMERATIONS
from bbs.diego_api.pages import PAGE, pages
from bbs.diego_api.requests import accepted_fields, task_guid_of, text_of
from bbs.store import tasks
from bbs.store.transaction import Store
from bbs.task_callbacks import TaskCallbacks
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_placement import TaskPlacement
from diego_py import wire
from diego_py.call import Call
from diego_py.errors import IllegalTransition, TaskNotCompleted
from diego_py.models.identifiers import TaskGuid
from diego_py.models.task import Task, TaskRequest, TaskState
from diego_py.service.run import OwnedTasks

View = Callable[[Task], dict[str, Any]]
"""How a task is told, to make a Task from."""
_STATES = ENUMERATIONS[TaskState]
_encode = codec.encoder("TasksResponse", "tasks")


@define
class DiegoTasks:
    """Handlers of tasks."""

    store: Store
    lifecycle: TaskLifecycle
    placement: TaskPlacement
    callbacks: TaskCallbacks
    owned: OwnedTasks
    request_budget_ms: float
    ignored_fields: frozenset[str]

    def endpoints(self) -> list[Endpoint]:
        path, done = "/v1/tasks", "TaskLifecycleResponse"
        lists = ("diego_list_tasks", "TasksRequest", "TasksResponse")
        one = ("diego_get_task", "TaskGuidRequest", "TaskResponse")
        return [
            Endpoint(f"{path}/list.r2", *lists, partial(self.list_tasks, view=told_r2)),
            Endpoint(f"{path}/list.r3", *lists, partial(self.list_tasks, view=told)),
            Endpoint(f"{path}/get_by_task_guid.r2", *one, partial(self.get, view=told_r2)),
            Endpoint(f"{path}/get_by_task_guid.r3", *one, partial(self.get, view=told)),
            Endpoint(f"{path}/desire.r2", "diego_desire_task", "DesireTaskRequest", done, self.desire),
            Endpoint(f"{path}/cancel", "diego_cancel_task", "TaskGuidRequest", done, self.cancel),
            Endpoint(f"{path}/resolving", "diego_resolve_task", "TaskGuidRequest", done, self.resolve),
            Endpoint(f"{path}/delete", "diego_delete_task", "TaskGuidRequest", done, self.delete),
        ]

    async def list_tasks(self, request: Any, call: Call, view: View) -> bytes:
        """In order of task_guid; filters are ANDed."""
        wanted = tasks.Filter(
            domain=text_of(request.domain, "domain") or None, cell_id=text_of(request.cell_id, "cell_id") or None
        )
        parts = [
            codec.repeated("TasksResponse", "tasks", [_encode(view(task)) for task in page])
            async for page in pages(partial(self._page, call, wanted), lambda task: task.task_guid)
        ]
        return b"".join(parts)

    async def get(self, request: Any, call: Call, view: View) -> Message:
        return MESSAGES["TaskResponse"](task=view(await self.lifecycle.get(call, task_guid_of(request))))

    async def desire(self, request: Any, call: Call) -> None:
        """Store the task and begin to start it; what comes of that is told by the task."""
        wanted = codec.model(TaskRequest, request)
        wanted = accepted(attrs.evolve(wanted, definition=accepted_fields(wanted.definition, self.ignored_fields)))
        call = call.with_budget(self.request_budget_ms + DEFAULT_START_TIMEOUT_MS)
        task = await self.lifecycle.create(call, wanted)
        self.owned.begin(self.placement.start(call, task, roll_back=False), f"run task {task.task_guid}")

    async def cancel(self, request: Any, call: Call) -> None:
        """Complete the task as cancelled and begin to stop its process."""
        guid = task_guid_of(request)
        try:
            task = await self.placement.cancel_row(call, guid)
        except IllegalTransition:
            await self._refuse(call, guid, "Completed")
        self.callbacks.completed(task)
        self.owned.begin(self.placement.stop_cancelled(call, task), f"cancel task {guid}")

    async def resolve(self, request: Any, call: Call) -> None:
        """Take the result of a completed task, alone."""
        guid = task_guid_of(request)
        try:
            await self.lifecycle.resolve(call, guid)
        except (IllegalTransition, TaskNotCompleted):
            await self._refuse(call, guid, "Resolving")

    async def delete(self, request: Any, call: Call) -> None:
        """Forget a task whose result was taken. One that nobody took is not forgotten by this wire."""
        guid = task_guid_of(request)
        if (await self.lifecycle.get(call, guid)).state is not TaskState.RESOLVING:
            await self._refuse(call, guid, "Resolving")
        await self.lifecycle.delete(call, guid)
        self.callbacks.completions.gone(guid)

    async def _refuse(self, call: Call, guid: TaskGuid, to: str) -> NoReturn:
        """Refuse a move that the task's state does not allow."""
        raise transition_refused((await self.lifecycle.get(call, guid)).state, to)

    async def _page(self, call: Call, wanted: tasks.Filter, after: str | None) -> list[Task]:
        return await self.store.read(
            call, "list_tasks", lambda tx: tx.tasks.list_page(wanted, after, PAGE, with_failure=True)
        )


def transition_refused(state: TaskState, to: str) -> Refusal:
    """In Diego's words."""
    return Refusal(ErrorType.INVALID_STATE_TRANSITION, f"Cannot transition from {state.value.capitalize()} to {to}")


def told(task: Task) -> dict[str, Any]:
    """A task, to make a Task from."""
    return _told(task, wire.to_builtins_revealed(task.definition))


def told_r2(task: Task) -> dict[str, Any]:
    """A task, for who knows no layers of images."""
    return _told(task, versions.task_without_layers(wire.to_builtins_revealed(task.definition)))


def _told(task: Task, definition: dict[str, Any]) -> dict[str, Any]:
    asked = task.definition.placement_tags
    return {
        "definition": codec.outward(definition),
        "task_guid": task.task_guid,
        "domain": task.domain,
        "created_at": codec.nanoseconds(task.created_at),
        "updated_at": codec.nanoseconds(task.updated_at),
        "first_completed_at": codec.nanoseconds(task.first_completed_at),
        "state": _STATES[task.state.value],
        "cell_id": task.cell_id,
        "result": task.result,
        "failed": task.failed,
        "failure_reason": words.failure_reason(task.failure_reason, task.failure, asked),
        "rejection_count": task.rejection_count,
        "rejection_reason": words.failure_reason(task.rejection_reason, task.failure, asked),
    }
