"""Faults of clocks."""

from __future__ import annotations

import asyncio

from tests.chaos.faults.scene import Scene, fault


@fault("the clocks of the BBSes jump an hour ahead, then two hours back")
async def clocks_jump(scene: Scene) -> None:
    before = {row["instance_guid"] for row in await scene.steady("clock", instances=2)}
    for offset in ("+1h", "-1h", "+0"):
        for name in scene.fleet.bbses:
            scene.fleet.set_clock(name, offset)
        await asyncio.sleep(scene.timing.presence_ttl_s)
        assert {str(row["instance_guid"]) for row in await scene.rows("clock")} == before, offset
    await scene.delete("clock")
