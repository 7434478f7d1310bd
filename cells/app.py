"""The composition root of a cell: every part, in start order. Wiring happens here and nowhere else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import assert_never

import attrs
import structlog
from attrs import define, evolve, frozen

from cells.config import CellConfig
from cells.executor.backend import ContainerBackend
from cells.executor.checks.prober import Prober
from cells.executor.executor import Executor
from cells.executor.health import Health
from cells.executor.once import RunOnce
from cells.executor.pace import Pace
from cells.executor.programs import Programs
from cells.executor.transfers.transfers import Transfers
from cells.garden.images.unpack import UnpackLimits
from cells.garden.network.events import EgressLogged, FirewallNotRestored, FirewallRestored, NetworkEvent
from cells.rep import identity
from cells.rep.admission import Admission
from cells.rep.adoption import Adoption
from cells.rep.api import RepApi
from cells.rep.books import Books
from cells.rep.claims import ClaimsTogether
from cells.rep.disk import Directory, Disk
from cells.rep.drain import DrainMark
from cells.rep.ended import EndedBook
from cells.rep.epoch import EpochFence
from cells.rep.evacuation import Evacuation
from cells.rep.instances import Instances
from cells.rep.lease import Lease
from cells.rep.ownership import Ownership
from cells.rep.presence import Presence
from cells.rep.reservations import Reservations
from cells.rep.sync import Sync
from cells.rep.task_teller import TaskTeller
from cells.rep.task_watch import TaskWatcher
from cells.rep.task_work import CellTaskWork
from cells.rep.tasks import CellTasks
from cells.rep.watch import Watcher
from cells.rep.work import CellWork
from diego_py.clients.bbs_internal import BBSInternalClient
from diego_py.errors import RepFailed
from diego_py.http.client import HopClient
from diego_py.http.listener import HttpListener, Listener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import HopServer
from diego_py.http.standard_routes import StandardRoutes
from diego_py.models.cell import CellCapacity, CellPresence
from diego_py.models.image import LOCAL_DRIVER
from diego_py.models.task_work import TaskEnd
from diego_py.models.work import EndedReport
from diego_py.service.clock import Clock
from diego_py.service.run import Loop, OwnedTasks, Part

PRIVATE_MODE = 0o700
"""What the rep keeps tells how apps failed, with their last lines."""


@define
class Announcement:
    """The part that fills in where the cell is reached, once its listener has its port."""

    config: CellConfig
    listener: Listener
    presence: Presence

    async def start(self) -> None:
        """Runs between the listener and the first report."""
        self.presence.reached_at(self.config.url or self.listener.url)

    async def stop(self) -> None:
        """Nothing to do."""


@frozen(kw_only=True)
class Outside:
    """What a cell reaches for beyond itself. A simulation puts something of its own in place of each."""

    garden: ContainerBackend
    http: HopClient
    clock: Clock
    log: structlog.stdlib.BoundLogger
    random: Random
    """For jitter."""
    new_guid: Callable[[], str]
    state: Disk
    """What must survive the process."""
    ended: Disk
    """Ends that are still to be told."""
    task_ends: Disk
    """The same of tasks."""
    listen: Callable[[RepApi, Lease], Listener]
    prober: Prober
    """Asks the containers of the garden how they are."""


@frozen
class Cell:
    """A wired cell. `parts` are in start order; the rest is what tests and embedders reach for."""

    parts: Sequence[Part]
    listener: Listener
    work: CellWork
    task_work: CellTaskWork
    sync: Sync


def build(
    config: CellConfig,
    garden: ContainerBackend,
    clock: Clock,
    log: structlog.stdlib.BoundLogger,
    on_defect: Callable[[], None] = lambda: None,
    random: Random | None = None,
) -> Cell:
    """Wire a cell around a container backend. Nothing runs yet."""
    config.rep_state.mkdir(parents=True, exist_ok=True)
    config.rep_state.chmod(PRIVATE_MODE)
    Path(config.volumes_dir or config.state_dir).mkdir(parents=True, exist_ok=True)
    outside = Outside(
        garden=garden,
        http=HopClient(),
        clock=clock,
        log=log,
        random=random or Random(),
        new_guid=lambda: uuid.uuid4().hex,
        state=Directory(config.rep_state),
        ended=Directory(config.rep_state / "ended"),
        task_ends=Directory(config.rep_state / "task_ends"),
        listen=lambda api, lease: _listener(config, api, lease, clock, log),
        prober=Prober(garden),
    )
    cell = wire(config, outside, on_defect)
    return evolve(cell, parts=[Ownership(config.rep_state, clock), *cell.parts])


def wire(config: CellConfig, outside: Outside, on_defect: Callable[[], None]) -> Cell:
    """A cell in the world it is given."""
    garden, clock, log = outside.garden, outside.clock, outside.log
    boot_id = outside.new_guid()
    capacity = config.capacity()
    books = _books(outside, capacity)
    fence, lease = EpochFence(outside.state), Lease(clock)
    home_id, drain = identity.home_id(outside.state, outside.new_guid), DrainMark(outside.state)
    admission = Admission(fence, lease, books.ended, books.task_ends, drain)
    bbs = BBSInternalClient(outside.http, config.bbs_urls, config.cell_id)
    evacuation = Evacuation(bbs, drain, config.evacuate_on_stop_s, clock, log)
    programs = OwnedTasks(log, grace_s=0.0)
    executor = _executor(config, outside, programs)
    watches = OwnedTasks(log, grace_s=0.0)
    watcher = Watcher(config.cell_id, executor, books, watches, clock, log)
    once = RunOnce(executor)
    teller = TaskTeller(books.task_ends, bbs, clock, outside.random, log)
    task_watcher = TaskWatcher(config.cell_id, executor, once, books, teller, watches, clock, log)
    owned = OwnedTasks(log, grace_s=config.stop_grace_s)
    claiming = OwnedTasks(log, grace_s=0.0)
    work = CellWork(
        start_timeout_default_s=config.default_start_timeout_s,
        books=books,
        admission=admission,
        claims=ClaimsTogether(config.cell_id, boot_id, bbs, claiming),
        executor=executor,
        watcher=watcher,
        owned=owned,
    )
    task_work = _task_work(config, outside, boot_id, books, admission, task_watcher, owned)
    presence = Presence(_fixed_presence(config, home_id, boot_id, capacity), garden, config.image_schemes)
    interval_s, random = config.report_interval_s, outside.random
    sync = Sync(interval_s, books, admission, bbs, work, task_work, presence, owned, clock, random, log)
    api = RepApi(work, task_work, sync, admission, evacuation, books, garden, log)
    listener = outside.listen(api, lease)
    return Cell(
        # Stopped in reverse: work under way is finished or undone first, while its askers can still be answered.
        parts=[
            bbs,
            claiming,
            outside.prober,
            watches,
            Adoption(garden, executor, books, fence, drain, watcher, task_watcher, clock, log),
            programs,
            listener,
            Announcement(config, listener, presence),
            Loop("report", sync.round, log, on_defect),
            Loop("tell_task_ends", teller.round, log, on_defect),
            owned,
            evacuation,
        ],
        listener=listener,
        work=work,
        task_work=task_work,
        sync=sync,
    )


def _books(outside: Outside, capacity: CellCapacity) -> Books:
    books = Books(
        reservations=Reservations(capacity),
        instances=Instances(),
        ended=EndedBook(EndedReport, outside.ended, outside.log),
        tasks=CellTasks(),
        task_ends=EndedBook(TaskEnd, outside.task_ends, outside.log),
    )
    books.changed.set()  # the first report is due at once
    return books


def _task_work(
    config: CellConfig,
    outside: Outside,
    boot_id: str,
    books: Books,
    admission: Admission,
    watcher: TaskWatcher,
    owned: OwnedTasks,
) -> CellTaskWork:
    return CellTaskWork(
        cell_id=config.cell_id,
        boot_id=boot_id,
        new_claim_id=outside.new_guid,
        books=books,
        admission=admission,
        bbs=watcher.teller.bbs,
        executor=watcher.executor,
        once=watcher.once,
        watcher=watcher,
        owned=owned,
    )


def network_log(log: structlog.stdlib.BoundLogger) -> Callable[[NetworkEvent], None]:
    """What garden tells of its network, as log events."""

    def write(event: NetworkEvent) -> None:
        match event:
            case EgressLogged():
                log.info("egress_allowed", **attrs.asdict(event, filter=lambda _, value: value is not None))
            case FirewallRestored(reason):
                log.warning("firewall_restored", reason=reason)
            case FirewallNotRestored(reason, evidence):
                log.error("firewall_not_restored", reason=reason, evidence=dict(evidence))
            case _:
                assert_never(event)

    return write


def _listener(
    config: CellConfig, api: RepApi, lease: Lease, clock: Clock, log: structlog.stdlib.BoundLogger
) -> HttpListener:
    async def counted_on() -> str | None:
        return lease.lacks()

    metrics = ServerMetrics()
    server = hop_server(config, clock, log, metrics)
    about = {"disk_limits": api.garden.disk_limits}
    standard = StandardRoutes(metrics, {"bbs": counted_on}, RepFailed, api.garden.warnings, about)
    application = server.application([*api.routes(), *standard.routes()])
    return HttpListener(application, config.listen_host, config.listen_port)


def hop_server(
    config: CellConfig, clock: Clock, log: structlog.stdlib.BoundLogger, metrics: ServerMetrics
) -> HopServer:
    """What answers requests to a rep."""
    return HopServer(
        hop="rep",
        id=config.cell_id,
        clock=clock,
        log=log,
        metrics=metrics,
        in_flight_max=config.in_flight_max,
        body_bytes_max=config.body_bytes_max,
        default_budget_ms=config.request_budget_ms,
    )


def _executor(config: CellConfig, outside: Outside, programs: OwnedTasks) -> Executor:
    garden, clock = outside.garden, outside.clock
    pace = _pace(config)
    limits = UnpackLimits(bytes_max=config.layer_bytes_max, entries_max=config.layer_entries_max)
    transfers = Transfers(garden, config.transfers(), limits, clock)
    return Executor(
        cell_id=config.cell_id,
        garden=garden,
        health=Health(garden, outside.prober, clock, pace),
        programs=Programs(garden, transfers, clock, pace.graceful_stop_s, programs),
        clock=clock,
        pace=pace,
    )


def _pace(config: CellConfig) -> Pace:
    return Pace(
        settle_s=config.settle_ms / 1000,
        startup_interval_max_s=config.unhealthy_interval_s,
        liveness_interval_s=config.healthy_interval_s,
        graceful_stop_s=config.graceful_stop_s,
    )


def _fixed_presence(config: CellConfig, home_id: str, boot_id: str, capacity: CellCapacity) -> CellPresence:
    return CellPresence(
        cell_id=config.cell_id,
        url=config.url or f"http://{config.listen_host}:{config.listen_port}",
        zone=config.zone,
        address=config.address,
        capacity=capacity,
        placement_tags=config.placement_tags,
        optional_placement_tags=config.optional_placement_tags,
        volume_drivers=(LOCAL_DRIVER,) if config.bind_source_dirs else (),
        home_id=home_id,
        boot_id=boot_id,
    )
