"""Several faults at once."""

from __future__ import annotations

import asyncio

from tests.chaos.faults.scene import Scene, cut, fault


@fault("several faults at once, drawn by the seed")
async def swarm(scene: Scene) -> None:
    drawn = scene.random.sample([_freeze_some, _cut_some, _kill_some_bbs, _kill_some_cell, _kill_postgres], 3)
    async with asyncio.TaskGroup() as group:
        for harm in drawn:
            group.create_task(harm(scene))
    scene.fleet.network.heal()


async def _freeze_some(scene: Scene) -> None:
    member = scene.random.choice([*scene.fleet.cells.values()])
    if member.process is not None:
        member.freeze()
        await asyncio.sleep(scene.random.uniform(0.1, scene.timing.presence_ttl_s))
        if member.process is not None:
            member.thaw()


async def _cut_some(scene: Scene) -> None:
    for _ in range(3):
        one, other = scene.random.sample([*scene.fleet.bbses, *scene.fleet.cells, "postgres"], 2)
        with cut(scene, one, other):
            await asyncio.sleep(scene.random.uniform(0.2, scene.timing.leader_ttl_s))


async def _kill_some_bbs(scene: Scene) -> None:
    member = scene.random.choice([*scene.fleet.bbses.values()])
    await member.kill()
    await member.start()


async def _kill_some_cell(scene: Scene) -> None:
    member = scene.random.choice([*scene.fleet.cells.values()])
    await member.kill()
    await asyncio.sleep(scene.random.uniform(0.0, 1.0))
    await member.start()


async def _kill_postgres(scene: Scene) -> None:
    await scene.fleet.kill_postgres()
    await scene.fleet.start_postgres()
