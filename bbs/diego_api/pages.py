"""Lists of very many rows: read in pages, so that other requests get their turn between two of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

Row = TypeVar("Row")
Cursor = TypeVar("Cursor")

PAGE: Final = 500
"""Rows read at once."""


async def pages(
    read: Callable[[Cursor | None], Awaitable[Sequence[Row]]], place_of: Callable[[Row], Cursor]
) -> AsyncIterator[Sequence[Row]]:
    """Every page that is not empty. `read`: at most PAGE rows, from the one behind a place on; None: from the first."""
    behind: Cursor | None = None
    while True:
        page = await read(behind)
        if page:
            yield page
        if len(page) < PAGE:
            return
        behind = place_of(page[-1])
