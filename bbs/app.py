"""The composition root of a BBS: every part, in start order. Nothing else wires anything."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence

import structlog
from attrs import define, evolve, field, frozen

from bbs.api.actual_lrps import ActualLRPs
from bbs.api.auctions import Auctions
from bbs.api.cells import Cells
from bbs.api.claims import ClaimRoutes
from bbs.api.decisions import DecisionRoutes
from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS, DesiredLRPs
from bbs.api.domains import Domains
from bbs.api.failures import Failures
from bbs.api.idempotency import Idempotency
from bbs.api.tasks import Tasks
from bbs.api.waiting import Waiting
from bbs.auction.fleet import Fleet
from bbs.callback_client import CallbackClient
from bbs.cell_pool import CellPool
from bbs.config import BbsConfig, DiegoWireConfig
from bbs.convergence.apply import Repairs
from bbs.convergence.convergence import Convergence
from bbs.convergence.leader import Leadership
from bbs.convergence.task_apply import TaskRepairs
from bbs.convergence.task_convergence import TaskConvergence
from bbs.diego_api import api as diego_api
from bbs.egress import LiveEgress
from bbs.evacuation import Evacuation
from bbs.heartbeats import Heartbeats
from bbs.known_cells import KnownCells
from bbs.lifecycle import Lifecycle
from bbs.pace import Pace
from bbs.placement import Placement
from bbs.removal import Removal
from bbs.replacement import Replacement
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.lists import Lists
from bbs.store.transaction import Store
from bbs.succession import Succession
from bbs.task_callbacks import CALLBACKS_MAX, CallbackCalls, TaskCallbacks
from bbs.task_completion import Completions
from bbs.task_lifecycle import TaskLifecycle
from bbs.task_placement import TaskPlacement
from diego_py.call import Call
from diego_py.clients.cell import CellClient
from diego_py.errors import DiegoError
from diego_py.http.admission import Admission, LoopLag
from diego_py.http.client import HopClient
from diego_py.http.listener import HttpListener, Listener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.openapi import ApiDescription
from diego_py.http.server import HopServer, Route
from diego_py.http.standard_routes import StandardRoutes
from diego_py.http.tls import MutualTls
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


@frozen(kw_only=True)
class Outside:
    """What a BBS reaches for beyond itself. A simulation puts something of its own in place of each."""

    store: Store
    lists: Lists
    http: HopClient
    callbacks: CallbackCalls
    clock: Clock
    log: structlog.stdlib.BoundLogger
    random: random.Random
    """For jitter."""
    new_guid: Callable[[], str]
    standard_routes: Sequence[Route]
    """What every listener serves, whatever its process does."""
    listen: Callable[[Sequence[Route]], Listener]
    listen_diego: Callable[[Sequence[Route]], Listener] | None = None
    """For Diego's own wire; None: it is not served."""
    admission: Admission = field(factory=Admission)
    """How much is let in, by all listeners together."""


@frozen
class Bbs:
    """A BBS, put together but not started."""

    parts: Sequence[Part]
    listener: Listener
    routes: Sequence[Route]
    diego_listener: Listener | None = None


def build(config: BbsConfig, clock: Clock, log: structlog.stdlib.BoundLogger, process: Process) -> Bbs:
    """All parts of a BBS in start order; `listener.port` tells where it listens once started."""
    database = Database(config.dsn, clock, DatabaseSettings(connections_max=config.database_connections_max))
    metrics = ServerMetrics()
    standard = StandardRoutes(metrics, {"postgres": lambda: _database_ready(database, clock)}).routes()
    http = HopClient()
    callbacks = CallbackClient(config.callback_deny_networks, config.callback_timeout_s, CALLBACKS_MAX)
    admission = Admission(config.in_flight_max)

    def listen(routes: Sequence[Route]) -> HttpListener:
        server = hop_server(config, clock, log, metrics, database.crowded, admission)
        return HttpListener(server.application(routes), config.listen_host, config.listen_port)

    def listen_diego(routes: Sequence[Route]) -> HttpListener:
        server = hop_server(config, clock, log, metrics, database.crowded, admission)
        wire = config.diego or DiegoWireConfig()
        tls = None if wire.tls is None else MutualTls(wire.tls, log)
        return HttpListener(server.application(routes), wire.listen_host, wire.listen_port, tls)

    outside = Outside(
        store=database,
        lists=Lists(database),
        http=http,
        callbacks=callbacks,
        clock=clock,
        log=log,
        random=random.Random(),
        new_guid=lambda: str(uuid.uuid4()),
        standard_routes=standard,
        listen=listen,
        listen_diego=listen_diego,
        admission=admission,
    )
    bbs = wire(config, outside, process.defect)
    return evolve(bbs, parts=[database, Client(http), callbacks, LoopLag(admission), *bbs.parts])


