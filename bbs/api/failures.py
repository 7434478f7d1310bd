"""`/v1/failures`: every failure document, kept for 30 days, also when its LRP and its cell are long gone."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from attrs import define

from bbs.api.listed import listed
from bbs.api.paging import PAGING
from bbs.store.listing import FAILURES
from bbs.store.lists import Lists
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import FailureNotFound, RequestFailed
from diego_py.http.conditional import tagged
from diego_py.http.server import JSON, Route, found


@define
class Failures:
    """Handlers of stored failures."""

    store: Store
    lists: Lists

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/failures", "list_failures", self.list, RequestFailed, query=(*FAILURES.filters, *PAGING)),
            Route("GET", "/v1/failures/{id}", "get_failure", self.get, RequestFailed),
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Failures, the newest first; filters are ANDed."""
        return await listed(request, call, self.lists, FAILURES, (datetime, str))

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One document, exactly as it was answered."""
        id = request.match_info["id"]
        stored = await self.store.read(call, "get_failure", lambda tx: tx.failures.get_document(id))
        document = found(stored, FailureNotFound(f"no failure {id[:200]}"))
        return tagged(request, web.Response(body=document, content_type=JSON))
