"""Faults of clocks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tests.chain.answers import well_formed
from tests.chain.awaited import until
from tests.chaos.faults.scene import Scene, fault

DAYS = ("+1d", "+0", "-1d", "+0")
"""What the clock of Postgres shows, one after the other: a day ahead and back, a day back and ahead."""


@fault("the clocks of the BBSes jump an hour ahead, then two hours back")
async def clocks_jump(scene: Scene) -> None:
    before = {row["instance_guid"] for row in await scene.steady("clock", instances=2)}
    for offset in ("+1h", "-1h", "+0"):
        for name in scene.fleet.bbses:
            scene.fleet.set_clock(name, offset)
        await asyncio.sleep(scene.timing.presence_ttl_s)
        assert {str(row["instance_guid"]) for row in await scene.rows("clock")} == before, offset
    await scene.delete("clock")


@fault("the clock of Postgres jumps a day ahead and back, then a day back and ahead")
async def postgres_clock_jumps(scene: Scene) -> None:
    await _restart_postgres(scene, clock=True)
    before = {row["instance_guid"] for row in await scene.steady("days", instances=4)}
    changes = await _changes(scene)
    for offset in DAYS:
        epoch = await scene.fleet.epoch()
        scene.fleet.set_clock("postgres", offset)
        assert await _shown(scene) == offset, "the clock of Postgres did not jump"
        await _served(scene)
        # Whoever was taken for lost would be replaced as soon as the leader has watched for a whole presence TTL.
        await asyncio.sleep(scene.timing.presence_ttl_s * 1.5)
        scene.count("failovers after the clock of Postgres jumped", await scene.fleet.epoch() - epoch, 1, most=1)
        assert {row["instance_guid"] for row in await scene.rows("days")} == before, f"replaced after {offset}"
    suspected, seen = await _suspected(scene, changes), await _changes(scene) - changes
    scene.count("changes of rows because a cell was taken for lost", suspected, seen)
    await _restart_postgres(scene, clock=False)
    await scene.delete("days")


async def _restart_postgres(scene: Scene, clock: bool) -> None:
    await scene.fleet.kill_postgres()
    await scene.fleet.start_postgres(clock)
    for member in scene.fleet.bbses.values():
        await scene.fleet.ready(member)


async def _served(scene: Scene) -> None:
    """Return as soon as a new LRP is answered with 201; what failed stays desired, so that each has a name of its own.

    All of them are deleted afterwards.
    """
    asked: list[str] = []

    async def created() -> bool:
        asked.append(f"day-{len(asked)}")
        answer = await scene.create(asked[-1])
        if answer.status != 201:
            well_formed(answer)
        return answer.status == 201

    async with scene.within("a day's jump of Postgres to an LRP created", scene.timing.presence_ttl_s * 2):
        await until("an LRP is created", created, 60)
    for guid in asked:
        await scene.delete(guid)


async def _shown(scene: Scene) -> str:
    """By how many days the clock of Postgres differs from ours."""
    async with scene.fleet.database() as connection:
        shown = await connection.fetchval("SELECT clock_timestamp()")
    days = round((shown - datetime.now(UTC)) / timedelta(days=1))
    return f"{days:+d}d" if days else "+0"


async def _changes(scene: Scene) -> int:
    """How many changes of rows there were so far."""
    async with scene.fleet.database() as connection:
        return int(await connection.fetchval("SELECT coalesce(max(number), 0) FROM chaos_audit"))


async def _suspected(scene: Scene, since: int) -> int:
    """How many rows were made suspect after so many changes: their cell was taken for lost."""
    suspects = "SELECT count(*) FROM chaos_audit WHERE number > $1 AND presence = 'SUSPECT'"
    async with scene.fleet.database() as connection:
        return int(await connection.fetchval(suspects, since))
