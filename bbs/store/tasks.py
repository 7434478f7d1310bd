"""The table of tasks: one row a task, until its result was taken. Which row may become which is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from attrs import frozen

from bbs.task_status import Claim, TaskStatus
from diego_py import wire
from diego_py.errors import TaskExists
from diego_py.models.task import Task, TaskDefinition, TaskRequest, TaskState


@frozen
class LockedTask:
    """A row that nobody else can change before our transaction ends."""

    row: Task
    claim: Claim | None
    failure_id: str | None
    now: datetime
    """By the database's clock: the only one that its times may be compared with."""


@frozen(kw_only=True)
class Filter:
    """Which rows are wanted; what is None does not matter."""

    domain: str | None = None
    cell_id: str | None = None
    state: str | None = None


@frozen
class PostgresTasks:
    """Tasks in Postgres. What each method means is said in `tables.TaskTable`."""

    connection: asyncpg.Connection

    INSERT = """
        INSERT INTO tasks (task_guid, domain, state, definition, has_callback, instance_guid, result, failed,
                           rejection_count, attempts, created_at, updated_at)
        VALUES ($1, $2, 'PENDING', $3, $4, $5, '', false, 0, 0, clock_timestamp(), clock_timestamp())
        ON CONFLICT (task_guid) DO NOTHING
        RETURNING *
    """

    async def insert(self, request: TaskRequest, instance_guid: str) -> Task:
        definition = request.definition
        row = await self.connection.fetchrow(
            self.INSERT,
            request.task_guid,
            request.domain,
            wire.encode_revealed(definition),
            bool(definition.completion_callback_url),
            instance_guid,
        )
        if row is None:
            guid = request.task_guid
            raise TaskExists(f"task {guid} exists already", subject={"kind": "task", "guid": guid})
        return _task(row)

    GET = """
        SELECT tasks.*, failures.document FROM tasks LEFT JOIN failures ON failures.id = failure_id
        WHERE tasks.task_guid = $1
    """

    async def get(self, task_guid: str) -> Task | None:
        row = await self.connection.fetchrow(self.GET, task_guid)
        return None if row is None else _task(row, with_failure=True)

    LOCK = "SELECT *, clock_timestamp() AS now FROM tasks WHERE task_guid = $1 FOR UPDATE"

    async def lock(self, task_guid: str) -> LockedTask | None:
        row = await self.connection.fetchrow(self.LOCK, task_guid)
        return None if row is None else LockedTask(_task(row), _claim(row), row["failure_id"], row["now"])

    LIST_PAGE = """
        SELECT * FROM tasks
        WHERE task_guid > $1 AND ($2::text IS NULL OR domain = $2) AND ($3::text IS NULL OR cell_id = $3)
          AND ($4::text IS NULL OR state = $4)
        ORDER BY task_guid LIMIT $5
    """

    LIST_PAGE_WITH_FAILURE = """
        SELECT tasks.*, failures.document FROM tasks LEFT JOIN failures ON failures.id = failure_id
        WHERE tasks.task_guid > $1 AND ($2::text IS NULL OR tasks.domain = $2)
          AND ($3::text IS NULL OR tasks.cell_id = $3) AND ($4::text IS NULL OR state = $4)
        ORDER BY tasks.task_guid LIMIT $5
    """

    async def list_page(
        self, wanted: Filter, after: str | None = None, limit: int = 500, *, with_failure: bool = False
    ) -> list[Task]:
        statement = self.LIST_PAGE_WITH_FAILURE if with_failure else self.LIST_PAGE
        filters = (wanted.domain, wanted.cell_id, wanted.state)
        rows = await self.connection.fetch(statement, after or "", *filters, limit)
        return [_task(row, with_failure=with_failure) for row in rows]

    LIST_STATUSES = """
        SELECT task_guid, state, cell_id, instance_guid, created_at, updated_at, first_completed_at, attempts,
               next_attempt_at, has_callback
        FROM tasks
        WHERE state <> 'RUNNING'
           OR NOT EXISTS (SELECT FROM cells WHERE cells.cell_id = tasks.cell_id AND expires_at > now())
        ORDER BY task_guid
    """

    async def list_statuses(self) -> list[TaskStatus]:
        return [_status(row) for row in await self.connection.fetch(self.LIST_STATUSES)]

    LIST_CONCERNING = """
        SELECT task_guid, state, cell_id, instance_guid, created_at, updated_at, first_completed_at, attempts,
               next_attempt_at, has_callback, boot_id, claim_id, claim_sequence
        FROM tasks WHERE (cell_id = $1 AND state = 'RUNNING') OR instance_guid = ANY($2::text[])
        ORDER BY task_guid
    """

    async def list_concerning(
        self, cell_id: str, instance_guids: Sequence[str]
    ) -> list[tuple[TaskStatus, Claim | None]]:
        rows = await self.connection.fetch(self.LIST_CONCERNING, cell_id, instance_guids)
        return [(_status(row), _claim(row)) for row in rows]

    CELLS_WITH_ANY = "SELECT DISTINCT cell_id FROM tasks WHERE cell_id = ANY($1::text[]) AND state = 'RUNNING'"

    async def cells_with_any(self, cell_ids: Sequence[str]) -> set[str]:
        return {row["cell_id"] for row in await self.connection.fetch(self.CELLS_WITH_ANY, cell_ids)}

    SAVE = """
        UPDATE tasks
        SET state = $2, cell_id = $3, instance_guid = $4, boot_id = $5, claim_id = $6, claim_sequence = $7,
            result = $8, failed = $9, failure_reason = $10, failure_id = $11, rejection_count = $12,
            rejection_reason = $13, attempts = $14, next_attempt_at = $15, updated_at = $16, first_completed_at = $17
        WHERE task_guid = $1
    """

    async def save(self, row: Task, claim: Claim | None, failure_id: str | None) -> None:
        await self.connection.execute(
            self.SAVE,
            row.task_guid,
            row.state.value,
            row.cell_id,
            row.instance_guid,
            None if claim is None else claim.boot_id,
            None if claim is None else claim.claim_id,
            None if claim is None else claim.sequence,
            row.result.encode(errors="replace"),
            row.failed,
            row.failure_reason,
            failure_id,
            row.rejection_count,
            row.rejection_reason,
            row.attempts,
            row.next_attempt_at,
            row.updated_at,
            row.first_completed_at,
        )

    DELETE = "DELETE FROM tasks WHERE task_guid = $1 RETURNING true"

    async def delete(self, task_guid: str) -> bool:
        return bool(await self.connection.fetchval(self.DELETE, task_guid))


