"""Reading lists out of Postgres as JSON: pages, whole lists from a cursor in one snapshot, and the tags of both.

No model is made of a row. A snapshot keeps Postgres from vacuuming as long as it lasts, so whole lists are few at a
time, and each is read within a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from attrs import define, field, frozen

from bbs.store import listing as listings
from bbs.store.database import Database
from bbs.store.listing import Listing
from bbs.store.twins import ENCODER
from diego_py.call import Call
from diego_py.errors import Outcome, Saturated

WHOLE_LISTS_MAX: Final = 4
"""Read at once from one BBS. Each has a connection of its own for as long as it takes."""
WHOLE_LIST_S: Final = 120.0
"""How long one may take, however fast it is read."""
MARGIN_S: Final = 5.0
"""So much later the snapshot ends if nobody has ended it."""


@frozen
class Selection:
    """Which rows of a list."""

    listing: Listing
    filters: Mapping[str, str]
    """Values that columns must have."""
    after: tuple[Any, ...] | None = None
    """The key of the row before the first one."""
    limit: int | None = None
    media: str = ""
    """How they are told; part of the tag."""

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(name for name in self.listing.filters if name in self.filters)

    @property
    def values(self) -> tuple[Any, ...]:
        """Parameters of its statements, but for the limit."""
        return (*(self.filters[name] for name in self.given), *(self.after or ()))

    @property
    def behind(self) -> bool:
        return self.after is not None


@frozen
class Page:
    """Rows as JSON."""

    items: Sequence[bytes]
    """Members of a JSON list, some in each, separated by commas."""
    lines: bytes
    """The same as NDJSON, if that was asked for."""
    count: int
    last: tuple[Any, ...] | None
    """The key of the last row."""
    tag: str


@define
class WholeList:
    """All rows of a selection, of one moment."""

    selection: Selection
    tag: str
    connection: asyncpg.Connection
    rows: int = field(default=0, init=False)
    """Given out so far."""
    last: tuple[Any, ...] | None = field(default=None, init=False)
    """The key of the last row that was given out."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """NDJSON, some rows at a time."""
        selection, listing = self.selection, self.selection.listing
        statement = listings.stream_statement(listing, selection.given, selection.behind)
        cursor = await self.connection.cursor(statement, *selection.values)
        while records := await cursor.fetch(listing.together):
            chunk = listings.lines_of(listing, records)
            self.rows += len(records)
            self.last = listings.key_of(listing, records[-1])
            yield chunk


@define
class Lists:
    """Lists for the API."""

    database: Database
    _whole: int = field(default=0, init=False)

    async def tag(self, call: Call, selection: Selection) -> str:
        """The ETag that an answer would have now: all rows are looked at, and none is read."""
        return await self.database.read(call, "tag", lambda tx: _tag(tx.connection, selection))

    async def page(self, call: Call, selection: Selection, *, lines: bool) -> Page:
        """The rows of a limited selection."""
        listing = selection.listing
        statement = listings.page_statement(listing, selection.given, selection.behind)
        records = await self.database.read(
            call, listing.op, lambda tx: tx.connection.fetch(statement, *selection.values, selection.limit)
        )
        parts: list[bytes] = []
        for first in range(0, len(records), listing.together):
            some = listings.items_of(listing, records[first : first + listing.together])
            parts.append(ENCODER.encode_lines(some) if lines else ENCODER.encode(some)[1:-1])
            await asyncio.sleep(0)  # others get their turn between any two parts of a long page
        return Page(
            items=() if lines else parts,
            lines=b"".join(parts) if lines else b"",
            count=len(records),
            last=listings.key_of(listing, records[-1]) if records else None,
            tag=listings.page_tag(listing, selection.media, records),
        )

    @asynccontextmanager
    async def whole(self, call: Call, selection: Selection) -> AsyncIterator[WholeList]:
        """All rows of a selection, from one snapshot that lasts as long as the block.

        Raises Saturated when as many are read as may be.
        """
        if self._whole >= WHOLE_LISTS_MAX:
            told = f"{WHOLE_LISTS_MAX} whole lists are being read"
            raise Saturated(told, outcome=Outcome.NOT_STARTED, retry_after_s=1.0)
        self._whole += 1
        try:
            async with self.database.lasting_snapshot(call, selection.listing.op, WHOLE_LIST_S + MARGIN_S) as tx:
                yield WholeList(selection, await _tag(tx.connection, selection), tx.connection)
        finally:
            self._whole -= 1


async def _tag(connection: asyncpg.Connection, selection: Selection) -> str:
    listing, limited = selection.listing, selection.limit is not None
    statement = listings.tag_statement(listing, selection.given, selection.behind, limited)
    row = await connection.fetchrow(statement, *selection.values, *((selection.limit,) if limited else ()))
    return listings.tag_of(listing, selection.media, row[0], row[1])
