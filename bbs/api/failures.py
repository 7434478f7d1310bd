"""`/v1/failures`: every failure document, kept for 30 days, also when its LRP and its cell are long gone."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from attrs import define

from bbs.api.paging import PAGING, page_answer, page_request
from bbs.store import failures
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import FailureNotFound, RequestFailed
from diego_py.http.server import JSON, Route, found

FILTERS = ("process_guid", "task_guid", "domain", "code")


@define
class Failures:
    """Handlers of stored failures."""

    store: Store

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/failures", "list_failures", self.list, RequestFailed, query=(*FILTERS, *PAGING)),
            Route("GET", "/v1/failures/{id}", "get_failure", self.get, RequestFailed),
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Failures, the newest first; filters are ANDed."""
        page = page_request(request, FILTERS, (datetime, str))
        query = request.query
        wanted = failures.Filter(
            process_guid=query.get("process_guid"),
            task_guid=query.get("task_guid"),
            domain=query.get("domain"),
            code=query.get("code"),
        )
        items = await self.store.read(
            call, "list_failures", lambda tx: tx.failures.list_page(wanted, page.after, page.limit)
        )
        return page_answer(request, items, page, failures.cursor_of)

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One document, exactly as it was answered."""
        id = request.match_info["id"]
        stored = await self.store.read(call, "get_failure", lambda tx: tx.failures.get_document(id))
        return web.Response(body=found(stored, FailureNotFound(f"no failure {id[:200]}")), content_type=JSON)
