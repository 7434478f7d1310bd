"""The composition root of a BBS: every part, in start order. Nothing else wires anything."""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Sequence

import structlog
from attrs import define

from bbs.api.actual_lrps import ActualLRPs
from bbs.api.auctions import Auctions
from bbs.api.cells import Cells
from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS, DesiredLRPs
from bbs.api.domains import Domains
from bbs.api.failures import Failures
from bbs.api.idempotency import Idempotency
from bbs.api.waiting import Waiting
from bbs.cell_pool import CellPool
from bbs.config import BbsConfig
from bbs.convergence.apply import Repairs
from bbs.convergence.convergence import Convergence
from bbs.convergence.leader import Leadership
from bbs.lifecycle import Lifecycle
from bbs.placement import Placement
from bbs.removal import Removal
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from diego_py.call import Call
from diego_py.clients.cell import CellClient
from diego_py.errors import DiegoError
from diego_py.http.client import HopClient
from diego_py.http.listener import HttpListener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.openapi import ApiDescription
from diego_py.http.server import HopServer, Route
from diego_py.http.standard_routes import StandardRoutes
from diego_py.service.clock import Clock
from diego_py.service.run import Loop, OwnedTasks, Part, Process


@define
class Client:
    """The connections to cells as a part of the process."""

    http: HopClient

    async def start(self) -> None:
        """Connections are made when first used."""

    async def stop(self) -> None:
        await self.http.close()


@define
class Bbs:
    """A BBS, put together but not started."""

    parts: Sequence[Part]
    listener: HttpListener
    routes: Sequence[Route]


def build(config: BbsConfig, clock: Clock, log: structlog.stdlib.BoundLogger, process: Process) -> Bbs:
    """All parts of a BBS in start order; `listener.port` tells where it listens once started."""
    owner = f"{config.id}:{secrets.token_hex(4)}"
    source = random.Random()
    database = Database(config.dsn, clock, DatabaseSettings(connections_max=config.database_connections_max))
    tasks = OwnedTasks(log, grace_s=config.stop_grace_s)
    http = HopClient()
    lifecycle = Lifecycle(database, clock, lambda: str(uuid.uuid4()), config.presence_ttl_s, config.crash_policy)
    pool = CellPool(database, CellClient(http))
    removal = Removal(database, lifecycle, pool)
    placement = Placement(
        id=config.id,
        lifecycle=lifecycle,
        pool=pool,
        removal=removal,
        log=log,
        new_failure_id=lambda: uuid.uuid4().hex,
        jitter=lambda: source.uniform(-1, 1),
    )
    leadership = Leadership(database, clock, owner, config.leader_ttl_s)
    convergence = Convergence(
        store=database,
        pool=pool,
        leadership=leadership,
        repairs=Repairs(config.id, lifecycle, placement, log),
        tasks=tasks,
        clock=clock,
        log=log,
        interval_s=config.convergence_interval_s,
        presence_ttl_s=config.presence_ttl_s,
        jitter=lambda: source.uniform(-1, 1),
    )
    metrics = ServerMetrics()
    server = HopServer(
        hop="bbs",
        id=config.id,
        clock=clock,
        log=log,
        metrics=metrics,
        in_flight_max=config.in_flight_max,
        body_bytes_max=config.body_bytes_max,
        default_budget_ms=config.request_budget_ms,
    )
    waiting = Waiting(tasks)
    idempotency = Idempotency(lifecycle, owner, log)
    start_budget_ms = config.request_budget_ms + DEFAULT_START_TIMEOUT_MS
    routes: list[Route] = [
        *DesiredLRPs(database, lifecycle, placement, idempotency, waiting, config.request_budget_ms).routes(),
        *ActualLRPs(database, lifecycle, placement, pool, waiting, start_budget_ms).routes(),
        *Domains(database).routes(),
        *Cells(database, lifecycle, pool, config.presence_ttl_s).routes(),
        *Failures(database).routes(),
        *Auctions(placement).routes(),
        *StandardRoutes(metrics, {"postgres": lambda: _database_ready(database, clock)}).routes(),
    ]
    routes += ApiDescription("diego-py BBS", routes).routes()
    listener = HttpListener(server.application(routes), config.listen_host, config.listen_port)
    loop = Loop("convergence", convergence.round, log, process.defect)
    return Bbs([database, Client(http), tasks, leadership, loop, listener], listener, routes)


async def _database_ready(database: Database, clock: Clock) -> str | None:
    """What keeps Postgres from being used, or None."""
    try:
        await database.read(Call.begin(clock, 2_000), "readyz", lambda tx: tx.now())
    except DiegoError as error:
        return error.root.message
    return None
