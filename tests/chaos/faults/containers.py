"""Faults of containers."""

from __future__ import annotations

import os
import signal

from tests.chain.awaited import processes_of, until
from tests.chaos.faults.scene import Scene, fault


@fault("the process of an instance is killed", always=True)
async def process_killed(scene: Scene) -> None:
    (row,) = await scene.steady("crash", script="exec sleep 98765")
    (pid,) = processes_of("sleep", "98765")
    os.kill(pid, signal.SIGKILL)
    async with scene.within("another one runs", 5.0):
        await until("a new instance runs", lambda: _is_new(scene, "crash", row["instance_guid"]), 60)
    await scene.delete("crash")


@fault("a container is deleted behind the cell's back, by the runtime's own command")
async def container_deleted(scene: Scene) -> None:
    (row,) = await scene.steady("deleted")
    await scene.fleet.delete_container(row["cell_id"], row["instance_guid"])
    async with scene.within("another one runs", 5.0):
        await until("a new instance runs", lambda: _is_new(scene, "deleted", row["instance_guid"]), 60)
    await scene.delete("deleted")


async def _is_new(scene: Scene, guid: str, old: str) -> bool:
    rows = await scene.rows(guid)
    return any(row["state"] == "RUNNING" and row["instance_guid"] != old for row in rows)
