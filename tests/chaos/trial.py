"""One trial: clients at work, a fault, then peace; what was measured and what was violated."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from attrs import field, frozen

from tests.chaos import invariants
from tests.chaos.faults import Fault, Measured, Scene
from tests.chaos.fleet import Fleet
from tests.chaos.load import CLIENTS, Load

REPAIR_S = 40.0
"""What repair may take beside the presences that have to run out first: starts, back-offs after failed placements."""


@frozen
class Trial:
    """What came of it."""

    fault: Fault
    measured: tuple[Measured, ...]
    violated: tuple[str, ...]
    """Empty when all is well."""
    repaired_s: float
    """From the end of the fault and of the load until nothing was left to repair."""
    told: tuple[str, ...] = ()
    """More about what was not held."""
    answers: Counter[str] = field(factory=Counter)
    """Statuses that the clients saw, and how their connections broke."""
    met: Counter[str] = field(factory=Counter)
    """Those of requests that a fault met: under way when it began, or sent later."""
    run_twice: int = 0
    """Tasks."""
    never_run: int = 0
    """Tasks that a client was told run or have run."""

    @property
    def held(self) -> bool:
        return not self.violated and all(measured.held for measured in self.measured)


async def endure(fleet: Fleet, fault: Fault, seed: int, clients: int = CLIENTS, repeats: int = 1) -> Trial:
    """Do the harm under load and look at everything afterwards. Raises AssertionError when a promise is broken."""
    name = f"{fault.name}-{seed}"
    load = Load(fleet, name, clients)
    scene = Scene(fleet, load, random.Random(name), repeats)
    before = await invariants.violated(fleet)
    fleet.harms.begun = False
    async with load.working():
        await fault.harm(scene)
    ended_s = time.monotonic()
    await invariants.quiet(fleet, load.expected(), fleet.timing.presence_ttl_s * 2 + REPAIR_S)
    repaired_s = time.monotonic() - ended_s
    violated = [told for told in await invariants.violated(fleet) if told not in before]
    twice, never = invariants.run_twice(fleet, load.name), invariants.never_run(fleet, load.begun())
    await _delete_all(fleet, load)
    return Trial(
        fault,
        tuple(scene.measured),
        (*violated, *twice, *never),
        repaired_s,
        tuple(scene.told),
        load.answers,
        load.met,
        len(twice),
        len(never),
    )


async def _delete_all(fleet: Fleet, load: Load) -> None:
    """What the clients made goes; nothing of it may stay."""
    async with asyncio.TaskGroup() as group:
        for guid in load.expected():
            group.create_task(_delete(fleet, guid))
    await invariants.quiet(fleet, {guid: {0} for guid in load.expected()}, REPAIR_S)


async def _delete(fleet: Fleet, guid: str) -> None:
    answer = await fleet.request("DELETE", f"/v1/desired_lrps/{guid}")
    assert answer.status in (200, 404), answer.body
