"""One run of everything: its seed decides what is asked, what fails, who is killed, and who comes first."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from types import MappingProxyType
from typing import Final

from attrs import define, field, frozen

from bbs.store.domains import DomainFreshness
from tests.simulation.chaos import Chaos
from tests.simulation.clock import SimulatedClock
from tests.simulation.decisions import Decisions
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.network import Network
from tests.simulation.processes import BbsHost, CellHost, World
from tests.simulation.settled import Picture
from tests.simulation.wishes import Wishes
from tests.simulation.witness import InvariantBroken, Witness
from tests.simulation.workload import DOMAIN, Clients, draw

ACTIVE_S: Final = (1.0, 4.0, 10.0)
"""In which clients send their requests, in one run or the other."""
NO_MORE: Final[Mapping[str, float]] = MappingProxyType({})
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
    rates: Mapping[str, float] = field(factory=dict)
    """Of faults that happen besides those that are drawn."""
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
            with Decisions(self.world).seen(), warnings.catch_warnings():
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
        faults.rates |= self.rates
        database = MemoryDatabase(SimulatedClock(loop))
        network = Network(loop, faults)
        witness = Witness(loop, database, story=[] if self.tell_story else None)
        loop.set_exception_handler(witness.callback_failed)
        self.world = World(loop, random, faults, network, database, witness, Wishes.drawn(random))
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
        self._vouch(self.world.wishes.domain_ttl_s)
        await asyncio.sleep(1.0)
        async with asyncio.TaskGroup() as group:
            chaos = Chaos(self.world, self.bbses, self.cells)
            raging = group.create_task(chaos.rage())
            async with asyncio.TaskGroup() as asking:
                for number in range(self.world.random.randint(3, 8)):
                    asking.create_task(self._ask(number))
            raging.cancel()
        chaos.heal()
        self._vouch(None)
        await self._settle()
        self.clients.check_in_the_end(self.world.database.tables["desired_lrps"])

    def _vouch(self, ttl_s: float | None) -> None:
        """Make the domain fresh for so long."""
        until = None if ttl_s is None else self.world.database.clock.now() + timedelta(seconds=ttl_s)
        self.world.database.tables["domains"][DOMAIN] = DomainFreshness(DOMAIN, until)

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


def run(seed: int, tell_story: bool = False, rates: Mapping[str, float] = NO_MORE) -> Outcome:
    """The run of one seed, with faults besides those that it draws."""
    return Simulation(seed, tell_story, rates).run()
