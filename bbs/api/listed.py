"""Long lists as every noun answers them: a page, or with NDJSON and no limit all of it, from one snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from bbs.api.paging import cursor_of, link_to, page_body, page_request, wants_lines
from bbs.store.listing import Listing
from bbs.store.lists import WHOLE_LIST_S, Lists, Selection, WholeList
from diego_py.call import Call
from diego_py.errors import SlowReader
from diego_py.http import conditional, headers
from diego_py.http.line_stream import NDJSON, LineStream
from diego_py.http.server import JSON


async def listed(
    request: web.Request, call: Call, lists: Lists, listing: Listing, key_types: Sequence[type]
) -> web.StreamResponse:
    """The rows that the query asks for; 304 if the caller has the same already. Raises InvalidHeader."""
    page = page_request(request, listing.filters, key_types)
    lines = wants_lines(request)
    whole = lines and "limit" not in request.query
    filters = {name: request.query[name] for name in listing.filters if name in request.query}
    limit = None if whole else page.limit
    selection = Selection(listing, filters, page.after, limit, NDJSON if lines else JSON)
    return await (_whole if whole else _page)(request, call, lists, selection)


async def _page(request: web.Request, call: Call, lists: Lists, selection: Selection) -> web.StreamResponse:
    if conditional.IF_NONE_MATCH in request.headers:
        tag = await lists.tag(call, selection)
        if conditional.is_known(request, tag):
            return conditional.not_modified(tag)
    lines = selection.media == NDJSON
    page = await lists.page(call, selection, lines=lines)
    cursor = cursor_of(page.last) if page.last is not None and page.count == selection.limit else None
    extra = {conditional.ETAG: page.tag, **link_to(request, cursor)}
    body = page.lines if lines else page_body(page.items, cursor)
    return web.Response(body=body, content_type=selection.media, headers=extra)


async def _whole(request: web.Request, call: Call, lists: Lists, selection: Selection) -> web.StreamResponse:
    """The snapshot ends before the end of the answer is sent, and when the reader takes nothing for too long."""
    if headers.BUDGET_MS not in request.headers:
        call = call.with_budget(WHOLE_LIST_S * 1000)
    async with lists.whole(call, selection) as whole:
        if conditional.is_known(request, whole.tag):
            return conditional.not_modified(whole.tag)
        stream = await LineStream.begin(request, call, {conditional.ETAG: whole.tag})
        try:
            async with asyncio.timeout(WHOLE_LIST_S) as limit:
                async for chunk in whole.chunks():
                    await stream.write(chunk, _so_far(whole))
        except TimeoutError as late:
            if not limit.expired():
                raise
            told = f"the whole list was not read within {WHOLE_LIST_S:g} s"
            raise SlowReader(told, evidence=_so_far(whole)) from late
    await stream.end()
    return stream.response


def _so_far(whole: WholeList) -> dict[str, Any]:
    """What the lines before a failure were, and where the list goes on behind them."""
    return {"rows": whole.rows, "cursor": None if whole.last is None else cursor_of(whole.last)}
