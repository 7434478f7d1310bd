"""Faults of Postgres and of the way to it."""

from __future__ import annotations

import asyncio

from tests.chain.answers import well_formed
from tests.chain.definitions import lrp
from tests.chaos.faults.scene import BUDGET_MS, Scene, cut, fault

READY_S = 3.0
"""From the moment when Postgres takes connections again."""


@fault("SIGKILL of Postgres; it comes back", always=True)
async def postgres_killed(scene: Scene) -> None:
    for _ in range(scene.repeats):
        await scene.fleet.kill_postgres()
        await scene.fleet.start_postgres()
        async with scene.within("every BBS is ready again", READY_S):
            for member in scene.fleet.bbses.values():
                await scene.fleet.ready(member)


@fault("Postgres is frozen (SIGSTOP) for longer than its clients wait")
async def postgres_frozen(scene: Scene) -> None:
    scene.fleet.freeze_postgres()
    try:
        async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
            body = lrp("frozen", memory_mb=16)
            headers = {"X_Budget_Ms": str(BUDGET_MS)}
            answer = await scene.fleet.request("POST", "/v1/desired_lrps", body, "bbs-1", **headers)
        assert answer.status in (503, 504), answer.body
        well_formed(answer)
        await asyncio.sleep(scene.timing.presence_ttl_s)
    finally:
        scene.fleet.thaw_postgres()
    async with scene.within("every BBS is ready again", 8.0):
        for member in scene.fleet.bbses.values():
            await scene.fleet.ready(member)
    await scene.delete("frozen")


@fault("Postgres hears nobody any more, without a word")
async def postgres_cut_off(scene: Scene) -> None:
    with cut(scene, "postgres", *scene.fleet.bbses):
        async with scene.within("a request is answered", BUDGET_MS / 1000 + 1.0):
            body = lrp("silent", memory_mb=16)
            headers = {"X_Budget_Ms": str(BUDGET_MS)}
            answer = await scene.fleet.request("POST", "/v1/desired_lrps", body, "bbs-1", **headers)
        assert answer.status in (503, 504), answer.body
        well_formed(answer)
        await asyncio.sleep(scene.timing.presence_ttl_s)
    async with scene.within("every BBS is ready again", 8.0):
        for member in scene.fleet.bbses.values():
            await scene.fleet.ready(member)
    await scene.delete("silent")
