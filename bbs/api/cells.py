"""`/v1/cells`: the cells, and the reports and heartbeats by which each one keeps itself known."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from attrs import define, evolve, frozen

from bbs.api.desired_lrps import valid
from bbs.api.paging import PAGING, short_list, whole_number
from bbs.api.waiting import Waiting
from bbs.cell_pool import CellPool
from bbs.evacuation import ANSWER_S, EVACUATION_TIMEOUT_S, EVACUATION_TIMEOUT_S_MAX, Evacuation
from bbs.heartbeats import Heartbeats
from bbs.lifecycle import REPORTS_MAX, Lifecycle
from bbs.pace import NOT_RENEWED
from bbs.store.cells import CellRecord
from bbs.store.transaction import Store
from bbs.task_callbacks import TaskCallbacks
from diego_py.call import Call
from diego_py.errors import CellNotFound, ConflictError, EvacuationFailed, InvalidSpec, RequestFailed
from diego_py.http import headers
from diego_py.http.conditional import tagged
from diego_py.http.server import Route, answer, decode_told, found, read_json
from diego_py.models.cell import CellCapacity, RootfsProvider
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.work import (
    AvailableResources,
    CellReport,
    EvacuatedCell,
    Heartbeat,
    HeartbeatAnswer,
    ReportAnswer,
)


@frozen(kw_only=True)
class CellStatus:
    """A cell as the API shows it."""

    cell_id: CellId
    live: bool
    draining: bool
    zone: str
    url: str
    address: str
    capacity: CellCapacity
    available: AvailableResources
    instances: int
    rootfs_provider_list: tuple[RootfsProvider, ...]
    images: tuple[str, ...]
    """Fetched and unpacked there: the auction prefers it for them, a little."""
    placement_tags: tuple[str, ...]
    optional_placement_tags: tuple[str, ...]
    privileged: bool
    """Takes work that is privileged."""
    volume_drivers: tuple[str, ...]
    boot_id: str
    seen_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, record: CellRecord) -> CellStatus:
        presence = record.presence
        return cls(
            cell_id=presence.cell_id,
            live=record.live,
            draining=presence.draining,
            zone=presence.zone,
            url=presence.url,
            address=presence.address,
            capacity=presence.capacity,
            available=record.available,
            instances=presence.capacity.containers - record.available.containers,
            rootfs_provider_list=presence.rootfs_provider_list,
            images=presence.images,
            placement_tags=presence.placement_tags,
            optional_placement_tags=presence.optional_placement_tags,
            privileged=presence.privileged,
            volume_drivers=presence.volume_drivers,
            boot_id=presence.boot_id,
            seen_at=record.seen_at,
            expires_at=record.expires_at,
        )


@frozen(kw_only=True)
class CellPage:
    """Cells in order of their ids."""

    items: tuple[CellStatus, ...]
    next_cursor: str | None


@define
class Cells:
    """Handlers of cells."""

    store: Store
    lifecycle: Lifecycle
    heartbeats: Heartbeats
    pool: CellPool
    callbacks: TaskCallbacks
    evacuation: Evacuation
    waiting: Waiting

    def routes(self) -> list[Route]:
        path = "/v1/cells/{cell_id}"
        return [
            # First, for paths are tried in turn, and nothing is asked as often.
            Route(
                "POST",
                path + "/heartbeat",
                "cell_heartbeat",
                self.heartbeat,
                RequestFailed,
                counted=False,
                light=True,
                takes=Heartbeat,
                gives=HeartbeatAnswer,
            ),
            Route("GET", "/v1/cells", "list_cells", self.list, RequestFailed, gives=CellPage, query=PAGING),
            Route("GET", path, "get_cell", self.get, RequestFailed, gives=CellStatus),
            Route("DELETE", path, "forget_cell", self.forget, RequestFailed),
            Route(
                "POST",
                path + "/evacuate",
                "evacuate_cell",
                self.evacuate,
                EvacuationFailed,
                gives=EvacuatedCell,
                query=("timeout_s",),
            ),
            Route("POST", path + "/readmit", "readmit_cell", self.readmit, RequestFailed),
            Route(
                "POST",
                path + "/report",
                "cell_report",
                self.report,
                RequestFailed,
                counted=False,
                takes=CellReport,
                gives=ReportAnswer,
            ),
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """All cells, live ones and those whose presence ran out."""
        records = await self.store.read(call, "list_cells", lambda tx: tx.cells.list_all())
        return short_list(request, [CellStatus.of(record) for record in records], lambda cell: (cell.cell_id,), (str,))

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One cell."""
        cell_id = CellId(request.match_info["cell_id"])
        record = await self.store.read(call, "get_cell", lambda tx: tx.cells.get(cell_id))
        return tagged(request, answer(CellStatus.of(found(record, CellNotFound(f"no cell {cell_id[:200]}")))))

    async def forget(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Forget a cell whose presence ran out. A live one is refused: it would be back with its next report."""
        cell_id = CellId(request.match_info["cell_id"])
        record = await self.store.read(call, "get_cell", lambda tx: tx.cells.get(cell_id))
        if found(record, CellNotFound(f"no cell {cell_id[:200]}")).live:
            raise ConflictError(f"cell {cell_id} is live; stop its process first")
        await self.store.run(call, "forget_cell", lambda tx: tx.cells.delete(cell_id))
        return answer({"cell_id": cell_id})

    async def evacuate(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Give the cell no new work and move all that it has elsewhere; answers when it is empty. Idempotent.

        What finds no place within `timeout_s` stays there and serves on; the cell goes on taking no work.
        """
        preferences = headers.preferences_from(request.headers)
        cell_id = await self._known(request, call)
        timeout_s = whole_number(request, "timeout_s", EVACUATION_TIMEOUT_S, 1, EVACUATION_TIMEOUT_S_MAX)
        if headers.BUDGET_MS not in request.headers:
            call = call.with_budget((timeout_s + 2 * ANSWER_S) * 1000)

        async def evacuate() -> web.Response:
            done = await self.evacuation.evacuate(call, cell_id, timeout_s)
            return answer(EvacuatedCell(cell_id=done.cell_id, moved=done.moved))

        location = f"/v1/cells/{cell_id}"
        return await self.waiting.answer(preferences, evacuate(), f"evacuate {cell_id}", location)

    async def readmit(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Give the cell work again."""
        cell_id = await self._known(request, call)
        await self.pool.drain(call, cell_id, False)
        return answer({"cell_id": cell_id, "draining": False})

    async def _known(self, request: web.Request, call: Call) -> CellId:
        cell_id = CellId(request.match_info["cell_id"])
        record = await self.store.read(call, "get_cell", lambda tx: tx.cells.get(cell_id))
        return found(record, CellNotFound(f"no cell {cell_id[:200]}")).cell_id

    async def report(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Renew the presence, take up what ran and ended, and tell the cell what to stop."""
        report = decode_told(CellReport, await read_json(request))
        # What it has is judged by the rows: they may be thousands.
        valid(evolve(report, instances=(), ended=(), tasks=()))
        if report.presence.cell_id != request.match_info["cell_id"]:
            raise InvalidSpec("the report is another cell's than the path says")
        outcome = await self.lifecycle.report(call, report)
        if outcome.accepted:
            self.pool.reported(report)
        for task in outcome.lost_tasks:
            self.callbacks.completed(task)
        return answer(
            ReportAnswer(
                stop=tuple(InstanceGuid(guid) for guid in outcome.stop),
                acknowledged=tuple(InstanceGuid(guid) for guid in outcome.acknowledged),
                presence_ttl_ms=_ms(outcome.term.ttl_s),
                pause_ms=_ms(outcome.term.pause_s),
                settled=outcome.settled,
            )
        )

    async def heartbeat(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Renew the presence of a cell that is as it said last.

        Whoever does not know what it said last, for another BBS was told or this one was started since, asks for all of
        it; but no more cells at once than whose reports are taken up together.
        """
        beat = valid(decode_told(Heartbeat, await read_json(request)))
        cell_id = CellId(request.match_info["cell_id"])
        term = await self.heartbeats.take_up(call, cell_id, beat)
        taken = term != NOT_RENEWED
        known = taken and self.pool.cells.repeated(cell_id, beat)
        whole = not taken or (not known and self.lifecycle.reports_waiting < REPORTS_MAX)
        times = {"presence_ttl_ms": _ms(term.ttl_s), "pause_ms": _ms(term.pause_s)}
        return answer(HeartbeatAnswer(taken=taken, whole=whole, **times))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
