"""The BBS's client of a cell's rep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
from attrs import define, evolve, field

from diego_py import wire
from diego_py.call import Call
from diego_py.clients.answered import decoded
from diego_py.clients.cell_works import CellWorks
from diego_py.errors import DiegoError
from diego_py.http.client import HopClient, Peer
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task_work import TaskWork
from diego_py.models.work import CellReport, Drain, Draining, EgressChange, Started, Stopped, TaskStarted, Work


@define
class CellClient:
    """Typed calls; each raises what the cell raised, frame by frame."""

    http: HopClient
    _works: CellWorks = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._works = CellWorks(self.http)

    async def run(self, call: Call, cell_id: CellId, url: str, work: Work, attempt: int) -> Started:
        """Have the cell run an instance; returns when it is RUNNING. The cell's frame carries the attempt."""
        with _attempt(attempt):
            return await self._works.run(call, Peer("rep", cell_id, url), work)

    async def run_task(self, call: Call, cell_id: CellId, url: str, work: TaskWork, attempt: int) -> TaskStarted:
        """Have the cell run a task; returns when a process of it was started. The cell's frame carries the attempt."""
        peer, body = Peer("rep", cell_id, url), wire.encode_revealed(work)
        with _attempt(attempt):
            answer = await self.http.request(call, peer, "POST", "/v1/tasks", body, op="run_task")
        return decoded(TaskStarted, answer.body)

    async def stop_task(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an attempt at a task; returns when its container is gone."""
        path = f"/v1/tasks/{instance_guid}/stop"
        answer = await self.http.request(call, Peer("rep", cell_id, url), "POST", path, b"{}", op="stop_task")
        return decoded(Stopped, answer.body)

    async def stop(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an instance; returns when its container is gone."""
        path = f"/v1/instances/{instance_guid}/stop"
        answer = await self.http.request(call, Peer("rep", cell_id, url), "POST", path, b"{}", op="stop_instance")
        return decoded(Stopped, answer.body)

    async def set_egress(
        self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid, change: EgressChange
    ) -> None:
        """Have the cell change what an instance may reach; returns when it is so."""
        body = wire.encode(change)
        path = f"/v1/instances/{instance_guid}/egress"
        await self.http.request(call, Peer("rep", cell_id, url), "PUT", path, body, op="set_egress")

    async def drain(self, call: Call, cell_id: CellId, url: str, draining: bool) -> Draining:
        """Have the cell take no new work, or take it again."""
        body = wire.encode(Drain(draining=draining))
        answer = await self.http.request(call, Peer("rep", cell_id, url), "POST", "/v1/drain", body, op="drain")
        return decoded(Draining, answer.body)

    async def state(self, call: Call, cell_id: CellId, url: str) -> CellReport:
        """What the cell has now."""
        answer = await self.http.request(call, Peer("rep", cell_id, url), "GET", "/v1/state", op="state")
        return decoded(CellReport, answer.body)

    @asynccontextmanager
    async def logs(
        self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid, query: str
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The log of an instance as NDJSON."""
        path = f"/v1/instances/{instance_guid}/logs?{query}"
        async with self.http.stream(call, Peer("rep", cell_id, url), path) as content:
            yield content


@contextmanager
def _attempt(number: int) -> Iterator[None]:
    """What fails inside has the number of the attempt in its frame."""
    try:
        yield
    except DiegoError as error:
        if error.frame is not None:
            error.frame = evolve(error.frame, attempt=number)
        raise
