"""The table of failure documents, kept for 30 days as they were answered, also when LRP and cell are long gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec
from attrs import frozen

from diego_py.chain import Problem
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task import Task

PATH: Final = "/v1/failures/"
"""A document names itself: `instance` is this and its id."""
CODE_CHARACTERS_MAX: Final = 255
PRUNE_ROWS: Final = 10_000


@frozen(kw_only=True)
class FailureRecord:
    """One stored failure."""

    id: str
    task_guid: str | None
    process_guid: str | None
    index: int | None
    instance_guid: str | None
    cell_id: str | None
    domain: str | None
    request_id: str
    phase: str
    """What was under way: `place`, `run`, `stop`."""
    code: str
    fault: str
    status: int
    document: Mapping[str, Any]
    created_at: datetime


@frozen(kw_only=True)
class Filter:
    """Which failures are wanted; what is None does not matter."""

    process_guid: str | None = None
    task_guid: str | None = None
    domain: str | None = None
    code: str | None = None


@frozen
class Document:
    """A failure document to store: the bytes, and what the columns say of it."""

    id: str
    body: bytes
    members: Mapping[str, Any]

    def with_members(self, **more: Any) -> Document:
        """The same document with these members set."""
        members = {**self.members, **more}
        return Document(self.id, msgspec.json.encode(members), members)

    @property
    def detail(self) -> str:
        """What went wrong in one line, as a text column takes it."""
        return str(self.members.get("detail", "")).replace("\0", "\N{REPLACEMENT CHARACTER}")

    @property
    def cell_id(self) -> str | None:
        """The cell of the innermost rep that the chain went through."""
        frames = self.members.get("chain")
        hops = [frame for frame in frames if isinstance(frame, Mapping)] if isinstance(frames, list) else []
        return next((str(frame["id"]) for frame in reversed(hops) if frame.get("hop") == "rep" and "id" in frame), None)


def document_of(problem: Problem) -> Document:
    """The document as it is answered. Raises ValueError if it does not name itself `/v1/failures/{id}` yet."""
    if problem.instance is None or not problem.instance.startswith(PATH):
        raise ValueError("a problem gets its instance, /v1/failures/{id}, before it is stored")
    body = problem.encode()
    return Document(problem.instance.removeprefix(PATH), body, msgspec.json.decode(body))


def document_of_cell(members: Mapping[str, Any], id: str) -> Document:
    """A document that a cell made, under an id of ours."""
    named = {**members, "instance": PATH + id}
    return Document(id, msgspec.json.encode(named), named)


def columns_of(document: Document, phase: str, row: ActualLRP | Task | None) -> tuple[Any, ...]:
    """What is stored of a document about an instance or a task, in the order of the columns up to `document`."""
    members = document.members
    status = members.get("status")
    return (
        document.id,
        row.task_guid if isinstance(row, Task) else None,
        row.process_guid if isinstance(row, ActualLRP) else None,
        row.index if isinstance(row, ActualLRP) else None,
        None if row is None else row.instance_guid,
        (None if row is None else row.cell_id) or document.cell_id,
        None if row is None else row.domain,
        _word(members.get("request_id")),
        phase,
        _word(members.get("code")),
        _word(members.get("fault")),
        status if isinstance(status, int) and 0 <= status < 1000 else 500,
        document.body,
    )


@frozen
class PostgresFailures:
    """Failure documents in Postgres. What each method means is said in `tables.FailureTable`."""

    connection: asyncpg.Connection

    INSERT = """
        INSERT INTO failures (id, task_guid, process_guid, index, instance_guid, cell_id, domain, request_id, phase,
                              code, fault, status, document, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp())
        ON CONFLICT (id) DO NOTHING
    """

    async def insert(self, document: Document, phase: str, row: ActualLRP | Task | None) -> None:
        await self.connection.execute(self.INSERT, *columns_of(document, phase, row))

    async def insert_many(self, found: Sequence[tuple[Document, str, ActualLRP | Task | None]]) -> None:
        await self.connection.executemany(self.INSERT, [columns_of(*one) for one in found])

    GET = "SELECT * FROM failures WHERE id = $1"

    async def get(self, id: str) -> FailureRecord | None:
        row = await self.connection.fetchrow(self.GET, id)
        return None if row is None else _record(row)

    GET_DOCUMENT = "SELECT document FROM failures WHERE id = $1"

    async def get_document(self, id: str) -> bytes | None:
        document: bytes | None = await self.connection.fetchval(self.GET_DOCUMENT, id)
        return document

    LIST_PAGE = """
        SELECT * FROM failures
        WHERE (created_at, id) < (COALESCE($1::timestamptz, 'infinity'), $2)
          AND ($3::text IS NULL OR process_guid = $3) AND ($4::text IS NULL OR domain = $4)
          AND ($5::text IS NULL OR code = $5) AND ($6::text IS NULL OR task_guid = $6)
        ORDER BY created_at DESC, id DESC LIMIT $7
    """

    async def list_page(
        self, wanted: Filter, after: tuple[datetime, str] | None = None, limit: int = 500
    ) -> list[FailureRecord]:
        at, id = after or (None, "")
        filters = (wanted.process_guid, wanted.domain, wanted.code, wanted.task_guid)
        rows = await self.connection.fetch(self.LIST_PAGE, at, id, *filters, limit)
        return [_record(row) for row in rows]

    LAST_ON_A_CELL = """
        SELECT cell_id, instance_guid FROM failures
        WHERE process_guid = $1 AND index = $2 AND cell_id IS NOT NULL AND instance_guid IS NOT NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    """

    async def last_on_a_cell(self, process_guid: str, index: int) -> tuple[CellId, InstanceGuid] | None:
        row = await self.connection.fetchrow(self.LAST_ON_A_CELL, process_guid, index)
        return None if row is None else (row["cell_id"], row["instance_guid"])

    PRUNE = """
        DELETE FROM failures WHERE id IN (
            SELECT id FROM failures WHERE created_at < now() - interval '30 days' ORDER BY created_at LIMIT $1
        )
    """

    async def prune(self) -> None:
        await self.connection.execute(self.PRUNE, PRUNE_ROWS)


def cursor_of(failure: FailureRecord) -> tuple[datetime, str]:
    """Where a list goes on behind this one."""
    return failure.created_at, failure.id


def _word(value: object) -> str:
    return str(value or "").replace("\0", "")[:CODE_CHARACTERS_MAX]


def _record(row: asyncpg.Record) -> FailureRecord:
    members = {name: value for name, value in row.items() if name != "document"}
    return FailureRecord(document=msgspec.json.decode(row["document"], type=dict[str, Any]), **members)
