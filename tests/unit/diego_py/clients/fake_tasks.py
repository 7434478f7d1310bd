"""The part of the fake BBS that keeps tasks: each has ended the moment it is run."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web
from attrs import define, evolve, field

from diego_py.call import Call
from diego_py.errors import DiegoError, RequestFailed, TaskFailed, TaskNotFound
from diego_py.http.server import Route, answer, decode
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task import Task, TaskRequest, TaskState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@define
class FakeTasks:
    """Answers as the API says. `fails` is raised below the frame of a rep."""

    fails: DiegoError | None = None
    result: str = ""
    tasks: dict[str, Task] = field(factory=dict)
    asked: list[str] = field(factory=list)
    """Method and path with query of each request."""

    def routes(self) -> list[Route]:
        one = "/v1/tasks/{guid}"
        return [
            Route("POST", "/v1/tasks", "desire_task", self.run, TaskFailed),
            Route("GET", "/v1/tasks", "list_tasks", self.list, RequestFailed),
            Route("GET", one, "get_task", self.get, RequestFailed),
            Route("POST", one + "/cancel", "cancel_task", self.cancel, RequestFailed),
            Route("POST", one + "/resolve", "resolve_task", self.resolve, RequestFailed),
            Route("DELETE", one, "delete_task", self.delete, RequestFailed),
        ]

    async def run(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        wanted = decode(TaskRequest, await request.read())
        if self.fails is not None:
            with call.hop("rep", "cell-1", "run_task", TaskFailed):
                raise self.fails
        over = request.query.get("until") == "completed"
        task = Task(
            task_guid=wanted.task_guid,
            domain=wanted.domain,
            definition=wanted.definition,
            state=TaskState.COMPLETED if over else TaskState.RUNNING,
            created_at=NOW,
            updated_at=NOW,
            cell_id=CellId("cell-1"),
            instance_guid=InstanceGuid("i1"),
            result=self.result if over else "",
        )
        self.tasks[task.task_guid] = task
        return answer(task, 201)

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        return answer({"items": list(self.tasks.values()), "next_cursor": None})

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        return answer(self._find(request))

    async def cancel(self, request: web.Request, call: Call) -> web.StreamResponse:
        ended = evolve(self._find(request), state=TaskState.COMPLETED, failed=True, failure_reason="cancelled")
        self.tasks[ended.task_guid] = ended
        return answer(ended)

    async def resolve(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(evolve(self._find(request), state=TaskState.RESOLVING))

    async def delete(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(self.tasks.pop(self._find(request).task_guid))

    def _find(self, request: web.Request) -> Task:
        guid = request.match_info["guid"]
        if guid not in self.tasks:
            raise TaskNotFound(f"no task {guid}", subject={"kind": "task", "guid": guid})
        return self.tasks[guid]

    def _note(self, request: web.Request) -> None:
        self.asked.append(f"{request.method} {request.path_qs}")
