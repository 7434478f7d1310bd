"""Faults of containers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from typing import Any

from tests.chain.awaited import processes_of, until
from tests.chaos.faults.scene import Scene, fault


@fault("the process of an instance is killed", always=True)
async def process_killed(scene: Scene) -> None:
    for number in range(scene.repeats):  # a third crash of one LRP would wait half a minute
        guid = f"crash-{number}"
        (row,) = await scene.steady(guid, script="exec sleep 98765")
        (pid,) = processes_of("sleep", "98765")
        scene.fleet.harms.begin()
        os.kill(pid, signal.SIGKILL)
        async with scene.within("another one runs", 5.0):
            await until("a new instance runs", partial(_is_new, scene, guid, row["instance_guid"]), 60)
        await scene.delete(guid)


def _run(script: str) -> dict[str, Any]:
    return {"run": {"path": "/bin/sh", "args": ["-c", script], "user": "root"}}


TREES: dict[str, dict[str, Any]] = {
    "serial": {"serial": {"actions": [_run("exit 0"), _run("exec sleep 98701")]}},
    "parallel": {"parallel": {"actions": [_run("exec sleep 98702"), _run("exec sleep 98703")]}},
    "codependent": {"codependent": {"actions": [_run("exec sleep 98704"), _run("exec sleep 98705")]}},
}
SIDECAR = "98706"


@fault("SIGKILL of the cells while trees of actions run, with setup, sidecar and monitor; they come back", always=True)
async def programs_lost(scene: Scene) -> None:
    """What only their cell held together is ended with its reason, and runs again with every process once."""
    made = await asyncio.gather(*(_tree(scene, guid, action) for guid, action in TREES.items()))
    before = {row["process_guid"]: row for row in made}
    cells = [scene.fleet.cells[name] for name in sorted({row["cell_id"] for row in before.values()})]
    for cell in cells:
        await cell.kill()
    for cell in cells:
        await cell.start()
    async with scene.within("all of them run again", 30.0):
        for cell in cells:
            await scene.fleet.ready(cell)
        for guid, row in before.items():
            await until(f"{guid} runs", partial(_runs_again, scene, guid, row["instance_guid"]), 60)
    await asyncio.gather(*(scene.delete(guid) for guid in before))


async def _tree(scene: Scene, guid: str, action: dict[str, Any]) -> dict[str, Any]:
    sidecar = {"action": _run(f"exec sleep {SIDECAR}"), "memory_mb": 8}
    extras = {"setup": _run("echo made > /made"), "monitor": _run("test -e /made"), "sidecars": [sidecar]}
    (row,) = await scene.steady(guid, action=action, **extras)
    return row


async def _runs_again(scene: Scene, guid: str, old: str) -> bool:
    """Under another name, and the end of the old one has its reason."""
    rows = await scene.rows(guid)
    if [(row["state"], row["presence"]) for row in rows] != [("RUNNING", "ORDINARY")]:
        return False
    if rows[0]["instance_guid"] == old:
        return False
    answer = await scene.fleet.request("GET", f"/v1/failures?process_guid={guid}", member=await scene.follower())
    ends = {item["code"] for item in answer.json["items"] if item["instance_guid"] == old}
    assert ends & {"executor.program_lost", "bbs.cell_lost"}, answer.body
    marks = [word for word in json.dumps(TREES[guid]).replace('"', " ").split() if word.startswith("987")]
    alone = all(len(processes_of("sleep", mark)) == 1 for mark in marks)
    return alone and len(processes_of("sleep", SIDECAR)) <= len(TREES)


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
