"""The composition root of a process of simulated cells: the product's rep, as often as wanted, around one socket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from random import Random

import structlog
from attrs import define, field

from cells import app
from cells.config import CellConfig
from cells.executor.checks.prober import Prober
from cells.executor.checks.result import CheckResult
from cells.garden.spec import Container
from cells.rep.api import RepApi
from cells.rep.lease import Lease
from cells.simulated import prefilled
from cells.simulated.conduct import Conduct
from cells.simulated.config import SimulationConfig
from cells.simulated.disk import MemoryDisk
from cells.simulated.garden import SimulatedGarden
from cells.simulated.listeners import CellClient, CellListener, SharedSocket
from cells.simulated.routes import SimulationRoutes
from diego_py.call import Call
from diego_py.errors import DiegoError, RepFailed
from diego_py.http.client import HopClient
from diego_py.http.listener import HttpListener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import HopServer
from diego_py.http.standard_routes import StandardRoutes
from diego_py.models.checks import Check
from diego_py.service.clock import Clock
from diego_py.service.run import Part, Process

STARTED_AT_ONCE_MAX = 64
"""Cells that report for the first time at once."""
CONNECTIONS_MAX = 512
"""Of all cells together to one BBS. Each heartbeat holds one for as long as the BBS gathers others, and there are a
thousand a second; a real cell has connections of its own."""


class ContentProber(Prober):
    """There is nobody in a simulated container to be asked: every check passes."""

    async def probe(self, call: Call, container: Container, check: Check) -> CheckResult:
        return CheckResult("simulated", container.handle, ok=True, answer="")


@define
class SimulatedCells:
    """All cells, and the socket they share, as parts of one process."""

    config: SimulationConfig
    clock: Clock
    log: structlog.stdlib.BoundLogger
    on_defect: Callable[[], None]
    # Each cell knows the socket, and that all cells: asyncio makes a text of a task's result when a run ends.
    socket: SharedSocket = field(init=False, repr=False)
    cells: dict[str, app.Cell] = field(factory=dict, init=False, repr=False)
    listeners: dict[str, CellListener] = field(factory=dict, init=False, repr=False)
    _metrics: ServerMetrics = field(factory=ServerMetrics, init=False)
    _http: HopClient = field(factory=lambda: HopClient(CONNECTIONS_MAX), init=False)
    _listener: HttpListener | None = field(default=None, init=False)
    _random: Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.socket = SharedSocket(self.config.listen_host)
        self._random = Random(self.config.seed)

    async def start(self) -> None:
        """Listen, then start every cell; returns when each has reported once, or tried to."""
        for number in range(1, self.config.cells + 1):
            garden = self._add(self.config.cell(number, self._random))
            for plan in prefilled.on_cell(number, self.config.cells, self.config.instances):
                garden.prefill(plan.spec)
        self._listener = self._listen()
        await self._listener.start()
        self.socket.port = self._listener.port
        slots = asyncio.Semaphore(STARTED_AT_ONCE_MAX)

        async def bounded(cell: app.Cell) -> None:
            async with slots:
                await self._start(cell)

        async with asyncio.TaskGroup() as group:
            for cell in self.cells.values():
                group.create_task(bounded(cell))

    async def stop(self) -> None:
        """Let every cell go; its containers were never more than remembered."""
        async with asyncio.TaskGroup() as group:
            for cell in self.cells.values():
                group.create_task(_stopped(cell.parts))
        if self._listener is not None:
            await self._listener.stop()
        await self._http.close()

    @property
    def port(self) -> int:
        return self.socket.port

    def _add(self, config: CellConfig) -> SimulatedGarden:
        server = app.hop_server(config, self.clock, self.log, self._metrics)
        listener = CellListener(server, (), self.socket)
        garden = SimulatedGarden(
            config.cell_id,
            self.clock,
            images=self.config.images,
            conduct=Conduct(self.clock, self._random, self.config.drawn_latencies(), self.config.failure_rates),
        )

        def listen(api: RepApi, lease: Lease) -> CellListener:
            listener.routes = api.routes()
            return listener

        outside = app.Outside(
            garden=garden,
            http=CellClient(shared=self._http, is_lost=lambda: listener.lost),
            clock=self.clock,
            log=self.log,
            random=self._random,
            new_guid=lambda: uuid.uuid4().hex,
            state=MemoryDisk(),
            ended=MemoryDisk(),
            task_ends=MemoryDisk(),
            listen=listen,
            prober=ContentProber(garden),
        )
        self.listeners[config.cell_id] = listener
        self.cells[config.cell_id] = app.wire(config, outside, self.on_defect)
        return garden

    async def _start(self, cell: app.Cell) -> None:
        """The first report is sent here, so that not all of them come at the same moment."""
        cell.sync.books.changed.clear()
        for part in cell.parts:
            await part.start()
        try:
            await cell.sync.report()
        except DiegoError as error:
            self.log.warning("first_report_failed", code=error.root.code, detail=error.root.message)

    def _listen(self) -> HttpListener:
        config = self.config
        server = HopServer(
            hop="simulation",
            id=config.prefix,
            clock=self.clock,
            log=self.log,
            metrics=self._metrics,
            in_flight_max=config.cells * 256,
            body_bytes_max=4 * 1024 * 1024,
            default_budget_ms=config.request_budget_ms,
        )
        own = SimulationRoutes(self.cells, self.listeners).routes()
        application = server.application([*own, *StandardRoutes(self._metrics, {}, RepFailed).routes()])
        self.socket.add_to(application, next(iter(self.listeners.values())).routes, server)
        return HttpListener(application, config.listen_host, config.listen_port)


async def _stopped(parts: Sequence[Part]) -> None:
    for part in reversed(parts):
        await part.stop()


def build(
    config: SimulationConfig, clock: Clock, log: structlog.stdlib.BoundLogger, process: Process
) -> SimulatedCells:
    """All of it. Nothing runs yet."""
    return SimulatedCells(config, clock, log, process.defect)
