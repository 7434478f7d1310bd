"""A BBS on loopback that keeps LRPs in memory and fails as it is told: for tests of the client and the command."""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from attrs import define, evolve, field

from diego_py import wire
from diego_py.call import Call
from diego_py.errors import (
    CellNotFound,
    DesiredLRPNotFound,
    DesireFailed,
    DiegoError,
    EvacuationFailed,
    RequestFailed,
)
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import HopServer, Route, answer, decode
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, PortMapping
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.workload import ModificationTag
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger
from tests.unit.diego_py.clients.fake_tasks import FakeTasks

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TAG = ModificationTag(epoch="e", index=1)


@define
class FakeBbs:
    """Answers as the API says. `fails` is raised below the frames of an auction and a rep."""

    fails: DiegoError | None = None
    failures: list[dict[str, Any]] = field(factory=list)
    decided: list[dict[str, Any]] = field(factory=list)
    lines: list[dict[str, str]] = field(factory=list)
    page_items: int = 500
    of_tasks: FakeTasks = field(factory=FakeTasks)
    definitions: dict[str, DesiredLRPDefinition] = field(factory=dict, init=False)
    seen: list[tuple[str, str, dict[str, str]]] = field(factory=list, init=False)
    """Method, path with query, and headers of each request."""

    def application(self) -> web.Application:
        clock = SystemClock()
        server = HopServer(
            "bbs", "bbs-1", clock, logger("bbs", "fake", io.StringIO()), ServerMetrics(), 10, 2**20, 9_000
        )
        lrp, instance = "/v1/desired_lrps/{guid}", "/v1/actual_lrps/{guid}/{index}"
        return server.application(
            [
                Route("POST", "/v1/desired_lrps", "desire_lrp", self.desire, DesireFailed),
                Route("GET", "/v1/desired_lrps", "list", self.list, RequestFailed),
                Route("GET", lrp, "get", self.get, RequestFailed),
                Route("PUT", lrp, "replace", self.desire, RequestFailed),
                Route("PATCH", lrp, "update", self.update, RequestFailed),
                Route("DELETE", lrp, "delete", self.delete, RequestFailed),
                Route("GET", "/v1/actual_lrps", "list_instances", self.instances, RequestFailed),
                Route("POST", instance + "/restart", "restart", self.restart, RequestFailed),
                Route("DELETE", instance, "stop", self.stop, RequestFailed),
                Route("GET", instance + "/logs", "logs", self.logs, RequestFailed),
                Route("GET", "/v1/cells", "cells", self.cells, RequestFailed),
                Route("GET", "/v1/cells/{cell_id}", "cell", self.cell, RequestFailed),
                Route("GET", "/v1/decisions", "decisions", self.list_decisions, RequestFailed),
                Route("POST", "/v1/cells/{cell_id}/evacuate", "evacuate", self.evacuate, EvacuationFailed),
                Route("POST", "/v1/cells/{cell_id}/readmit", "readmit", self.readmit, RequestFailed),
                Route("GET", "/v1/failures", "failures", self.list_failures, RequestFailed),
                *self.of_tasks.routes(),
                Route("POST", "/v1/auctions/dry_run", "dry_run", self.dry_run, RequestFailed),
            ]
        )

    async def desire(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        definition = decode(DesiredLRPDefinition, await request.read())
        if self.fails is not None:
            with (
                call.hop("auction", "bbs-1", "place", DesireFailed) as inner,
                inner.hop("rep", "cell-1", "run_instance", DesireFailed, attempt=1),
            ):
                raise self.fails
        self.definitions[definition.process_guid] = definition
        if "respond-async" in request.headers.get("Prefer", ""):
            location = f"/v1/desired_lrps/{definition.process_guid}"
            return answer({"status": "in_progress"}, 202, {"Location": location})
        return answer(self._placed(definition), 201)

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        first = int(request.query.get("cursor", "0"))
        every = [_desired(one) for one in self.definitions.values()]
        last = first + self.page_items
        return answer({"items": every[first:last], "next_cursor": str(last) if last < len(every) else None})

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(_desired(self._find(request)))

    async def update(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        change = decode(DesiredLRPUpdate, await request.read())
        definition = self.definitions[request.match_info["guid"]] = change.apply_to(self._find(request))
        return answer(self._placed(definition))

    async def delete(self, request: web.Request, call: Call) -> web.StreamResponse:
        definition = self._find(request)
        del self.definitions[definition.process_guid]
        return answer({"process_guid": definition.process_guid, "stopped": definition.instances})

    async def instances(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        wanted = request.query.get("process_guid")
        found = [one for one in self.definitions.values() if wanted in (None, one.process_guid)]
        items = [instance(one, index) for one in found for index in range(one.instances)]
        return answer({"items": items, "next_cursor": None})

    async def restart(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer(instance(self._find(request), int(request.match_info["index"])))

    async def stop(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._find(request)
        return answer({"index": int(request.match_info["index"])})

    async def logs(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        body = b"".join(wire.encode(line) + b"\n" for line in self.lines)
        return web.Response(body=body, content_type="application/x-ndjson")

    async def cell(self, request: web.Request, call: Call) -> web.StreamResponse:
        if request.match_info["cell_id"] != "cell-1":
            raise CellNotFound("no cell of that name")
        return answer(_cell())

    async def list_decisions(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        items = [item for item in self.decided if all(str(item.get(k)) == v for k, v in request.query.items())]
        at = datetime.now(UTC)
        return answer({"leader": "bbs-1:x", "epoch": 1, "decided_at": at, "valve": "", "items": items, "omitted": 0})

    async def cells(self, request: web.Request, call: Call) -> web.StreamResponse:
        return answer({"items": [_cell()], "next_cursor": None})

    async def evacuate(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        if self.fails is not None:
            raise self.fails
        return answer({"cell_id": request.match_info["cell_id"], "moved": 3})

    async def readmit(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        return answer({})

    async def list_failures(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._note(request)
        return answer({"items": self.failures, "next_cursor": None})

    async def dry_run(self, request: web.Request, call: Call) -> web.StreamResponse:
        decode(DesiredLRPDefinition, await request.read())
        told = {"need": {"memory_mb": 64}, "cells": 1, "verdicts": {"no_fit": 1}, "bids": []}
        return answer({"assignments": [{"index": 0, "cell_id": None, "placement": told}]})

    def _placed(self, definition: DesiredLRPDefinition) -> dict[str, Any]:
        rows = [instance(definition, index) for index in range(definition.instances)]
        return {"desired_lrp": _desired(definition), "actual_lrps": rows}

    def _find(self, request: web.Request) -> DesiredLRPDefinition:
        guid = request.match_info["guid"]
        if guid not in self.definitions:
            raise DesiredLRPNotFound(f"no desired LRP {guid}")
        return self.definitions[guid]

    def _note(self, request: web.Request) -> None:
        self.seen.append((request.method, request.path_qs, dict(request.headers)))


def _cell() -> dict[str, Any]:
    room = {"memory_mb": 100, "disk_mb": 200, "containers": 3}
    return {
        "cell_id": "cell-1",
        "zone": "z1",
        "url": "http://c1",
        "address": "192.0.2.1",
        "live": True,
        "draining": False,
        "capacity": room,
        "available": {**room, "memory_mb": 36},
        "instances": 1,
        "seen_at": NOW,
        "expires_at": NOW,
        "a_field_of_tomorrow": 1,
    }


def _desired(definition: DesiredLRPDefinition) -> DesiredLRP:
    return DesiredLRP(definition=definition, modification_tag=TAG, created_at=NOW, updated_at=NOW)


def instance(definition: DesiredLRPDefinition, index: int, **changes: Any) -> ActualLRP:
    """A running instance."""
    running = ActualLRP(
        process_guid=definition.process_guid,
        index=index,
        domain=definition.domain,
        state=ActualLRPState.RUNNING,
        instance_guid=InstanceGuid(f"i{index}"),
        cell_id=CellId("cell-1"),
        net_info=NetInfo(
            address="192.0.2.1",
            instance_address=f"10.0.0.{index + 2}",
            ports=(PortMapping(container_port=8080, host_port=61001 + index),),
        ),
        since=NOW,
        modification_tag=TAG,
    )
    return evolve(running, **changes)


@contextmanager
def serving(bbs: FakeBbs) -> Iterator[str]:
    """The URL of the fake, which runs in a thread of its own: the command under test has its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(bbs.application(), access_log=None)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
