"""Where a fault happens: the installation, what is measured of it, and the register of all faults."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from tests.chain.answers import Answer
from tests.chain.awaited import until
from tests.chain.definitions import lrp
from tests.chaos.canary import RATE_HZ, Canary
from tests.chaos.fleet import Fleet, Timing
from tests.chaos.load import Load

MARGIN_S = 5.0
"""What a repair may take besides the times that are waited for, on a machine that others use too."""
QUICK_S = 2.0
ELSEWHERE = "an instance runs elsewhere"
ROUTED = "requests of a router"
BUDGET_MS = 3_000


@frozen
class Measured:
    """How long something took that has a bound, or how often something happened."""

    what: str
    value: float
    bound: float
    unit: str = "s"

    @property
    def held(self) -> bool:
        return self.value <= self.bound


@define
class Scene:
    """Where a fault happens."""

    fleet: Fleet
    load: Load
    random: random.Random
    repeats: int = 1
    """How often a fault that is short is done, so that there is a distribution to look at."""
    measured: list[Measured] = field(factory=list, init=False)
    told: list[str] = field(factory=list, init=False)
    """What to say about it if something was not held."""

    @property
    def timing(self) -> Timing:
        return self.fleet.timing

    @asynccontextmanager
    async def within(self, what: str, bound_s: float) -> AsyncIterator[None]:
        """Measure how long the body takes."""
        began_s = time.monotonic()
        yield
        self.measured.append(Measured(what, time.monotonic() - began_s, bound_s))

    def count(self, what: str, number: int, of: int, most: int = 0) -> None:
        """Enter how often something happened, of how many times that it could have."""
        self.measured.append(Measured(what, number, most, f"of {of}"))

    @asynccontextmanager
    async def canary(self, guid: str, *good: str) -> AsyncIterator[None]:
        """Ask the app while the body runs, and count what failed; its answers are the words `good`."""
        canary = Canary(self.fleet, guid, frozenset(f"{word}\n".encode() for word in good))
        async with canary.asking():
            yield
        self.count(f"{ROUTED} failed, {RATE_HZ} a second", len(canary.failed), canary.asked)
        self.told += canary.failed[:5]

    async def steady(self, guid: str, **changes: Any) -> list[dict[str, Any]]:
        """An LRP that no client touches, all of its instances RUNNING, on all cells that are there."""
        answer = await self.create(guid, **changes)
        assert answer.status == 201, answer.body
        rows: list[dict[str, Any]] = answer.json["actual_lrps"]
        return rows

    async def create(self, guid: str, member: str = "", budget_ms: int = 0, **changes: Any) -> Answer:
        headers = {"X_Budget_Ms": str(budget_ms)} if budget_ms else {}
        body = lrp(guid, memory_mb=16, **changes)
        member = member or await self.follower()
        return await self.fleet.request("POST", "/v1/desired_lrps", body, member, **headers)

    async def delete(self, guid: str) -> None:
        answer = await self.fleet.request("DELETE", f"/v1/desired_lrps/{guid}", None, await self.follower())
        assert answer.status in (200, 404), answer.body

    async def rows(self, guid: str) -> list[dict[str, Any]]:
        """The rows as the database has them."""
        async with self.fleet.database() as connection:
            found = await connection.fetch("SELECT * FROM actual_lrps WHERE process_guid = $1 ORDER BY index", guid)
        return [dict(record) for record in found]

    async def running(self, guid: str, number: int, limit_s: float, but_not: frozenset[str] = frozenset()) -> None:
        """Return when so many instances are RUNNING, none of them of the cells `but_not`."""

        async def look() -> bool:
            rows = [row for row in await self.rows(guid) if row["state"] == "RUNNING" and row["cell_id"] not in but_not]
            return len(rows) == number

        await until(f"{number} instances of {guid} are RUNNING", look, limit_s)

    async def replaced(self, rows: Sequence[Mapping[str, Any]], cell_id: str, bound_s: float, began_s: float) -> None:
        """Return when all that ran on a cell runs elsewhere, as of `rows`; measure each instance since `began_s`.

        The rows are those from before the harm, which may itself take longer than a presence lasts.
        """
        guid = rows[0]["process_guid"]
        lost = {row["index"] for row in rows if row["cell_id"] == cell_id}
        assert lost, f"nothing of {guid} was on {cell_id}"

        async def look() -> bool:
            for row in await self.rows(guid):
                if row["index"] in lost and row["state"] == "RUNNING" and row["cell_id"] != cell_id:
                    lost.discard(row["index"])
                    self.measured.append(Measured(ELSEWHERE, time.monotonic() - began_s, bound_s))
            return not lost

        await until(f"what ran on {cell_id} runs elsewhere", look, 90)

    async def leader(self, but_not: str = "", limit_s: float = 60.0) -> str:
        """Who leads, as soon as somebody does that is not `but_not`."""

        async def look() -> str:
            name = await self.fleet.leader()
            return name if name != but_not else ""

        return await until(f"a BBS other than {but_not!r} leads", look, limit_s)

    async def follower(self) -> str:
        """A BBS that runs and does not lead; the leader where there is no other."""
        leader = await self.fleet.leader()
        alive = [name for name, member in self.fleet.bbses.items() if member.process is not None]
        return next((name for name in alive if name != leader), alive[0])


Harm: TypeAlias = Callable[[Scene], Awaitable[None]]


@frozen
class Fault:
    """One row of the table."""

    name: str
    told: str
    harm: Harm
    always: bool
    """Whether every change of the product has to pass it; the others are for `scripts/chaos --all`."""


FAULTS: Final[dict[str, Fault]] = {}


def fault(told: str, always: bool = False) -> Callable[[Harm], Harm]:
    """Enter a function as a fault."""

    def enter(harm: Harm) -> Harm:
        name = harm.__name__
        FAULTS[name] = Fault(name, told, harm, always)
        return harm

    return enter


@contextmanager
def cut(scene: Scene, name: str, *others: str) -> Iterator[None]:
    """`name` and each of `others` do not hear each other."""
    for other in others:
        scene.fleet.network.cut(name, other)
    try:
        yield
    finally:
        scene.fleet.network.heal()
