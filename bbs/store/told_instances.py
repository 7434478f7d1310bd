"""Instances with all that is told of them on Diego's wire, for who reads very many of them again and again.

A row, the labels of its LRP, what the LRP asks for if no cell fitted, and the document of its failure, all of one
moment; and a hash of that, which costs less to read than what it is of. No model is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

import asyncpg
from attrs import frozen

from bbs.store.actual_lrps import Cursor


class Mark(NamedTuple):
    """Which instance, and a hash of all that is told of it: another one if anything of that is another."""

    place: Cursor
    """process_guid, index and presence: lists are in this order."""
    state: str
    version: int


class ToldInstance(NamedTuple):
    """An instance as it is stored."""

    mark: Mark
    domain: str
    instance_guid: str | None
    cell_id: str | None
    net_info: bytes | None
    since: datetime
    crash_count: int
    crash_reason: str | None
    placement_error: str | None
    routable: bool
    availability_zone: str
    tag_epoch: str
    tag_index: int
    labels: bytes | None
    """While it runs: what was told of itself, or else of its LRP. None: neither is known."""
    placement_tags: Sequence[str] | None
    """That its LRP asks for, if it was not placed."""
    document: bytes | None
    """Of its failure."""


@frozen(kw_only=True)
class Wanted:
    """Which instances; what is None does not matter."""

    process_guids: Sequence[str] | None = None
    domain: str | None = None
    cell_id: str | None = None
    after: Cursor | None = None
    """Behind this one."""
    until: Cursor | None = None
    """Up to this one, with it."""

    def filters(self) -> dict[str, tuple[Any, ...]]:
        """The values of each condition that matters."""
        known = {
            "process_guids": (self.process_guids,),
            "domain": (self.domain,),
            "cell_id": (self.cell_id,),
            "after": self.after,
            "until": self.until,
        }
        return {name: values for name, values in known.items() if values is not None and values != (None,)}


_KEY: Final = "process_guid, index, presence"
_CONDITIONS: Final = {
    "process_guids": "process_guid = ANY({}::text[])",
    "domain": "domain = {}",
    "cell_id": "cell_id = {}",
    "after": f"({_KEY}) > ({{}}, {{}}, {{}})",
    "until": f"({_KEY}) <= ({{}}, {{}}, {{}})",
}
# Looked up row by row, of the rows of a page alone: no plan for a page reads another table whole.
_BESIDES: Final = """
    CASE WHEN state = 'RUNNING' THEN coalesce(
        labels, (SELECT desired_lrps.labels FROM desired_lrps WHERE desired_lrps.process_guid = lrp.process_guid)
    ) END AS labels_told,
    CASE WHEN placement_error IS NOT NULL THEN (
        SELECT placement_tags FROM desired_lrps WHERE desired_lrps.process_guid = lrp.process_guid
    ) END AS tags_told,
    EXISTS (SELECT FROM failures WHERE id = failure_id) AS explained
"""
_MARK: Final = f"{_KEY}, state, hash_record_extended(told, (SELECT seed FROM list_tags))"
_TOLD: Final = f"""
    {_MARK}, domain, instance_guid, cell_id, net_info, since, crash_count, crash_reason, placement_error, routable,
    availability_zone, tag_epoch, tag_index, labels_told, tags_told,
    (SELECT document FROM failures WHERE id = failure_id)
"""


@cache
def _statement(columns: str, given: tuple[str, ...]) -> str:
    """A page, for each set of filters by itself, so that it can have the plan that fits it."""
    where = "WHERE " + " AND ".join(_CONDITIONS[name] for name in given) if given else ""
    page = f"SELECT * FROM actual_lrps {where} ORDER BY {_KEY} LIMIT {{}}"
    page = page.format(*(f"${number}" for number in range(1, page.count("{}") + 1)))
    told = f"SELECT lrp.*, {_BESIDES} FROM ({page}) AS lrp OFFSET 0"
    return f"SELECT {columns} FROM ({told}) AS told ORDER BY {_KEY}"


@frozen
class PostgresToldInstances:
    """Instances out of Postgres. What each method means is said in `tables.ToldInstances`."""

    connection: asyncpg.Connection

    async def list_marks(self, wanted: Wanted, limit: int | None = None) -> list[Mark]:
        return [Mark(row[:3], row[3], row[4]) for row in await self._page(_MARK, wanted, limit)]

    async def list_page(self, wanted: Wanted, limit: int | None = None) -> list[ToldInstance]:
        rows = await self._page(_TOLD, wanted, limit)
        return [ToldInstance(Mark(row[:3], row[3], row[4]), *row[5:]) for row in rows]

    async def _page(self, columns: str, wanted: Wanted, limit: int | None) -> list[asyncpg.Record]:
        filters = wanted.filters()
        values = [value for values in filters.values() for value in values]
        rows: list[asyncpg.Record] = await self.connection.fetch(_statement(columns, tuple(filters)), *values, limit)
        return rows