def _status(row: asyncpg.Record) -> TaskStatus:
    return TaskStatus(
        task_guid=row["task_guid"],
        state=TaskState(row["state"]),
        cell_id=row["cell_id"],
        instance_guid=row["instance_guid"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        first_completed_at=row["first_completed_at"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        has_callback=row["has_callback"],
    )


def _claim(row: asyncpg.Record) -> Claim | None:
    if row["claim_id"] is None:
        return None
    return Claim(boot_id=row["boot_id"], claim_id=row["claim_id"], sequence=row["claim_sequence"])


def _task(row: asyncpg.Record, *, with_failure: bool = False) -> Task:
    return Task(
        task_guid=row["task_guid"],
        domain=row["domain"],
        definition=wire.decode(TaskDefinition, row["definition"]),
        state=TaskState(row["state"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        first_completed_at=row["first_completed_at"],
        cell_id=row["cell_id"],
        instance_guid=row["instance_guid"],
        result=row["result"].decode(),
        failed=row["failed"],
        failure_reason=row["failure_reason"],
        failure=_document(row["document"]) if with_failure else None,
        rejection_count=row["rejection_count"],
        rejection_reason=row["rejection_reason"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
    )


def _document(document: bytes | None) -> Mapping[str, Any] | None:
    return None if document is None else msgspec.json.decode(document, type=dict[str, Any])
