"""What a BBS asks of cells. The client of `diego_py` is one answer, the simulation's another."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp

from diego_py.call import Call
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task_work import TaskWork
from diego_py.models.work import CellReport, Draining, EgressChange, Started, Stopped, TaskStarted, Work


class CellCalls(Protocol):
    """The calls to the cell that listens at `url`. Each raises what the cell raised, or HopUnreachable."""

    async def run(self, call: Call, cell_id: CellId, url: str, work: Work, attempt: int) -> Started:
        """Have the cell run an instance; returns when it is RUNNING."""

    async def stop(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an instance; returns when its container is gone."""

    async def set_egress(
        self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid, change: EgressChange
    ) -> None:
        """Have the cell change what an instance may reach; returns when it is so."""

    async def drain(self, call: Call, cell_id: CellId, url: str, draining: bool) -> Draining:
        """Have the cell take no new work, or take it again."""

    async def run_task(self, call: Call, cell_id: CellId, url: str, work: TaskWork, attempt: int) -> TaskStarted:
        """Have the cell run a task; returns when a process of it was started."""

    async def stop_task(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        """Have the cell stop an attempt at a task; returns when its container is gone."""

    async def state(self, call: Call, cell_id: CellId, url: str) -> CellReport:
        """What the cell has now."""

    def logs(
        self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid, query: str
    ) -> AbstractAsyncContextManager[aiohttp.StreamReader]:
        """The log of an instance as NDJSON."""
