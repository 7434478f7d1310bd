"""The cascade of the BBS on the store in memory, with cells that do as a test says."""

import itertools
from collections.abc import Awaitable, Callable
from io import StringIO

from attrs import define, evolve, field

from bbs.cell_pool import CellPool
from bbs.egress import LiveEgress
from bbs.lifecycle import Lifecycle
from bbs.placement import Placement
from bbs.removal import Removal
from bbs.store.attempts import Claim
from bbs.succession import Succession
from diego_py.call import Call
from diego_py.models.cell import RootfsProvider
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.work import AvailableResources, CellReport, Started, Stopped, Work
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger
from tests.contract.store.conftest import NET_INFO, Scene, guids, report
from tests.contract.store.tampering import MemoryTampering
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore

FREE = AvailableResources(memory_mb=512, disk_mb=512, containers=5)
STACK = RootfsProvider(name="preloaded", properties=("stack",))


def reported(cell_id: str = "cell-1") -> CellReport:
    """What a cell says that has nothing."""
    said = report(cell_id)
    return evolve(said, presence=evolve(said.presence, rootfs_provider_list=(STACK,)))


async def nothing() -> None:
    """Happens by default."""


@define
class Cells:
    """Claim what they are sent, then do what a test wants, and have it running."""

    lifecycle: Lifecycle
    before_claim: Callable[[], Awaitable[object]] = nothing
    before_start: Callable[[], Awaitable[object]] = nothing
    before_stop: Callable[[], Awaitable[object]] = nothing
    before_state: Callable[[], Awaitable[object]] = nothing
    stopped: list[str] = field(factory=list)

    async def run(self, call: Call, cell_id: CellId, url: str, work: Work, attempt: int) -> Started:
        await self.before_claim()
        claim = Claim(work.process_guid, work.index, work.instance_guid, cell_id, "boot-1")
        await self.lifecycle.claim(call, claim)
        await self.before_start()
        return Started(instance_guid=work.instance_guid, net_info=NET_INFO, available=FREE, sequence=2)

    async def stop(self, call: Call, cell_id: CellId, url: str, instance_guid: InstanceGuid) -> Stopped:
        await self.before_stop()
        self.stopped.append(instance_guid)
        return Stopped(instance_guid=instance_guid, existed=True)

    async def drain(self, call: Call, cell_id: CellId, url: str, draining: bool) -> None:
        """Nothing more is sent there by the test."""

    async def state(self, call: Call, cell_id: CellId, url: str) -> CellReport:
        await self.before_state()
        return reported(cell_id)


@define
class Stage:
    """A placement with a cell, or more."""

    scene: Scene
    cells: Cells
    placement: Placement

    async def desired(self) -> DesiredLRP | None:
        return await self.scene.store.read(self.scene.call, "get", lambda tx: tx.desired_lrps.get("app"))

    async def joins(self, cell_id: str) -> None:
        """One more cell."""
        await self.scene.lifecycle.report(self.scene.call, reported(cell_id))
        await self.placement.pool.refresh(self.scene.call)


async def built() -> Stage:
    """With one cell."""
    clock = SystemClock()
    memory = MemoryDatabase(clock)
    store = MemoryStore(memory, clock)
    lifecycle = Lifecycle(store, clock, guids())
    cells = Cells(lifecycle)
    pool = CellPool(store, cells)  # type: ignore[arg-type]
    ids = itertools.count(1)
    placement = Placement(
        id="bbs-1",
        lifecycle=lifecycle,
        succession=Succession(store, lifecycle),
        pool=pool,
        removal=Removal(store, lifecycle, pool),
        egress=LiveEgress(pool),
        log=logger("bbs", "bbs-1", StringIO()),
        new_failure_id=lambda: f"failure-{next(ids)}",
        jitter=lambda: 0.0,
    )
    stage = Stage(Scene(lifecycle, store, MemoryTampering(memory)), cells, placement)
    await stage.joins("cell-1")
    return stage
