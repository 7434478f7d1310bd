"""The rep's routes: parse, call, answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog
from aiohttp import web
from attrs import define

from cells.executor.backend import ContainerBackend
from cells.garden.spec import LogLine
from cells.rep import translate, work_parts
from cells.rep.admission import Admission
from cells.rep.books import Books
from cells.rep.diego_state import diego_state
from cells.rep.evacuation import Evacuation
from cells.rep.sync import Sync
from cells.rep.task_work import CellTaskWork
from cells.rep.work import CellWork
from diego_py import wire
from diego_py.call import Call
from diego_py.errors import ContainerNotFound, DiegoError, InvalidHeader, RepFailed
from diego_py.http import headers
from diego_py.http.parts import Parts
from diego_py.http.runner import while_there
from diego_py.http.server import Route, answer, decode, decode_told, invalid_fields, read_json
from diego_py.models import validation
from diego_py.models.identifiers import InstanceGuid, is_guid
from diego_py.models.task_work import TaskWork
from diego_py.models.work import Drain, Draining, EgressChange, Evacuate, Works

NDJSON = "application/x-ndjson"
TAIL_DEFAULT = 100
TAIL_MAX = 100_000


@define
class RepApi:
    """The handlers."""

    work: CellWork
    task_work: CellTaskWork
    sync: Sync
    admission: Admission
    evacuation: Evacuation
    books: Books
    garden: ContainerBackend
    log: structlog.stdlib.BoundLogger

    def routes(self) -> list[Route]:
        path = "/v1/instances/{instance_guid}"
        return [
            Route("GET", "/v1/state", "state", self.state, RepFailed, counted=False),
            Route("GET", "/state", "diego_state", self.diego_state, RepFailed, counted=False),
            Route("POST", "/v1/instances", "run_instance", self.run, RepFailed, counted=False),
            Route("POST", f"{path}/stop", "stop_instance", self.stop, RepFailed, counted=False),
            Route("PUT", f"{path}/egress", "set_egress", self.set_egress, RepFailed),
            Route("POST", "/v1/tasks", "run_task", self.run_task, RepFailed),
            Route("POST", "/v1/tasks/{instance_guid}/stop", "stop_task", self.stop_task, RepFailed, counted=False),
            Route("GET", f"{path}/logs", "logs", self.logs, RepFailed, counted=False),
            Route("GET", "/v1/containers", "list_containers", self.containers, RepFailed),
            Route("POST", "/v1/drain", "drain", self.drain, RepFailed, counted=False),
            Route("POST", "/v1/evacuate", "evacuate", self.evacuate, RepFailed, counted=False),
        ]

    async def state(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What the next report would say."""
        return answer(self.sync.snapshot())

    async def diego_state(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The same as Diego's cells tell it, for tools that know no other."""
        return answer(diego_state(self.sync.snapshot(), self.books.identity, self.books.failed_tasks()))

    async def run(self, request: web.Request, call: Call) -> Parts:
        """Instances side by side; each is given when it is RUNNING."""
        return Parts(work_parts.parts_of(decode_told(Works, await read_json(request)), self.work, call.clock))

    async def stop(self, request: web.Request, call: Call) -> web.StreamResponse:
        """200 when the container is gone. Idempotent."""
        return answer(await self.work.stop_instance(call, _guid(request)))

    async def set_egress(self, request: web.Request, call: Call) -> web.StreamResponse:
        """200 when the instance may reach what these rules say, and nothing that only the former ones said."""
        change = decode(EgressChange, await read_json(request))
        if bad := validation.validate(change):
            raise invalid_fields(bad)
        await self.work.set_egress(call, _guid(request), change)
        return answer(change)

    async def run_task(self, request: web.Request, call: Call) -> web.StreamResponse:
        """201 when a process of the task was started."""
        work = decode(TaskWork, await read_json(request))
        return answer(await self.task_work.run_task(call, work), status=201)

    async def stop_task(self, request: web.Request, call: Call) -> web.StreamResponse:
        """200 when the task's container is gone. Idempotent."""
        return answer(await self.task_work.stop_task(call, _guid(request)))

    async def containers(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Every container, as garden has it, with what it uses."""
        found = self.garden.containers()
        return answer({"items": [translate.describe(one, self.garden.usage(one.handle)) for one in found]})

    async def drain(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Take no new work, or take it again, also after a restart. Instances that run are left alone."""
        self.admission.drain.set(decode(Drain, await read_json(request)).draining)
        self.books.changed.set()
        instances, tasks = len(self.books.instances), len(self.books.tasks)
        return answer(Draining(draining=self.admission.drain.on, instances=instances, tasks=tasks))

    async def evacuate(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Have a BBS move all instances elsewhere and give us no new ones; answers when the cell is empty."""
        timeout_s = decode(Evacuate, await read_json(request)).timeout_s
        moved = await self.evacuation.evacuate(timeout_s)
        return answer({"draining": self.admission.drain.on, "moved": moved})

    async def logs(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One JSON object a line; also of a container that is gone. With `follow`, until it is or the reader leaves."""
        guid = _guid(request)
        lines = self.garden.logs(guid, _tail(request), _follow(request))
        response = web.StreamResponse(headers={"Content-Type": NDJSON, **headers.identity(call)})
        await response.prepare(request)
        with suppress(ConnectionError):
            async with while_there(request):
                await self._send(response, lines, guid)
        return response

    async def _send(self, response: web.StreamResponse, lines: AsyncIterator[LogLine], guid: str) -> None:
        """The head is out: what fails now can only end the stream early, and is told in the log."""
        try:
            async for line in lines:
                told = {"at": line.at, "stream": line.stream, "text": line.text}
                text = wire.to_builtins({**told, "source": line.source} if line.source else told)
                await response.write(json.dumps(text, ensure_ascii=False).encode(errors="replace") + b"\n")
        except DiegoError as failure:
            self.log.warning("log_stream_failed", handle=guid, code=failure.root.code)
        await response.write_eof()


def _guid(request: web.Request) -> InstanceGuid:
    guid = request.match_info["instance_guid"]
    if not is_guid(guid):
        raise ContainerNotFound("no container has a name like this")
    return InstanceGuid(guid)


def _tail(request: web.Request) -> int:
    text = request.query.get("tail", str(TAIL_DEFAULT))
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) > TAIL_MAX:
        raise InvalidHeader(f"tail takes a number of lines from 0 to {TAIL_MAX}")
    return int(text)


def _follow(request: web.Request) -> bool:
    text = request.query.get("follow", "false")
    if text not in ("true", "false"):
        raise InvalidHeader("follow takes true or false")
    return text == "true"
