"""Tasks in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from attrs import evolve, frozen

from bbs.store.tasks import Filter, LockedTask
from bbs.task_status import Claim, TaskStatus
from diego_py.errors import TaskExists
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task import Task, TaskRequest, TaskState
from tests.simulation.memory_store.cells import TABLE as CELLS
from tests.simulation.memory_store.engine import ConstraintViolated, MemoryTransactionCore

TABLE: Final = "tasks"
OVER: Final = (TaskState.COMPLETED, TaskState.RESOLVING)


@frozen
class Row:
    """A task with the start that has it, and the document behind its failure."""

    task: Task
    claim: Claim | None
    failure_id: str | None


@frozen
class MemoryTasks:
    """What `tables.TaskTable` promises."""

    core: MemoryTransactionCore

    async def insert(self, request: TaskRequest, instance_guid: str) -> Task:
        guid = request.task_guid
        await self.core.statement(guid, request.domain, instance_guid)
        await self.core.take(TABLE, guid)
        if self.core.get(TABLE, guid) is not None:
            raise TaskExists(f"task {guid} exists already", subject={"kind": "task", "guid": guid})
        now = self.core.now()
        task = Task(
            task_guid=guid,
            domain=request.domain,
            definition=request.definition,
            state=TaskState.PENDING,
            created_at=now,
            updated_at=now,
            instance_guid=InstanceGuid(instance_guid),
        )
        self._write(Row(task, None, None))
        return task

    async def get(self, task_guid: str) -> Task | None:
        await self.core.statement(task_guid)
        row = self.core.get(TABLE, task_guid)
        if row is None:
            return None
        return self._with_failure(row)

    async def lock(self, task_guid: str) -> LockedTask | None:
        await self.core.statement(task_guid)
        row = await self.core.lock(TABLE, task_guid)
        return None if row is None else LockedTask(row.task, row.claim, row.failure_id, self.core.now())

    async def list_page(
        self, wanted: Filter, after: str | None = None, limit: int = 500, *, with_failure: bool = False
    ) -> list[Task]:
        await self.core.statement(wanted.domain, wanted.cell_id, wanted.state, after)
        found = (
            self._with_failure(row) if with_failure else row.task
            for row in self.core.rows(TABLE)
            if row.task.task_guid > (after or "")
            and wanted.domain in (None, row.task.domain)
            and wanted.cell_id in (None, row.task.cell_id)
            and wanted.state in (None, row.task.state.value)
        )
        return list(found)[:limit]

    async def list_statuses(self) -> list[TaskStatus]:
        await self.core.statement()
        return [TaskStatus.of(row.task) for row in self.core.rows(TABLE) if not self._runs(row.task)]

    def _runs(self, task: Task) -> bool:
        """On a cell that is there."""
        cell = self.core.get(CELLS, task.cell_id)
        return task.state is TaskState.RUNNING and cell is not None and bool(cell.expires_at > self.core.began_at)

    async def list_concerning(
        self, cell_id: str, instance_guids: Sequence[str]
    ) -> list[tuple[TaskStatus, Claim | None]]:
        await self.core.statement(cell_id, *instance_guids)
        return [
            (TaskStatus.of(row.task), row.claim)
            for row in self.core.rows(TABLE)
            if (row.task.cell_id == cell_id and row.task.state is TaskState.RUNNING)
            or row.task.instance_guid in instance_guids
        ]

    async def cells_with_any(self, cell_ids: Sequence[str]) -> set[str]:
        await self.core.statement(*cell_ids)
        running = [row.task for row in self.core.rows(TABLE) if row.task.state is TaskState.RUNNING]
        return {task.cell_id for task in running if task.cell_id in cell_ids}

    async def save(self, row: Task, claim: Claim | None, failure_id: str | None) -> None:
        await self.core.statement(row.task_guid, row.failure_reason, row.rejection_reason)
        self._write(Row(evolve(row, failure=None), claim, failure_id))

    async def delete(self, task_guid: str) -> bool:
        await self.core.statement(task_guid)
        return await self.core.update(TABLE, task_guid, lambda row: True, lambda row: None) is not None

    def _with_failure(self, row: Row) -> Task:
        failure = None if row.failure_id is None else self.core.get("failures", row.failure_id)
        return evolve(row.task, failure=None if failure is None else msgspec.json.decode(failure.body))

    def _write(self, row: Row) -> None:
        task = row.task
        _check(task, row.claim)
        for other in self.core.rows(TABLE):
            same = other.task.instance_guid is not None and other.task.instance_guid == task.instance_guid
            if same and other.task.task_guid != task.task_guid:
                raise ConstraintViolated(f"instance_guid {task.instance_guid} is there already")
        self.core.write(TABLE, task.task_guid, row)


def _check(task: Task, claim: Claim | None) -> None:
    """The CHECKs of the table."""
    broken = {
        "no_cell_while_pending": task.state is TaskState.PENDING and (task.cell_id is not None or claim is not None),
        "claim_while_running": task.state is TaskState.RUNNING
        and (task.cell_id is None or task.instance_guid is None or claim is None),
        "completed_once_over": (task.first_completed_at is not None) != (task.state in OVER),
        "failed_only_when_over": task.failed and task.state not in OVER,
        "next_attempt_while_pending": task.next_attempt_at is not None and task.state is not TaskState.PENDING,
    }
    for name, is_broken in broken.items():
        if is_broken:
            raise ConstraintViolated(name)
