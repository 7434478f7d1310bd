"""A whole installation in the test's own process, nothing of it fake: Postgres, a BBS, cells, gardens, the kernel.

In one process, so that a test can reach into a part and make it fail; every hop is still an HTTP request.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Self

import aiohttp
import asyncpg
from attrs import define, evolve, field

from bbs import app as bbs_app
from bbs.config import BbsConfig
from cells import app as cells_app
from cells.config import CellConfig
from cells.garden.garden import Garden
from diego_py.embedded import host_sweep
from diego_py.embedded.cluster_layout import CellLayout, cell_layout, claim_slot, release_slot
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger
from diego_py.service.run import Process
from tests.chain.answers import Answer
from tests.chain.awaited import until_true
from tests.kernel.registry import ALLOWED

NEVER_S = 3_600.0
"""Convergence does not interfere with what a test looks at."""


@define
class Node:
    """One cell and its parts."""

    layout: CellLayout
    config: CellConfig
    garden: Garden
    cell: cells_app.Cell
    log: StringIO
    process: Process
    _running: AsyncExitStack = field(factory=AsyncExitStack, init=False)

    @property
    def id(self) -> str:
        return self.layout.cell_id

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.cell.listener.port}"

    async def start(self) -> None:
        """Start all parts; returns when the BBS has taken the first report, which the cell sends by itself."""
        for part in self.cell.parts:
            self._running.push_async_callback(part.stop)
            await part.start()
        await until_true(f"a report of {self.id} was taken", self.cell.work.admission.lease.held)

    async def stop(self) -> None:
        """Stop all parts; containers run on."""
        await self._running.aclose()

    async def report(self) -> None:
        """Tell the BBS now what the cell has."""
        await self.cell.sync.report()


@define
class Installation:
    """One BBS and its cells. Starts nothing by itself but the HTTP client of the test."""

    state_dir: Path
    image_root: Path
    dsn: str
    bbs_log: StringIO = field(factory=StringIO)
    nodes: dict[str, Node] = field(factory=dict)
    bbs: bbs_app.Bbs = field(init=False)
    process: Process = field(init=False)
    _session: aiohttp.ClientSession = field(init=False)
    _bbs_running: AsyncExitStack = field(factory=AsyncExitStack, init=False)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._session, self._bbs_running:
            for node in self.nodes.values():
                await node.stop()
        left = host_sweep.all_of([node.layout.names for node in self.nodes.values()], host_sweep.remove)
        assert not left, f"cannot be removed from the host: {[str(thing) for thing in left]}"
        release_slot(self.state_dir)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bbs.listener.port}"

    @property
    def log_text(self) -> str:
        """All that BBS and cells have logged."""
        return self.bbs_log.getvalue() + "".join(node.log.getvalue() for node in self.nodes.values())

    async def start_bbs(self, **changes: Any) -> None:
        quick = {"convergence_interval_s": NEVER_S, "stop_grace_s": 2.0, "route_grace_s": 0.25}
        settings = BbsConfig(dsn=self.dsn, listen_port=0, **quick)
        log = logger("bbs", settings.id, self.bbs_log)
        self.process = Process(log)
        self.bbs = bbs_app.build(evolve(settings, **changes), SystemClock(), log, self.process)
        for part in self.bbs.parts:
            self._bbs_running.push_async_callback(part.stop)
            await part.start()

    async def stop_bbs(self) -> None:
        await self._bbs_running.aclose()

    async def start_cell(self, number: int = 1, **changes: Any) -> Node:
        """Start cell `number` and have it reported."""
        node = self.make_cell(number, **changes)
        await node.start()
        return node

    def make_cell(self, number: int, **changes: Any) -> Node:
        layout = cell_layout(self.state_dir, claim_slot(self.state_dir), number)
        layout.state_dir.mkdir(parents=True, exist_ok=True)
        for path in (layout.state_dir, layout.state_dir.parent):
            path.chmod(0o711)
        config = evolve(_cell_config(layout, self.url, self.image_root), **changes)
        log = StringIO()
        garden = Garden(config.garden(), SystemClock())
        events = logger("cell", config.cell_id, log)
        process = Process(events)
        cell = cells_app.build(config, garden, SystemClock(), events, process.defect)
        node = self.nodes[layout.cell_id] = Node(layout, config, garden, cell, log, process)
        return node

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> Answer:
        """Ask the BBS, or whoever is at `url`."""
        asked = (url or self.url) + path
        async with self._session.request(method, asked, json=body, headers=headers) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def desire(self, definition: object, query: str = "", **headers: str) -> Answer:
        """POST a definition. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("POST", f"/v1/desired_lrps{query}", definition, named)

    async def run_task(self, request: object, query: str = "", **headers: str) -> Answer:
        """POST a task. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("POST", f"/v1/tasks{query}", request, named)

    async def task(self, task_guid: str = "job") -> dict[str, Any]:
        """A task as the API tells it."""
        answer = await self.request("GET", f"/v1/tasks/{task_guid}")
        assert answer.status == 200, answer.body
        return answer.json

    async def row(self, process_guid: str, index: int = 0) -> dict[str, Any]:
        """An instance as the API tells it."""
        answer = await self.request("GET", f"/v1/actual_lrps/{process_guid}/{index}")
        assert answer.status == 200, answer.body
        return answer.json

    async def delete(self, process_guid: str) -> Answer:
        return await self.request("DELETE", f"/v1/desired_lrps/{process_guid}")

    async def failures(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.request("GET", "/v1/failures")).json["items"]
        return items

    async def let_presence_run_out(self, cell_id: str) -> None:
        """As if the cell had not reported for longer than its presence lasts, without waiting for that."""
        await self._expire_presence(cell_id, timedelta(seconds=-1))

    async def make_presence_last(self, cell_id: str) -> None:
        """As if the cell had just reported."""
        await self._expire_presence(cell_id, timedelta(hours=1))

    async def _expire_presence(self, cell_id: str, after: timedelta) -> None:
        await self.sql("UPDATE cells SET expires_at = now() + $2 WHERE cell_id = $1", cell_id, after)

    async def sql(self, statement: str, *arguments: object) -> None:
        """Change what is stored behind everybody's back."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    def left(self) -> list[str]:
        """All that is on the host because of containers."""
        names = [node.layout.names for node in self.nodes.values()]
        return [str(thing) for thing in host_sweep.all_of(names, host_sweep.of_containers)]

    def defects(self) -> list[str]:
        """Lines in which a process says that it met a defect of its own."""
        return [line for line in self.log_text.splitlines() if re.search(r'"event": "[a-z_]*defect', line)]


def _cell_config(layout: CellLayout, bbs_url: str, image_root: Path) -> CellConfig:
    return CellConfig(
        cell_id=layout.cell_id,  # type: ignore[arg-type]
        zone=f"z-{layout.cell_id}",
        listen_port=0,
        bbs_urls=(bbs_url,),
        state_dir=str(layout.state_dir),
        image_root=str(image_root),
        memory_mb=1024,
        disk_mb=4096,
        containers_max=20,
        network=layout.network,
        port_first=layout.port_first,
        port_count=64,
        id_base=layout.id_base,
        id_slots=32,
        sandboxes_ready=4,
        cgroup_parent=layout.names.cgroup_parent,
        interface_prefix=layout.names.interface_prefix,
        nft_table=layout.names.nft_table,
        report_interval_s=60.0,
        graceful_stop_s=2.0,
        stop_grace_s=2.0,
        allowed_registries=ALLOWED,
    )