def wire(config: BbsConfig, outside: Outside, on_defect: Callable[[], None]) -> Bbs:
    """A BBS in the world it is given. Its parts do not include that world's."""
    store, lists, clock, log = outside.store, outside.lists, outside.clock, outside.log
    owner = f"{config.id}:{outside.new_guid()}"
    tasks = OwnedTasks(log, grace_s=config.stop_grace_s)
    known = KnownCells(Fleet(config.bin_pack_weight))
    pace = Pace(config.presence_ttl_s, config.heartbeats_per_second_max, known.count)
    lifecycle = Lifecycle(store, clock, outside.new_guid, pace, config.crash_policy)
    pool = CellPool(store, CellClient(outside.http), known)
    removal = Removal(store, lifecycle, pool, config.route_grace_s)
    succession = Succession(store, lifecycle)
    placement = Placement(
        id=config.id,
        lifecycle=lifecycle,
        succession=succession,
        pool=pool,
        removal=removal,
        egress=LiveEgress(pool),
        log=log,
        new_failure_id=lambda: outside.new_guid().replace("-", ""),
        jitter=lambda: outside.random.uniform(-1, 1),
    )
    replacement = Replacement(store, placement)
    evacuation = Evacuation(store, pool, replacement)
    of_tasks = _task_parts(config, outside, pool, tasks)
    leadership = Leadership(store, clock, owner, config.leader_ttl_s)
    convergence = Convergence(
        store=store,
        pool=pool,
        leadership=leadership,
        repairs=Repairs(config.id, lifecycle, placement, log),
        task_convergence=of_tasks.convergence,
        tasks=tasks,
        clock=clock,
        log=log,
        interval_s=config.convergence_interval_s,
        pace=pace,
        jitter=lambda: outside.random.uniform(-1, 1),
    )
    waiting = Waiting(tasks, outside.admission)
    idempotency = Idempotency(lifecycle, owner, log)
    start_budget_ms = config.request_budget_ms + DEFAULT_START_TIMEOUT_MS
    routes: list[Route] = [
        *DesiredLRPs(
            store, lists, lifecycle, placement, replacement, idempotency, waiting, config.request_budget_ms
        ).routes(),
        *ActualLRPs(store, lists, placement, pool, waiting, start_budget_ms).routes(),
        *_task_routes(config, outside, of_tasks, idempotency, waiting),
        *_cell_routes(lifecycle, pool, of_tasks.callbacks, evacuation, waiting),
        *_other_routes(outside, lifecycle, placement),
        *outside.standard_routes,
    ]
    routes += ApiDescription("diego-py BBS", routes).routes()
    listener = outside.listen(routes)
    loop = Loop("convergence", convergence.round, log, on_defect)
    diego = _diego_listener(config, outside, placement, of_tasks, tasks)
    return Bbs([tasks, leadership, loop, listener, *([diego] if diego else [])], listener, routes, diego)


def _other_routes(outside: Outside, lifecycle: Lifecycle, placement: Placement) -> list[Route]:
    store = outside.store
    return [
        *ClaimRoutes(lifecycle).routes(),
        *Domains(store).routes(),
        *Failures(store, outside.lists).routes(),
        *Auctions(placement).routes(),
        *DecisionRoutes(store).routes(),
    ]


