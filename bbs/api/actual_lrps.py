"""`/v1/actual_lrps`: what runs, instance by instance."""

from __future__ import annotations

from aiohttp import web
from attrs import define, frozen

from bbs.api.listed import listed
from bbs.api.log_stream import LOG_QUERY, log_query, stream_log
from bbs.api.paging import PAGING
from bbs.api.waiting import Waiting
from bbs.cell_pool import CellPool
from bbs.placement import Placement
from bbs.store.listing import ACTUAL_LRPS
from bbs.store.lists import Lists
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import (
    ActualLRPNotFound,
    ContainerNotFound,
    DesiredLRPNotFound,
    InvalidHeader,
    RequestFailed,
    RestartFailed,
    StopFailed,
)
from diego_py.http import headers
from diego_py.http.conditional import tagged
from diego_py.http.server import Route, answer, found
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid

INDEX_MAX = 2**31 - 1


@frozen(kw_only=True)
class ActualLRPPage:
    """Instances in order of process_guid and index."""

    items: tuple[ActualLRP, ...]
    next_cursor: str | None


@frozen(kw_only=True)
class StoppedInstance:
    """An instance whose container is gone."""

    process_guid: ProcessGuid
    index: int
    instance_guid: InstanceGuid | None


@define
class ActualLRPs:
    """Handlers of instances."""

    store: Store
    lists: Lists
    placement: Placement
    pool: CellPool
    waiting: Waiting
    start_budget_ms: float

    def routes(self) -> list[Route]:
        path = "/v1/actual_lrps/{process_guid}/{index}"
        return [
            Route(
                "GET",
                "/v1/actual_lrps",
                "list_actual_lrps",
                self.list,
                RequestFailed,
                gives=ActualLRPPage,
                query=(*ACTUAL_LRPS.filters, *PAGING),
            ),
            Route("GET", path, "get_actual_lrp", self.get, RequestFailed, gives=ActualLRP),
            Route("POST", path + "/restart", "restart_instance", self.restart, RestartFailed, gives=ActualLRP),
            Route("DELETE", path, "stop_instance", self.stop, StopFailed, gives=StoppedInstance),
            Route(
                "GET",
                path + "/logs",
                "instance_logs",
                self.logs,
                RequestFailed,
                counted=False,
                query=LOG_QUERY,
            ),
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Instances in order of process_guid and index; filters are ANDed."""
        state = request.query.get("state")
        if state is not None and state not in ActualLRPState.__members__:
            raise InvalidHeader(f"state takes one of {', '.join(ActualLRPState)}")
        return await listed(request, call, self.lists, ACTUAL_LRPS, (str, int, str))

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One instance, with the whole document of its last failure."""
        return tagged(request, answer(await self._row(request, call)))

    async def restart(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Stop the instance and start it again; answers when the new one runs."""
        preferences = headers.preferences_from(request.headers)
        guid, index = _key(request)
        desired = await self.store.read(call, "get_desired_lrp", lambda tx: tx.desired_lrps.get(guid))
        desired = found(desired, DesiredLRPNotFound(f"no desired LRP {guid[:200]}"))
        if headers.BUDGET_MS not in request.headers:
            call = call.with_budget(self.start_budget_ms + desired.definition.start_timeout_ms)

        async def restart() -> web.Response:
            return answer(await self.placement.restart(call, desired, index))

        return await self.waiting.answer(preferences, restart(), f"restart {guid}/{index}", request.path)

    async def stop(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Stop the instance; answers when its container is gone. As long as it is desired, a new one is made."""
        preferences = headers.preferences_from(request.headers)
        row = await self._row(request, call)

        async def stop() -> web.Response:
            await self.placement.stop(call, row)
            return answer(
                StoppedInstance(process_guid=row.process_guid, index=row.index, instance_guid=row.instance_guid)
            )

        name = f"stop {row.process_guid}/{row.index}"
        return await self.waiting.answer(preferences, stop(), name, request.path)

    async def logs(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The instance's log from its cell as NDJSON, also of one that ended; `follow=true` goes on until it ends."""
        log_query(request)
        cell_id, instance_guid = await self._where(call, await self._row(request, call))
        return await stream_log(request, call, self.pool, cell_id, instance_guid)

    async def _where(self, call: Call, row: ActualLRP) -> tuple[CellId, InstanceGuid]:
        """Cell and instance whose log is meant: the one that is there, else the last one that failed."""
        if row.cell_id is not None and row.instance_guid is not None:
            return row.cell_id, row.instance_guid
        last = await self.store.read(
            call, "last_failure", lambda tx: tx.failures.last_on_a_cell(row.process_guid, row.index)
        )
        last = found(last, ContainerNotFound(f"{row.process_guid}/{row.index} never ran on a cell"))
        return last

    async def _row(self, request: web.Request, call: Call) -> ActualLRP:
        guid, index = _key(request)
        row = await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(guid, index))
        return found(row, ActualLRPNotFound(f"no instance {guid[:200]}/{index}"))


def _key(request: web.Request) -> tuple[ProcessGuid, int]:
    """The instance that the path names. Raises ActualLRPNotFound for an index that cannot exist."""
    guid, index = request.match_info["process_guid"], request.match_info["index"]
    if not (index.isascii() and index.isdigit() and len(index) < 11 and int(index) <= INDEX_MAX):
        raise ActualLRPNotFound("an instance's index is a whole number from 0")
    return ProcessGuid(guid), int(index)
