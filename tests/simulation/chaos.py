"""What happens to whole processes and hosts while clients ask for things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from tests.simulation.processes import BbsHost, CellHost, Host, World

PAUSE_S: Final = 0.5
FROZEN_S_MAX: Final = 12.0
START_CHANCE: Final = 0.2
REACHED_AGAIN_CHANCE: Final = 0.15


@frozen
class Chaos:
    """Kills, freezes, cuts off; and brings back, so that there is something to be killed again."""

    world: World
    bbses: Sequence[BbsHost]
    cells: Sequence[CellHost]

    async def rage(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S * (0.5 + self.world.random.random()))
            for host in (*self.bbses, *self.cells):
                self._strike_process(host)
                self._strike_network(host)
            for cell in self.cells:
                self._strike_apps(cell)
            self._strike_database()

    def heal(self) -> None:
        """From now on nothing fails, and everybody is there."""
        self.world.faults.healed = True
        self.world.network.cut_off.clear()
        for cell in self.cells:
            cell.garden.unready.clear()
        self.world.witness.tell("healed")
        for host in (*self.bbses, *self.cells):
            if not host.process.alive:
                host.start()

    def _strike_process(self, host: Host) -> None:
        faults, random = self.world.faults, self.world.random
        kind = "bbs" if isinstance(host, BbsHost) else "cell"
        if not host.process.alive:
            if random.random() < START_CHANCE:
                host.start()
        elif faults.strikes(f"{kind}_killed"):
            host.kill()
        elif faults.strikes(f"{kind}_frozen"):
            host.freeze(random.random() * FROZEN_S_MAX)

    def _strike_network(self, host: Host) -> None:
        cut_off = self.world.network.cut_off
        if host.url in cut_off:
            if self.world.random.random() < REACHED_AGAIN_CHANCE:
                cut_off.discard(host.url)
        elif self.world.faults.strikes("cut_off"):
            self.world.witness.tell(f"cut off {host.name}")
            cut_off.add(host.url)

    def _strike_apps(self, cell: CellHost) -> None:
        for handle in cell.garden.running():
            if self.world.faults.strikes("app_ends"):
                self.world.witness.tell(f"host {cell.name} app ends {handle}")
                self.world.witness.apps_ended.add(handle)
                cell.garden.end(handle, 1)
            elif self.world.faults.strikes("readiness_changes"):
                cell.garden.unready ^= {handle}

    def _strike_database(self) -> None:
        """It is restored from a state in which an LRP was not desired."""
        desired = self.world.database.tables["desired_lrps"]
        if desired and self.world.faults.strikes("restored"):
            guid = self.world.random.choice(sorted(desired))
            self.world.witness.tell(f"restored without {guid}")
            self.world.restored.add(guid)
            del desired[guid]
