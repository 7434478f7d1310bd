"""Logs of containers, passed on from their cells as NDJSON."""

from __future__ import annotations

from aiohttp import web

from bbs.api.paging import whole_number
from bbs.cell_pool import CellPool
from diego_py.call import Call
from diego_py.errors import InvalidHeader
from diego_py.http import headers
from diego_py.http.runner import while_there
from diego_py.models.identifiers import CellId, InstanceGuid

LOG_LINES = 200
LOG_LINES_MAX = 100_000
LOG_QUERY = ("tail", "follow")


def log_query(request: web.Request) -> str:
    """What of a log is wanted. Raises InvalidHeader."""
    tail = whole_number(request, "tail", LOG_LINES, 0, LOG_LINES_MAX)
    follow = request.query.get("follow", "false")
    if follow not in ("true", "false"):
        raise InvalidHeader("follow takes true or false")
    return f"tail={tail}&follow={follow}"


async def stream_log(
    request: web.Request, call: Call, pool: CellPool, cell_id: CellId, instance_guid: InstanceGuid
) -> web.StreamResponse:
    """The log of a container, there or gone; `follow=true` goes on until it ends, or its reader leaves."""
    async with pool.logs(call, cell_id, instance_guid, log_query(request)) as content:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", **headers.identity(call)})
        await response.prepare(request)
        async with while_there(request):
            async for chunk in content.iter_any():
                await response.write(chunk)
            await response.write_eof()
    return response
