"""Lists as every noun answers them: filters from the query, keyset cursors, JSON pages or NDJSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from attrs import frozen

from diego_py import wire
from diego_py.errors import InvalidHeader
from diego_py.http.conditional import tagged
from diego_py.http.line_stream import NDJSON
from diego_py.http.server import JSON

T = TypeVar("T")

PAGE_ITEMS = 500
PAGE_ITEMS_MAX = 5_000
CURSOR_BYTES_MAX = 1_000
PAGING = ("limit", "cursor")
"""Query parameters of every list."""
STORABLE: dict[type, Any] = {
    str: Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")],
    datetime: Annotated[datetime, msgspec.Meta(tz=True)],
    int: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)],
}
"""What Postgres can compare with a key column of this type: its text has no NUL, its integers are of 32 bits."""


@frozen
class PageRequest:
    """Which part of a list is wanted."""

    limit: int
    after: tuple[Any, ...] | None
    """The key of the last item of the page before; None for the first page."""


def page_request(request: web.Request, filters: Sequence[str], key_types: Sequence[type]) -> PageRequest:
    """The page that a query asks for. Raises InvalidHeader for parameters that are unknown or wrong."""
    unknown = request.query.keys() - {"limit", "cursor", *filters}
    if unknown:
        told = ", ".join(("limit", "cursor", *filters))
        raise InvalidHeader(f"unknown query parameter {sorted(unknown)[0][:80]!r}; this list takes {told}")
    limit = whole_number(request, "limit", PAGE_ITEMS, 1, PAGE_ITEMS_MAX)
    cursor = request.query.get("cursor")
    return PageRequest(limit, None if cursor is None else _key(cursor, key_types))


def short_list(
    request: web.Request, items: Sequence[T], key_of: Callable[[T], tuple[Any, ...]], key_types: Sequence[type]
) -> web.Response:
    """A list that is short enough to be read whole, sorted by its key: the page of it that the query asks for."""
    page = page_request(request, (), key_types)
    wanted = [item for item in items if page.after is None or key_of(item) > page.after]
    return page_answer(request, wanted[: page.limit], page, key_of)


def whole_number(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number from the query. Raises InvalidHeader when it is none or out of range."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        raise InvalidHeader(f"{name} takes a whole number from {low} to {high}")
    return int(text)


def page_answer(
    request: web.Request, items: Sequence[T], page: PageRequest, key_of: Callable[[T], tuple[Any, ...]]
) -> web.Response:
    """The page as JSON with `next_cursor` and a Link, or as NDJSON when the caller accepts that. 304 if he has it."""
    cursor = cursor_of(key_of(items[-1])) if len(items) == page.limit else None
    lines, encoded = wants_lines(request), [wire.encode(item) for item in items]
    body = b"".join(item + b"\n" for item in encoded) if lines else page_body(encoded, cursor)
    told = web.Response(body=body, content_type=NDJSON if lines else JSON, headers=link_to(request, cursor))
    return tagged(request, told)


def wants_lines(request: web.Request) -> bool:
    """Whether the caller takes NDJSON."""
    return request.headers.get("Accept") == NDJSON


def page_body(items: Sequence[bytes], cursor: str | None) -> bytes:
    """A page of items that are JSON already."""
    return b'{"items":[' + b",".join(items) + b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"


def link_to(request: web.Request, cursor: str | None) -> dict[str, str]:
    """The header that leads to the next page; none after the last one."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}


def cursor_of(key: tuple[Any, ...]) -> str:
    """Where a list goes on behind the item with this key, as the next request brings it back."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _key(cursor: str, key_types: Sequence[type]) -> tuple[Any, ...]:
    try:
        if len(cursor) > CURSOR_BYTES_MAX:
            raise ValueError
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=tuple[tuple(STORABLE[kind] for kind in key_types)])  # type: ignore[misc,no-any-return]
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidHeader("cursor is not one that this list gave out") from None
