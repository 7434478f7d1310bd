"""BBSes and cells: the product's own wiring in a simulated world, started, killed and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from random import Random
from typing import Any

from attrs import define, field, frozen

from bbs import app as bbs_app
from bbs.callback_client import Delivery
from bbs.config import BbsConfig
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.lists import Lists
from cells import app as cells_app
from cells.config import CellConfig
from cells.executor.checks.prober import Prober
from cells.simulated.disk import MemoryDisk
from diego_py.http.server import Route
from diego_py.models.identifiers import CellId
from diego_py.service.run import Part
from tests.simulation.clock import SimulatedClock
from tests.simulation.faults import TRAVEL_S_MAX, Faults
from tests.simulation.garden import HostGarden
from tests.simulation.loop import SimulatedLoop, SimulatedProcess
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore
from tests.simulation.network import Network, SimulatedHopClient, SimulatedListener
from tests.simulation.wishes import Wishes
from tests.simulation.witness import SimulatedLog, Witness

PRESENCE_TTL_S = 6.0
MEMORY_MB = 512
IDLE_IN_TRANSACTION_S = DatabaseSettings().idle_in_transaction_timeout_s


class NoMetrics:
    """Nobody looks at metrics."""

    def observe(self, *_: object) -> None:
        """Not counted."""


@frozen
class Callbacks:
    """Who is told that a task is completed. Requests are lost, answers are lost, and now and then he is busy."""

    world: World

    async def post(self, url: str, body: bytes) -> Delivery:
        faults, witness = self.world.faults, self.world.witness
        await asyncio.sleep(faults.random.random() * TRAVEL_S_MAX)
        if faults.strikes("callback_lost"):
            return Delivery(reason="nobody answers")
        if faults.strikes("callback_refused"):
            return Delivery(503)
        witness.called_back(body)
        return Delivery(reason="the answer was lost") if faults.strikes("callback_lost") else Delivery(200)


@define
class World:
    """What all processes share."""

    loop: SimulatedLoop
    random: Random
    faults: Faults
    network: Network
    database: MemoryDatabase
    witness: Witness
    wishes: Wishes
    restored: set[str] = field(factory=set)
    """LRPs that were lost from the database, as when it is restored from an older state."""
    numbers: list[int] = field(factory=lambda: [0])

    def new_guid(self) -> str:
        """Never the same twice in one run, always the same in the next."""
        self.numbers[0] += 1
        return f"g{self.numbers[0]:05d}"


@define(eq=False)
class Host:
    """Where one process runs, again and again."""

    world: World
    name: str
    process: SimulatedProcess = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.process = SimulatedProcess(self.name)
        self.process.alive = False

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    def start(self) -> None:
        """A new process; nothing of the one before is left in it."""
        self.process = SimulatedProcess(self.name)
        self.world.witness.tell(f"start {self.name}")
        self.process.begin(_started(self.wired()))

    def kill(self) -> None:
        self.world.witness.tell(f"kill {self.name}")
        self.process.kill()

    def freeze(self, seconds: float) -> None:
        self.world.witness.tell(f"freeze {self.name} for {seconds:.2f} s")
        self.process.freeze(seconds)

    def wired(self) -> Sequence[Part]:
        """The parts of the process, in start order."""
        raise NotImplementedError

    def log(self) -> Any:
        return SimulatedLog(self.name, self.world.witness)

    def clock(self) -> SimulatedClock:
        return SimulatedClock(self.world.loop, self.world.random.uniform(-100, 100))

    def listener(self, server: Any, routes: Sequence[Route]) -> SimulatedListener:
        return SimulatedListener(self.world.network, self.process, self.url, server, routes)

    def defect(self) -> Callable[[], None]:
        return lambda: self.world.witness.fail(f"{self.name}: a part met a defect")


@define(eq=False)
class BbsHost(Host):
    """One BBS."""

    def wired(self) -> Sequence[Part]:
        world, clock, log = self.world, self.clock(), self.log()
        config = BbsConfig(
            dsn="",
            id=self.name,
            request_budget_ms=10_000,
            presence_ttl_s=PRESENCE_TTL_S,
            leader_ttl_s=PRESENCE_TTL_S,
            convergence_interval_s=1.5,
        )
        process = self.process
        store = MemoryStore(
            world.database,
            clock,
            lambda: world.faults.travel_to_store(process),
            world.faults.store,
            world.random.random,
        )
        process.last_words.append(store.crash)
        process.when_frozen.append(lambda seconds: self._idle_in_transaction(store, seconds))
        server = bbs_app.hop_server(config, clock, log, NoMetrics())  # type: ignore[arg-type]
        outside = bbs_app.Outside(
            store=store,
            lists=Lists(Database("", clock)),  # nobody in the simulation asks for a list
            http=SimulatedHopClient(world.network, self.url),
            callbacks=Callbacks(world),
            clock=clock,
            log=log,
            random=world.random,
            new_guid=world.new_guid,
            standard_routes=(),
            listen=lambda routes: self.listener(server, routes),
        )
        return bbs_app.wire(config, outside, self.defect()).parts

    def _idle_in_transaction(self, store: MemoryStore, seconds: float) -> None:
        """Postgres undoes the transactions of who says nothing for too long, or a frozen leader would lead for ever."""
        if seconds > IDLE_IN_TRANSACTION_S:
            self.world.loop.call_later(IDLE_IN_TRANSACTION_S, store.crash, context=Context())


@define(eq=False)
class CellHost(Host):
    """One cell, on a host of its own."""

    bbs_urls: tuple[str, ...]
    garden: HostGarden = field(init=False)
    state: MemoryDisk = field(factory=MemoryDisk, init=False)
    ended: MemoryDisk = field(factory=MemoryDisk, init=False)
    task_ends: MemoryDisk = field(factory=MemoryDisk, init=False)

    def __attrs_post_init__(self) -> None:
        Host.__attrs_post_init__(self)
        world = self.world
        clock = SimulatedClock(world.loop)
        self.garden = HostGarden(self.name, clock, chance=world.faults, happened=world.witness.happened)
        world.witness.hosts[self.name] = self.garden
        world.witness.memory_mb[self.name] = MEMORY_MB

    def wired(self) -> Sequence[Part]:
        world, clock, log = self.world, self.clock(), self.log()
        config = CellConfig(
            cell_id=CellId(self.name),
            zone=f"z{self.name[-1]}",
            url=self.url,
            bbs_urls=self.bbs_urls,
            state_dir="/nowhere",
            image_root="/nowhere",
            memory_mb=MEMORY_MB,
            disk_mb=1024,
            containers_max=8,
            report_interval_s=2.0,
            graceful_stop_s=1.0,
            default_start_timeout_s=3.0,
        )
        server = cells_app.hop_server(config, clock, log, NoMetrics())  # type: ignore[arg-type]
        outside = cells_app.Outside(
            garden=self.garden,
            http=SimulatedHopClient(world.network, self.url),
            clock=clock,
            log=log,
            random=world.random,
            new_guid=world.new_guid,
            state=self.state,
            ended=self.ended,
            task_ends=self.task_ends,
            listen=lambda api, lease: self.listener(server, api.routes()),
            prober=Prober(self.garden),
        )
        return cells_app.wire(config, outside, self.defect()).parts


async def _started(parts: Sequence[Part]) -> None:
    for part in parts:
        await part.start()
