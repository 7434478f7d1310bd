"""One run of everything: its seed decides what is asked, what fails, who is killed, and who comes first."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, Final
from unittest.mock import patch

from attrs import define, field, frozen

from bbs.convergence.apply import Repairs
from bbs.store import fence
from bbs.store.domains import DomainFreshness
from tests.simulation.chaos import Chaos
from tests.simulation.clock import SimulatedClock
from tests.simulation.faults import Faults
from tests.simulation.loop import PROCESS, SimulatedLoop
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.network import Network
from tests.simulation.processes import BbsHost, CellHost, World
from tests.simulation.settled import Picture
from tests.simulation.witness import InvariantBroken, Witness
from tests.simulation.workload import DOMAIN, Clients, draw

ACTIVE_S: Final = (1.0, 4.0, 10.0)
"""In which clients send their requests, in one run or the other."""
SETTLE_S: Final = 200
"""In which everything is as desired once no fault happens any more."""


@frozen
class Outcome:
    """How a run went."""

    seed: int
    trace: int
    steps: int
    virtual_s: float
    broken: str = ""
    story: tuple[str, ...] = ()


@define
class Simulation:
    """The world of one seed."""

    seed: int
    tell_story: bool = False
    world: World = field(init=False)
    bbses: list[BbsHost] = field(factory=list, init=False)
    cells: list[CellHost] = field(factory=list, init=False)
    clients: Clients = field(init=False)
    active_s: float = field(init=False)

    def run(self) -> Outcome:
        """Carry it out and say how it went. Never raises for what the product did."""
        random = Random(self.seed)
        loop = SimulatedLoop(random)
        broken = ""
        try:
            asyncio.set_event_loop(loop)
            self._build(loop, random)
            witness = self.world.witness
            with _failpoints(self.world.faults), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # what a task never came to await
                try:
                    loop.run_until_complete(self._watched())
                except InvariantBroken as found:
                    broken = str(found)
                trace, steps, virtual_s = loop.trace, loop.steps, loop.time() - 1_000
                story = tuple(witness.story or ())
                self._bury(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        return Outcome(self.seed, trace, steps, virtual_s, broken, story)

    def _build(self, loop: SimulatedLoop, random: Random) -> None:
        faults = Faults.drawn(random)
        database = MemoryDatabase(SimulatedClock(loop))
        network = Network(loop, faults)
        witness = Witness(loop, database, story=[] if self.tell_story else None)
        loop.set_exception_handler(witness.callback_failed)
        self.world = World(loop, random, faults, network, database, witness)
        self.world.guids = random.choice((1, 1, 2, 3))
        self.world.task_share = random.choice((0.0, 0.0, 0.3, 1.0))
        self.world.drain_share = random.choice((0.0, 0.0, 0.2))
        urls = tuple(f"http://bbs-{number}" for number in range(random.choice((1, 2, 2, 3))))
        self.bbses = [BbsHost(self.world, url.removeprefix("http://")) for url in urls]
        for number in range(random.randint(1, 4)):
            order = random.sample(urls, len(urls))
            self.cells.append(CellHost(self.world, f"cell-{number}", tuple(order)))
        self.clients = Clients(self.world, urls)
        self.active_s = random.choice(ACTIVE_S)
        witness.tell(f"faults {sorted(faults.rates.items())}")

    async def _watched(self) -> None:
        """The scenario, until it is over or something is wrong."""
        broken = self.world.witness.broken
        loop = asyncio.get_running_loop()
        scenario = loop.create_task(self._scenario())
        await asyncio.wait({scenario, broken}, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
        scenario.result()
        if broken.done():
            broken.result()

    async def _scenario(self) -> None:
        for host in (*self.bbses, *self.cells):
            host.start()
        self.world.database.tables["domains"][DOMAIN] = DomainFreshness(DOMAIN, None)
        await asyncio.sleep(1.0)
        async with asyncio.TaskGroup() as group:
            chaos = Chaos(self.world, self.bbses, self.cells)
            raging = group.create_task(chaos.rage())
            async with asyncio.TaskGroup() as asking:
                for number in range(self.world.random.randint(3, 8)):
                    asking.create_task(self._ask(number))
            raging.cancel()
        chaos.heal()
        await self._settle()
        self.clients.check_in_the_end(self.world.database.tables["desired_lrps"])

    async def _ask(self, number: int) -> None:
        await asyncio.sleep(self.world.random.random() * self.active_s)
        await self.clients.send(draw(self.world, number))

    async def _settle(self) -> None:
        """Wait until everything is as desired. Raises InvariantBroken when it never is."""
        for _ in range(SETTLE_S):
            if not self._picture().unsettled():
                return
            await asyncio.sleep(1.0)
        if why := self._picture().unsettled():
            raise InvariantBroken(f"L1-L3: {SETTLE_S} s after the last fault {why}")

    def _picture(self) -> Picture:
        tables = self.world.database.tables
        return Picture(
            now=self.world.database.clock.now(),
            desired={guid: lrp.definition.instances for guid, lrp in tables["desired_lrps"].items()},
            rows={key: row.lrp for key, row in tables["actual_lrps"].items()},
            draining=frozenset(cell for cell, row in tables["cells"].items() if row.record.presence.draining),
            tasks=tuple(row.task for row in tables["tasks"].values()),
            containers=frozenset((cell.name, handle) for cell in self.cells for handle in cell.garden.specs()),
            running=frozenset((cell.name, handle) for cell in self.cells for handle in cell.garden.running()),
        )

    def _bury(self, loop: SimulatedLoop) -> None:
        """End every task, also those of the dead, so that nothing is left to be collected half-done."""
        loop.bury()
        self.world.faults.healed = True
        self.world.witness.story = None
        for _ in range(100):
            tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
            if not tasks:
                break
            for task in sorted(tasks, key=hash):
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=1_000))
        if self.world.witness.broken.done():
            self.world.witness.broken.exception()


@contextmanager
def _failpoints(faults: Faults) -> Iterator[None]:
    """Have each fenced transaction say for which epoch it acts, whether or not the fence looks; and leaders dawdle."""
    real, apply = fence.run_fenced, Repairs.apply

    async def told(store: Any, call: Any, op: str, work: Callable[[Any], Any], epoch: int | None) -> Any:
        async def work_for_epoch(tx: Any) -> Any:
            tx.core.epoch = epoch
            return await work(tx)

        return await real(store, call, op, work_for_epoch, epoch)

    async def apply_late(repairs: Repairs, *arguments: Any) -> None:
        process = PROCESS.get()
        assert process is not None
        await faults.before_repairs(process)
        await apply(repairs, *arguments)

    with ExitStack() as patches:
        for module in [
            module for name, module in sys.modules.items() if name.startswith("bbs.") and module is not fence
        ]:
            if getattr(module, "run_fenced", None) is real:
                patches.enter_context(patch.object(module, "run_fenced", told))
        patches.enter_context(patch.object(Repairs, "apply", apply_late))
        yield


def run(seed: int, tell_story: bool = False) -> Outcome:
    """The run of one seed."""
    return Simulation(seed, tell_story).run()
