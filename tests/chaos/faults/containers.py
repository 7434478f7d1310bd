"""Faults of containers."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

from tests.chain.awaited import processes_of, until, until_true
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


MARKS = ("98701", "98702", "98703", "98704")
"""What the processes of the tree sleep for, the last one the sidecar's."""
TOGETHER = {"codependent": {"actions": [_run(f"exec sleep {MARKS[0]}"), _run(f"exec sleep {MARKS[1]}")]}}
SIDE_BY_SIDE = {"parallel": {"actions": [_run(f"exec sleep {MARKS[2]}"), TOGETHER]}}
TREE = {
    "action": {"serial": {"actions": [_run("exit 0"), SIDE_BY_SIDE]}},
    "setup": _run("echo made > /made"),
    "monitor": _run("test -e /made"),
    "sidecars": [{"action": _run(f"exec sleep {MARKS[3]}"), "memory_mb": 8}],
}


@fault("SIGKILL of a cell while a tree of actions runs, with setup, sidecar and monitor; it comes back", always=True)
async def program_lost(scene: Scene) -> None:
    """What only the cell held together is ended with its reason, and runs again with every process once."""
    (before,) = await scene.steady("tree", **TREE)
    cell = scene.fleet.cells[before["cell_id"]]
    await cell.kill()
    await cell.start()
    async with scene.within("it runs again", 30.0):
        await scene.fleet.ready(cell)
        await until("it runs again", partial(_is_new, scene, "tree", before["instance_guid"]), 60)
        await until_true("every process is there once", _each_once, 10)
    answer = await scene.fleet.request("GET", "/v1/failures?process_guid=tree", member=await scene.follower())
    ends = {item["code"] for item in answer.json["items"] if item["instance_guid"] == before["instance_guid"]}
    assert ends & {"executor.program_lost", "bbs.cell_lost"}, answer.body
    await scene.delete("tree")


def _each_once() -> bool:
    return all(len(processes_of("sleep", mark)) == 1 for mark in MARKS)


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