@frozen
class TaskParts:
    """What looks after tasks."""

    lifecycle: TaskLifecycle
    completions: Completions
    placement: TaskPlacement
    callbacks: TaskCallbacks
    convergence: TaskConvergence


def _task_parts(config: BbsConfig, outside: Outside, pool: CellPool, tasks: OwnedTasks) -> TaskParts:
    store, clock, log = outside.store, outside.clock, outside.log
    lifecycle = TaskLifecycle(store, clock, outside.new_guid)
    completions = Completions(lifecycle)
    callbacks = TaskCallbacks(
        lifecycle=lifecycle,
        completions=completions,
        client=outside.callbacks,
        tasks=tasks,
        clock=clock,
        log=log,
        jitter=lambda: outside.random.uniform(-1, 1),
    )
    placement = TaskPlacement(
        id=config.id,
        lifecycle=lifecycle,
        pool=pool,
        completed=callbacks.completed,
        log=log,
        new_failure_id=lambda: outside.new_guid().replace("-", ""),
        jitter=lambda: outside.random.uniform(-1, 1),
    )
    repairs = TaskRepairs(config.id, lifecycle, placement, callbacks, log)
    return TaskParts(lifecycle, completions, placement, callbacks, TaskConvergence(repairs, tasks))


def _cell_routes(
    lifecycle: Lifecycle,
    pool: CellPool,
    callbacks: TaskCallbacks,
    evacuation: Evacuation,
    waiting: Waiting,
) -> list[Route]:
    store, heartbeats = lifecycle.store, Heartbeats(lifecycle.store, lifecycle.pace)
    return Cells(store, lifecycle, heartbeats, pool, callbacks, evacuation, waiting).routes()


def _task_routes(
    config: BbsConfig, outside: Outside, parts: TaskParts, idempotency: Idempotency, waiting: Waiting
) -> list[Route]:
    return Tasks(
        store=outside.store,
        lists=outside.lists,
        lifecycle=parts.lifecycle,
        placement=parts.placement,
        completions=parts.completions,
        callbacks=parts.callbacks,
        pool=parts.placement.pool,
        idempotency=idempotency,
        waiting=waiting,
        request_budget_ms=config.request_budget_ms,
    ).routes()


def _diego_listener(
    config: BbsConfig, outside: Outside, placement: Placement, of_tasks: TaskParts, tasks: OwnedTasks
) -> Listener | None:
    if config.diego is None or outside.listen_diego is None:
        return None
    parts = diego_api.DiegoParts(
        store=outside.store,
        placement=placement,
        task_placement=of_tasks.placement,
        callbacks=of_tasks.callbacks,
        tasks=tasks,
        request_budget_ms=config.request_budget_ms,
        ignored_fields=frozenset(config.diego.ignored_fields),
        new_guid=outside.new_guid,
        log=outside.log,
    )
    return outside.listen_diego(diego_api.routes(parts))


def hop_server(
    config: BbsConfig,
    clock: Clock,
    log: structlog.stdlib.BoundLogger,
    metrics: ServerMetrics,
    crowded: Callable[[], str | None] = lambda: None,
    admission: Admission | None = None,
) -> HopServer:
    """What answers requests to a BBS. Without an admission of its process it has limits of its own."""
    return HopServer(
        hop="bbs",
        id=config.id,
        clock=clock,
        log=log,
        metrics=metrics,
        in_flight_max=config.in_flight_max,
        body_bytes_max=config.body_bytes_max,
        default_budget_ms=config.request_budget_ms,
        crowded=crowded,
        admission=admission or Admission(config.in_flight_max),
    )


async def _database_ready(database: Database, clock: Clock) -> str | None:
    """What keeps Postgres from being used, or None."""
    try:
        await database.read(Call.begin(clock, 2_000), "readyz", lambda tx: tx.now())
    except DiegoError as error:
        return error.root.message
    return None
